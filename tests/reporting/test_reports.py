"""Tables, pictures and progress lines."""

import io

import numpy as np
import pytest

from crysgnn_jax.reporting.records import r_squared
from crysgnn_jax.reporting.tables import number, text_table
from crysgnn_jax.training.checkpoints import Position
from crysgnn_jax.training.logs import MetricsLog, Progress, duration


def test_table_lines_up():
    table = text_table(["property", "MAE"], [["band_gap", "0.3"], ["x", "12.25"]])
    assert table.splitlines() == [
        "property  MAE",
        "--------  -----",
        "band_gap  0.3",
        "x         12.25",
    ]


def test_r_squared_by_hand():
    targets = np.array([1.0, 2.0, 3.0])
    assert r_squared(targets, targets) == 1.0
    assert r_squared(targets, np.full(3, 2.0)) == 0.0
    assert r_squared(targets, np.array([1.0, 2.0, 4.0])) == pytest.approx(0.5)
    assert np.isnan(r_squared(np.ones(2), np.ones(2)))


def test_a_number_has_its_digits_and_a_minus_sign():
    assert [number(x) for x in (0.18, -1.5, 12.345, 1234.5, float("nan"))] == [
        *("0.180", "−1.50", "12.3", "1,234", "–"),
    ]


def test_metrics_after_a_checkpoint_are_dropped(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for epoch, step in [(0, 1), (0, 2), (1, 2), (1, 3), (1, 4), (2, 4)]:
        log.write({"epoch": epoch, "step": step}, seconds=0.0)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "st')  # killed while writing
    log.truncate(Position(epoch=1, batch=2, step=4))
    kept = [(line["epoch"], line["step"]) for line in log.read()]
    # The summary of epoch 2 comes after its last step, where the checkpoint was made.
    assert kept == [(0, 1), (0, 2), (1, 2), (1, 3), (1, 4)]
    log.truncate(Position())
    assert log.read() == []


def test_progress_is_plain_lines_without_a_terminal():
    stream = io.StringIO()
    progress = Progress(4, "teacher", stream)
    position = Position(epoch=0, batch=0)
    progress.start_epoch(position, total=2)
    progress.step(position, {"loss": 1.0})
    done = Position(epoch=1, seconds=10.0, timed_crystals=200, timed_seconds=2.0)
    progress.epoch(done, {"train_loss": 1.5}, {"validation_mae": 0.25}, improved=True)
    progress.close()
    assert stream.getvalue() == (
        "teacher: epoch 1/4 loss=1.5 validation_mae=0.25 100 crystals/s, 30 s left *\n"
    )


def test_how_long_a_run_takes_is_told_after_its_first_steps():
    stream = io.StringIO()
    progress = Progress(10, "teacher", stream)
    progress.begin("90 crystals to train on", beside=0.5)
    position = Position()
    progress.start_epoch(position, total=100)
    for k in range(7):  # the first is compiled, and not timed
        position.batch, position.timed_seconds = k + 1, 0.02 * k
        progress.step(position, {"loss": 1.0})
    assert stream.getvalue().splitlines() == [
        "teacher: 90 crystals to train on",
        "teacher: about 30 s for 994 more steps of 20 ms",
    ]


def test_a_time_is_told_in_its_own_unit():
    assert [duration(x) for x in (7.6, 99, 700, 9000)] == ["8 s", "99 s", "12 min", "2.5 h"]


def test_progress_is_a_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress(1, "teacher", stream)
    progress.start_epoch(Position(), total=2)
    for _ in range(2):
        progress.step(Position(timed_crystals=100, timed_seconds=1.0), {"loss": 0.5})
    progress.close()
    assert "teacher epoch 1/1" in stream.getvalue() and "2/2" in stream.getvalue()
