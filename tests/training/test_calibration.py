"""Intervals and uncertainties, by hand."""

import numpy as np
import pytest

from crysgnn_jax.training.calibration import ONE_DEVIATION, Calibration, quantile
from crysgnn_jax.training.reference import Reference


def reference(targets, predictions, ids=None):
    """One that knows its validation crystals alone."""
    nothing = np.empty(0)
    about = dict.fromkeys(("n_train", "elements", "most_atoms", "volume", "axes", "ids"), nothing)
    about |= dict.fromkeys(("targets", "coordinates", "steps", "far"), nothing)
    return Reference(
        **about,
        validation_ids=np.array([f"c{i}" for i in range(len(targets))] if ids is None else ids),
        validation_targets=np.asarray(targets, float),
        validation_predictions=np.asarray(predictions, float),
    )


def test_the_error_that_nine_in_ten_stay_below_is_the_ninth_of_nine():
    assert quantile(np.arange(9, 0, -1.0), 0.9) == 9
    assert quantile(np.arange(19, 0, -1.0), 0.9) == 18
    assert quantile(np.arange(8.0), 0.9) is None
    assert quantile(np.arange(1.0, 75.0), 0.68) == 51


def test_intervals_hold_their_share_of_new_crystals():
    generator = np.random.default_rng(0)
    held = []
    for _ in range(300):
        errors = generator.standard_t(3, 80)
        calibration = Calibration.of([reference(np.zeros(60), errors[:60])], 0.8)
        held.append(np.mean(np.abs(errors[60:]) <= calibration.half_widths(None, 20)))
    assert np.mean(held) == pytest.approx(0.8, abs=0.02)


def test_members_that_agree_twice_as_well_as_they_should_have_their_spread_doubled():
    """Two members 2 apart: their standard deviation is √2, and so is its median."""
    targets = np.linspace(-3, 3, 61)
    off = np.abs(targets)
    calibration = Calibration.of([reference(targets, targets * 0 + x) for x in (-1.0, 1.0)])
    assert calibration.spread == pytest.approx(np.sqrt(2))
    assert calibration.factor == pytest.approx(np.quantile(off, ONE_DEVIATION) / np.sqrt(2))
    ends = calibration.half_widths(np.array([np.sqrt(2), 0.0]), 2)
    assert ends == pytest.approx([quantile(off, 0.9), quantile(off, 0.9) / 2])


def test_crystals_are_matched_by_id_whatever_their_order():
    first = reference(np.arange(30.0), np.arange(30.0) + 1)
    ids = first.validation_ids[::-1]
    second = reference(np.arange(30.0)[::-1], np.arange(30.0)[::-1] - 1, ids)
    calibration = Calibration.of([first, second])
    assert calibration.n == 30 and calibration.factor == pytest.approx(0)


def test_members_of_different_splits_are_judged_each_by_its_own():
    members = [
        reference(np.zeros(20), np.full(20, error), [f"{error}-{i}" for i in range(20)])
        for error in (1.0, 3.0)
    ]
    calibration = Calibration.of(members)
    assert calibration.factor is None and calibration.width == 3.0 and calibration.n == 40
    assert "not calibrated" in calibration.said("eV", 2)[1]


def test_where_nothing_is_kept_nothing_is_said():
    calibration = Calibration.of([reference([0.0], [1.0]), None])
    assert calibration.half_widths(None, 3) is None
    assert calibration.said("eV", 2) == [
        "no intervals: nothing is kept of the crystals that the model was chosen on"
    ]
    assert (
        "1 validation crystals are too few"
        in Calibration.of([reference([0.0], [1.0])]).said("", 1)[0]
    )


def test_crystals_of_one_id_and_different_labels_are_not_shared():
    first = reference(np.zeros(30), np.ones(30))
    second = reference(np.full(30, 5.0), np.full(30, 9.0))
    calibration = Calibration.of([first, second])
    assert calibration.factor is None and calibration.width == 4.0
