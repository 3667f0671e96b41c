"""Epochs are timed, and their steps alone."""

from benchmarks.epoch import EpochSide


def test_one_time_for_each_epoch_after_the_first(case_for):
    found = EpochSide("cgcnn", case_for("cgcnn"), batch_size=8).run(repeats=2)
    assert len(found["epochs"]) == len(found["steps"]) == 2
    assert min(found["epochs"] + found["steps"]) > 0
    assert found["steps_an_epoch"] >= 20 / 8
