"""The comparison table as a command: cells, resumption, devices."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crysgnn_jax.commands import cli, compare
from crysgnn_jax.errors import UserError
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.models.registry import STUDENTS
from toy_runs import prepare, run

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--epochs", "2", "--batch-size", "8", "--students", "cgcnn")


class Small(CGCNN):
    """With one convolution, for a table has many cells, and each compiles its own."""

    n_convolutions: int = 1


@pytest.fixture(scope="module", autouse=True)
def _small_students():
    with pytest.MonkeyPatch.context() as patch:
        network = dataclasses.replace(STUDENTS["cgcnn"], module=Small)
        patch.setitem(STUDENTS, "cgcnn", network)
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("compare"))


def _compare(path, workdir, *flags, more=("--workers", "1", "--devices", "1")):
    fixed = ("--teacher", path / "teacher", "--workdir", workdir)
    run(compare, path, *SHORT, *fixed, *flags, more=more)


def _table(workdir):
    with open(workdir / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


FULL_TABLE = ("--seeds", "1", "--train-fractions", "0.5,1.0", "--finetune")


@pytest.fixture(scope="module")
def finished(here):
    """A comparison of one seed, two fractions and all variants."""
    _compare(here, here / "finished", *FULL_TABLE)
    return here / "finished"


def test_table_and_resumption(here, finished, capsys):
    rows = _table(finished)
    assert {(row["train_fraction"], row["variant"]) for row in rows} == {
        (fraction, variant)
        for fraction in ("0.5", "1")
        for variant in ("vanilla", "distilled", "fine-tuned")
    }
    for row in rows:
        assert row["n_seeds"] == "1" and row["property"] == "energy"
        # 24 crystals, 19 of them for training.
        assert row["n_train"] == {"0.5": "10", "1": "19"}[row["train_fraction"]]
    # Every number of the table is that of a run of its own.
    cell = finished / "cells/energy/cgcnn/fraction-1-seed-0-distilled/result.json"
    distilled = next(r for r in rows if r["variant"] == "distilled" and r["train_fraction"] == "1")
    error = float(distilled["test_mae_of_each_seed"])
    assert json.loads(cell.read_text())["test_mae"] == pytest.approx(error, rel=1e-5)
    # The same crystals are tested whatever the size of the training set.
    small = cell.parent.parent / "fraction-0.5-seed-0-vanilla" / "splits.json"
    whole = json.loads((cell.parent / "splits.json").read_text())
    part = json.loads(small.read_text())
    assert part["test"] == whole["test"] and set(part["train"]) < set(whole["train"])
    assert (finished / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "| energy | 19 |" in (finished / "table.md").read_text()
    stamp = cell.stat().st_mtime_ns
    capsys.readouterr()
    _compare(here, finished, *FULL_TABLE)
    assert cell.stat().st_mtime_ns == stamp
    assert "| energy | 19 |" in capsys.readouterr().out


@pytest.mark.slow
def test_cells_side_by_side_are_the_same_cells(here, finished, tmp_path):
    _compare(here, tmp_path / "two", "--seeds", "1", more=("--workers", "1", "--devices", "2"))
    one = [
        row
        for row in _table(finished)
        if row["train_fraction"] == "1" and row["variant"] in ("vanilla", "distilled")
    ]
    assert _table(tmp_path / "two") == one


def test_a_failed_cell_is_named_and_the_others_are_kept(here, tmp_path, capsys):
    with pytest.raises(UserError, match="1 of 2 runs failed"):
        # Another run's directory stands where one of the cells belongs.
        cell = tmp_path / "run/cells/energy/cgcnn/fraction-1-seed-0-vanilla"
        cell.mkdir(parents=True)
        (cell / "thesis.tex").write_text("")
        _compare(here, tmp_path / "run", "--seeds", "1")
    assert "Failed: cgcnn vanilla, energy, seed 0" in capsys.readouterr().out
    distilled = next(r for r in _table(tmp_path / "run") if r["variant"] == "distilled")
    assert float(distilled["test_mae_mean"]) > 0


FULL = """
import flax.linen as nn
class Full(nn.Module):
    def __call__(self, graph, train):
        if len(graph.n_node) > 2:
            raise RuntimeError("out of memory")
        import jax.numpy as jnp
        from crysgnn_jax import Prediction
        return Prediction(jnp.zeros(len(graph.n_node)), jnp.zeros((len(graph.nodes["species"]), 1)))
"""


@pytest.mark.parametrize("n_devices", ["1", "2"])
def test_a_cell_that_runs_out_of_memory_does_not_stop_the_others(
    here, tmp_path, monkeypatch, n_devices
):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "full_student.py").write_text(FULL)
    flags = ("--students", "full_student:Full,cgcnn", "--seeds", "1")
    with pytest.raises(UserError, match="2 of 4 runs failed"):
        _compare(here, tmp_path / "run", *flags, more=("--workers", "1", "--devices", n_devices))
    table = (tmp_path / "run" / "table.md").read_text()
    assert "Failed: full_student:Full vanilla, energy, seed 0, 100 %: out of memory" in table
    (report,) = (tmp_path / "run").glob("cells/*/*/*vanilla/error.txt")
    assert "RuntimeError" in report.read_text()
    assert {row["student"] for row in _table(tmp_path / "run")} == {"cgcnn"}


@pytest.mark.slow
def test_killed_comparison_goes_on(here, tmp_path):
    workdir = tmp_path / "run"
    words = [
        sys.executable, "-m", "experiments.compare", "--data", str(here / "toys.npz"), "--cache",
        str(here / "cache"), "--workers", "1", "--devices", "1", *SHORT, "--teacher",
        str(here / "teacher"), "--untagged-epochs", "0", "--workdir", str(workdir), "--seeds", "2",
    ]  # fmt: skip
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
    cells = workdir / "cells" / "energy" / "cgcnn"
    deadline = time.monotonic() + 120
    while not list(cells.glob("*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in cells.glob("*/result.json")}
    assert 1 <= len(finished) < 4 and not (workdir / "table.md").exists()
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items())
    assert len(list(cells.glob("*/result.json"))) == 4 and len(_table(workdir)) == 2


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--students", "cgcnn,nope"), "--students nope: there is"),
        (("--properties", "energy,gap"), "--properties gap: .* has energy"),
        (("--teacher", "nowhere"), "no trained teacher there"),
        (("--autoencoder", "nowhere"), "cgcnn start from random weights"),
    ],
)
def test_bad_flags(here, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        _compare(here, tmp_path / "run", *flags)


@pytest.mark.parametrize("value", ["0", "1.5", "x", "", "0.5,2"])
def test_bad_fractions(value, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.call(compare, ["--train-fractions", value])
    assert caught.value.code == 2 and "above 0 and up to 1" in capsys.readouterr().err
