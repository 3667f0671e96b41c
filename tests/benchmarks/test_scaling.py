"""Scaling curves: exponents, turns, files and pictures, and bad flags."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scaling
from crysgnn_jax.commands import cli
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from toys import collection

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ("steps", "memory", "graphs", "devices")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "toys.npz"
    write_table(path, collection(40))
    return path


def test_proportional_time_has_exponent_one():
    sizes = np.array([10.0, 30.0, 70.0])
    found = scaling.exponents(sizes, np.outer([1e-3, 2e-3], sizes))
    one = {"median": 1.0, "min": 1.0, "max": 1.0}
    assert found == {"overall": one, "two_largest": one}


def test_the_local_exponent_is_that_of_the_two_largest_sizes():
    # Constant, then fourfold where the size doubles.
    found = scaling.exponents([1, 2, 4], np.array([[3.0, 3.0, 12.0]]))
    assert found["two_largest"]["median"] == 2.0
    assert found["overall"]["median"] == 1.0


class Recorder:
    """A side that remembers which steps it was asked for; each takes a second."""

    def __init__(self):
        self.asked = []

    def call(self, method, numbers):
        self.asked.append((method, numbers))
        return float(len(numbers))


def test_sides_take_turns_and_start_over_at_the_end_of_their_steps():
    sides = [Recorder(), Recorder()]
    plans = [[np.arange(4), np.arange(2), np.arange(3)], [np.arange(9)]]
    seconds, crystals = scaling._in_turns(sides, plans, [2, 1], repeats=2)
    assert sides[0].asked == [("repeat", [0, 1]), ("repeat", [2, 0])]
    assert sides[1].asked == [("repeat", [0]), ("repeat", [0])]
    np.testing.assert_array_equal(seconds, np.ones((2, 2)))
    np.testing.assert_array_equal(crystals, [[3.0, 9.0], [3.5, 9.0]])


@pytest.mark.slow
def test_the_command_writes_numbers_and_pictures(table, tmp_path, capsys):
    output = tmp_path / "results" / "tiny.json"
    cli.call(
        scaling,
        [
            *("--data", str(table), "--jobs", "cgcnn", "--batch-sizes", "4,8"),
            *("--counts", "10,20,40", "--workers", "1", "--devices", "2"),
            *("--crystals-a-step", "8", "--repeats", "2", "--threads", "2"),
            *("--output", str(output)),
        ],
    )
    found = json.loads(output.read_text())
    assert {"date", "command", "machine", "versions", "cores_used_by_others"} < found.keys()
    (curve,) = found["steps"]
    assert [size["batch_size"] for size in curve["sizes"]] == [4, 8]
    small, large = curve["sizes"]
    assert 1.5 < large["atoms_per_batch"] / small["atoms_per_batch"] < 2.5
    assert all(size["seconds_a_step"]["min"] > 0 for size in curve["sizes"])
    assert curve["exponent"].keys() == {"overall", "two_largest"}
    graphs = found["graphs"]
    assert [build["crystals"] for build in graphs["counts"]] == [10, 20, 40]
    assert [build["workers"] for build in graphs["workers"]] == [1]
    assert graphs["workers"][0]["speed_up"]["median"] == 1.0
    (divided,) = found["devices"]["jobs"]
    assert [side["crystals_a_device"] for side in divided["devices"]] == [8, 4]
    assert divided["devices"][0]["time_relative_to_one"]["median"] == 1.0
    assert "not speed" in found["devices"]["what"]
    for name in PICTURES:
        assert (output.parent / f"tiny_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "not speed" in capsys.readouterr().out


@pytest.mark.parametrize("available, expected", [(999, ()), (6316, (1000, 2000, 4000))])
def test_default_counts_double_as_often_as_there_are_crystals(available, expected):
    assert scaling.default_counts(available) == expected


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--parts", "steps,speed"], "'speed' is none of steps, graphs, devices"),
        (["--jobs", "bert"], "'bert' is none of pretrain, cgcnn"),
        (["--batch-sizes", "16,x"], "'16,x' is no list of whole numbers"),
        (["--batch-sizes", "16,16"], "a curve needs 2 different numbers"),
        (["--devices", "0"], "'0' is no list of whole numbers"),
        (["--repeats", "0"], "--repeats 0: give a whole number greater than 0"),
    ],
)
def test_a_bad_flag_is_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.call(scaling, flags)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--parts", "steps", "--batch-sizes", "8,32"], "--batch-sizes 32: needs 64 crystals"),
        (["--parts", "graphs"], "the data has 40 crystals; name two --counts up to that"),
        (["--parts", "graphs", "--counts", "10,80"], "--counts 80: the data has 40 crystals"),
        (["--parts", "graphs", "--counts", "9,20", "--workers", "4096"], "--workers 4096: there"),
        (["--parts", "devices", "--devices", "3"], "evenly among 3 devices"),
        (["--parts", "devices"], "--crystals-a-step 128: needs 256 crystals"),
    ],
)
def test_too_little_data_is_refused_at_once(table, flags, message):
    with pytest.raises(UserError, match=message):
        cli.call(scaling, ["--data", str(table), *flags])


def test_the_command_ends_with_2_and_one_line(table):
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", "--data", str(table), "--parts", "steps"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: --batch-sizes 1024: needs 2048 crystals, and there are 40; name smaller batches, "
        "or other --data and --crystals\n"
    )
