"""Two checkouts against each other: ratios, agreement, and a comparison of this one with itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import versions
from crysgnn_jax.commands import cli
from crysgnn_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_summary_by_hand():
    turns = {"old": np.array([[1.0, 3.0], [4.0, 4.0]]), "new": np.array([[2.0, 4.0], [1.0, 3.0]])}
    found = versions.summary(turns)
    assert found["old"] == {"median": 3.5, "min": 1.0, "max": 4.0}
    assert found["new"] == {"median": 2.5, "min": 1.0, "max": 4.0}
    # 3 over 2 in the first round, 2 over 4 in the second.
    assert found["ratio"] == {"median": 1.0, "min": 0.5, "max": 1.5}


def test_other_numbers_are_refused():
    old = {"loss": 1.0, "gradient_norm": 2.0}
    versions.require_equal("cgcnn", old, {"loss": 1.00009, "gradient_norm": 2.0})
    with pytest.raises(UserError, match="cgcnn: gradient_norm was 2, and is 2.001; the sides must"):
        versions.require_equal("cgcnn", old, {"loss": 1.0, "gradient_norm": 2.001})


def compared(output, *more):
    flags = ["--against", str(ROOT), "--rounds", "1", "--output", str(output), *more]
    cli.call(versions, flags)
    return json.loads(output.read_text())


def test_a_command_against_itself(tmp_path, capsys):
    written = compared(tmp_path / "versions.json", "--jobs", "help")
    assert written["old"] == written["new"]
    (job,) = written["jobs"]
    assert 0.2 < job["ratio"]["median"] < 5.0
    assert "new / old" in capsys.readouterr().out


@pytest.mark.slow
def test_steps_and_graphs_against_themselves(tmp_path):
    steps, graphs = compared(tmp_path / "versions.json", "--jobs", "cgcnn,graphs")["jobs"]
    assert steps["numbers"]["old"] == pytest.approx(steps["numbers"]["new"], rel=1e-4)
    assert steps["batch"]["old"] == steps["batch"]["new"]
    assert graphs["numbers"]["new"]["crystals"] == 6316


def test_a_folder_without_the_project(tmp_path):
    flags = ["--against", str(tmp_path), "--output", str(tmp_path / "versions.json")]
    with pytest.raises(UserError, match="is no checkout of the project; name its root"):
        cli.call(versions, flags)


def test_an_unknown_job(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.call(versions, ["--against", ".", "--jobs", "bert"])
    assert stopped.value.code == 2
    assert "'bert' is none of pretrain, embed" in capsys.readouterr().err
