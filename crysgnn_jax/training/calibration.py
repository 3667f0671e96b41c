"""How far off predictions may be, from the crystals that a network was chosen on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crysgnn_jax.training.reference import Reference
from crysgnn_jax.training.settings import LEVEL

ONE_DEVIATION = 0.6827
"""Share of a normal distribution that lies within one standard deviation."""

N_SHARED = 20
"""Validation crystals that the members of a committee need in common for their spread to be
calibrated."""


class Calibration(NamedTuple):
    """Prediction intervals by split conformal prediction (Lei et al., J. Am. Stat. Assoc. 113,
    1094 (2018)), and the scale of a committee's spread.

    The epoch, too, was chosen on the validation crystals, so that their errors are a little smaller
    than those of other crystals; and intervals hold their share of crystals like them, not of
    others.

    Attributes:
      n: validation crystals that it rests on.
      level: share of crystals that the intervals are to hold.
      width: half of an interval, in the property's unit where ``spread`` is None, else in
        ``spread + standard deviation of the members``; None where there are too few validation
        crystals for the level.
      factor: by which the members' standard deviation is multiplied, so that 68 % of the validation
        crystals lie within it; None for one network, and for members that share no validation
        crystals.
      spread: median standard deviation of the members over the validation crystals, which keeps
        intervals from vanishing where members agree by chance; None where the width does not depend
        on them.
    """

    n: int
    level: float
    width: float | None
    factor: float | None = None
    spread: float | None = None

    @classmethod
    def of(cls, references: Sequence[Reference | None], level: float = LEVEL) -> "Calibration":
        """From what one network, or each member of a committee, keeps of its validation crystals.

        Members that share fewer than `N_SHARED` of them are judged each by its own: the error of
        their mean is no larger on average, so that the intervals are too wide rather than too
        narrow.
        """
        known = [reference for reference in references if reference is not None]
        if len(known) < len(references) or not known:
            return cls(0, level, None)
        if len(known) > 1:
            targets, predictions = _shared(known)
            if len(targets) >= N_SHARED:
                off = np.abs(predictions.mean(axis=0) - targets)
                deviation = predictions.std(axis=0, ddof=1)
                spread = float(np.median(deviation))
                factor = float(np.quantile(_ratio(off, deviation), ONE_DEVIATION))
                width = quantile(_ratio(off, deviation + spread), level)
                return cls(len(off), level, width, factor, spread)
        off = _own_errors(known)
        return cls(len(off), level, quantile(off, level))

    def half_widths(self, deviation: np.ndarray | None, n: int) -> np.ndarray | None:
        """``[n]``, halves of the intervals of ``n`` crystals of which the members' predictions have
        these standard deviations; None where nothing can be said."""
        if self.width is None:
            return None
        if self.spread is None or deviation is None:
            return np.full(n, self.width)
        return self.width * (deviation + self.spread)

    def said(self, unit: str, n_members: int) -> list[str]:
        """A line for the user about the intervals, and one about the uncertainty."""
        share = f"{100 * self.level:g} %"
        lines = []
        if self.n == 0:
            return ["no intervals: nothing is kept of the crystals that the model was chosen on"]
        if self.width is None:
            lines.append(f"no {share} intervals: {self.n} validation crystals are too few")
        elif self.spread is None:
            about = f"± {self.width:.3g} {unit}".rstrip()
            lines.append(f"{share} intervals: {about}, from {self.n} validation crystals")
        else:
            lines.append(
                f"{share} intervals: ± {self.width:.3g} times (the members' standard deviation + "
                f"{f'{self.spread:.3g} {unit}'.rstrip()})" + f", from {self.n} validation crystals"
            )
        if n_members > 1:
            lines.append(
                f"uncertainty: the standard deviation of {n_members} members"
                + (
                    f" times {self.factor:.3g}, from {self.n} validation crystals"
                    if self.factor is not None
                    else ", not calibrated: they share too few validation crystals"
                )
            )
        return lines


def quantile(errors: np.ndarray, level: float) -> float | None:
    """The error that a further one of the same kind stays below with a chance of ``level`` at
    least: of n errors that of rank ⌈(n + 1) · level⌉; None where there are too few."""
    rank = math.ceil(round((len(errors) + 1) * level, 9))  # 75 · 0.68 is 51, and not above it
    if rank > len(errors):
        return None
    return float(np.partition(errors, rank - 1)[rank - 1])


def _ratio(off: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return off / np.maximum(deviation, 1e-12)


def _own_errors(references: Sequence[Reference]) -> np.ndarray:
    """``[v]``, absolute error for each validation crystal of any, the largest where several have
    it."""
    largest: dict[str, float] = {}
    for reference in references:
        errors = np.abs(reference.validation_predictions - reference.validation_targets)
        for id, error in zip(reference.validation_ids.tolist(), errors.tolist()):
            largest[id] = max(error, largest.get(id, 0.0))
    return np.array(list(largest.values()))


def _shared(references: Sequence[Reference]) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``[v]``, and predictions ``[k, v]``, of the validation crystals that all have; those
    of one id and different labels are different crystals, of different data."""
    rows = [{id: row for row, id in enumerate(r.validation_ids.tolist())} for r in references]
    ids = [id for id in rows[0] if all(id in found for found in rows)]
    at = [np.array([found[id] for id in ids], int) for found in rows]
    targets = np.array([r.validation_targets[own] for r, own in zip(references, at)])
    said = np.array([r.validation_predictions[own] for r, own in zip(references, at)])
    same = np.isclose(targets, targets[0]).all(axis=0)
    return targets[0, same], said[:, same]
