"""Tables, pictures and progress lines."""

import io

import numpy as np
import pytest

from crysgnn_jax.reporting.records import number, r_squared
from crysgnn_jax.reporting.run import warning_of
from crysgnn_jax.reporting.tables import text_table
from crysgnn_jax.training.checkpoints import Position
from crysgnn_jax.training.logs import MetricsLog, Progress


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


def test_one_line_warns_of_a_model_that_loses_to_the_mean():
    result = {"test_mae": 263.7, "test_mae_of_mean": 33.4, "unit": "GPa", "n_train": 24}
    line = warning_of("vanilla", result)
    assert line == (
        "warning: vanilla is no better than the mean of its 24 training crystals: test MAE 263.7, "
        "of the mean 33.4 GPa; give it more crystals or epochs"
    )
    assert warning_of("vanilla", {**result, "test_mae": 33.3}) is None


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
