"""What is built of the project installs, and works, without a network and outside of a clone."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the wheel of the sdist, and the dependencies of this one."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools builds the package")
    path = tmp_path_factory.mktemp("packaging")
    build = f"import setuptools.build_meta as m; print(m.build_sdist({str(path)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = path.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *offline, "-w", path, sdist], check=True, capture_output=True)
    (wheel,) = path.glob("*.whl")
    venv.create(path / "venv", with_pip=False)
    python = path / "venv" / "bin" / "python"
    paths = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    site = Path(paths.stdout.strip())
    # A .pth within these is not followed, so that the clone is not found by them.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [*pip, "--python", python, "install", *offline, wheel]
    subprocess.run(install, check=True, capture_output=True)
    return path


def run(installed, *words):
    empty = installed / "empty"
    empty.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [installed / "venv" / "bin" / "crysgnn", *map(str, words)],
        cwd=empty,
        env={**environment, "CRYSGNN_CACHE": str(installed / "cache"), "no_proxy": "*"},
        capture_output=True,
        text=True,
    )


def test_the_wheel_of_the_sdist_predicts_from_an_empty_folder(installed):
    python = installed / "venv" / "bin" / "python"
    where = [python, "-c", "import crysgnn_jax; print(crysgnn_jax.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, cwd=installed, check=True)
    assert found.stdout.startswith(str(installed / "venv"))
    crystals = ROOT / "docs" / "examples" / "crystals"
    done = run(installed, "predict", "--model", "formation_energy", crystals)
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[0] for line in done.stdout.splitlines()[1:]] == [
        *("BaTiO3", "Cu2O", "NaCl"),
    ]


def test_the_data_sets_and_networks_are_in_it(installed):
    done = run(installed, "models")
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert listed >= {"crysgnn-mp", "formation_energy", "band_gap", "bulk_modulus", "shear_modulus"}
    done = run(installed, "embed", "elastic", "--limit", "3")
    assert done.returncode == 0, done.stderr
