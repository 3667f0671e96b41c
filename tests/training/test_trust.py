"""A network's folder from elsewhere runs no code that the user has not asked for."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from crysgnn_jax.errors import UserError
from crysgnn_jax.members import find_member, import_module
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.shipped import FOLDER

CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
from crysgnn_jax.models.cgcnn import NETWORK as Net
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A folder whose ``config.json`` names a module beside it, and the mark which that leaves."""
    folder, mark = tmp_path / "published", tmp_path / "imported"
    shutil.copytree(FOLDER / "crysgnn-mp-cgcnn", folder)
    config = json.loads((folder / "config.json").read_text())
    config["made_with"]["network"] = "published.theirs:Net"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder, mark


def test_code_that_a_run_names_is_not_imported(stranger):
    folder, mark = stranger
    with pytest.raises(UserError, match="names code .* published.theirs:Net.*`trust_code`"):
        TrainedModel.load(folder)
    assert not mark.exists()
    import_module("published.theirs", "trust_code", "published.theirs")
    assert TrainedModel.load(folder).name == "published.theirs:Net"
    assert mark.exists()


def test_the_flag_names_the_module(stranger):
    folder, mark = stranger
    words = [sys.executable, "-m", "crysgnn_jax", "embed", "--model", folder, "dielectric"]
    words += ["--limit", "3", "--workers", "1", "--output", folder / "x.npz"]
    refused = subprocess.run(words, capture_output=True, text=True)
    assert refused.returncode == 2 and "--trust-code published.theirs" in refused.stderr
    assert refused.stderr.count("\n") == 1 and not mark.exists()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.parent), *sys.path])}
    trusted = subprocess.run(
        [*words, "--trust-code", "published.theirs"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert trusted.returncode == 0, trusted.stderr
    assert mark.exists() and (folder / "x.npz").exists()


def test_own_code_by_its_file(tmp_path, monkeypatch):
    (tmp_path / "own_file.py").write_text("class Thing: pass\n")
    path = f"{tmp_path / 'own_file.py'}:Thing"
    thing = find_member(path, "student", "")
    assert thing.__module__ == "own_file"
    assert find_member(path, "student", "") is thing
    with pytest.raises(UserError, match="has no Other"):
        find_member(path.replace("Thing", "Other"), "student", "")
    with pytest.raises(UserError, match="nowhere.py cannot be imported"):
        find_member("nowhere.py:Thing", "student", "")
