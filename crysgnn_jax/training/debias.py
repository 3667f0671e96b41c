"""From labels of DFT to measured ones: train on many of the former, adapt to a few of the latter.

The experiment of Das et al. (AAAI 2023) on the bias of DFT: a predictor learns DFT formation
energies, then sees a share of the measured ones, and is judged by the others, beside DFT itself.
Whether the DFT labels of the compounds that it is judged by were trained on there is not known.
Here they are not, nor is any other crystal of the formula of a measured compound, unless that is
asked for: a predictor that has learned the DFT value of a compound would be compared with that very
value.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from crysgnn_jax.batches.splits import Split, by_formula, make_split
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.training.lesson import Lesson, Student
from crysgnn_jax.training.predictor import TrainedModel, start_of

CHOOSING = 0.1
"""Part of the training crystals, with DFT labels or measured ones, that epochs are chosen by."""

FEWEST = 10
"""Compounds to adapt to, or to be judged by, and crystals with DFT labels: fewer tell nothing."""


class Correction(NamedTuple):
    """The straight line from DFT to measurement, slope·DFT + offset, by least squares: what a user
    without a network would do with the same measured values.

    Attributes:
      slope: pure number.
      offset: in the property's unit.
    """

    slope: float
    offset: float

    @classmethod
    def fit(cls, dft: np.ndarray, measured: np.ndarray) -> "Correction":
        """Of compounds with both values, each ``[n]``; slope 1 where all DFT values are equal."""
        centred = dft - dft.mean()
        spread = float(centred @ centred)
        slope = float(centred @ measured) / spread if spread > 0 else 1.0
        return cls(slope, float(measured.mean() - slope * dft.mean()))

    def apply(self, dft: np.ndarray) -> np.ndarray:
        """``[n]`` → ``[n]``."""
        return self.slope * dft + self.offset


def dft_split(
    store: GraphStore, labelled: np.ndarray, measured: np.ndarray, seed: int, *, shared: bool
) -> Split:
    """The crystals that a predictor learns DFT labels from.

    Args:
      store: of all crystals.
      labelled: rows with a DFT label.
      measured: rows with a measured value, and a DFT label.
      seed: of the order of formulas.
      shared: divide all of ``labelled`` 80/10/10 % by formula; else ``measured`` are the test
        crystals, and what is trained on and chosen by has none of their formulas.

    Raises:
      UserError: fewer than `FEWEST` crystals have a formula without a measured value.
    """
    if shared:
        return make_split(store, labelled, "formula", seed)
    taken = np.isin(store.reduced_formula[labelled], np.unique(store.reduced_formula[measured]))
    others = labelled[~taken]
    if len(others) < FEWEST:
        raise UserError(
            f"{store.source_name}: {len(others)} crystals with a DFT label have a formula without "
            "a measured value, too few to train on; give more of them by another `data`, or take "
            "`formulas` shared"
        )
    split = by_formula(store, others, (1 - CHOOSING, CHOOSING, 0.0), seed)
    if not (len(split.train) and len(split.validation)):
        raise UserError(
            f"{store.source_name}: the {len(others)} crystals without a measured value have too "
            "few formulas to train on some and choose by others; give more by another `data`"
        )
    return dataclasses.replace(split, test=np.sort(measured))


def measured_split(store: GraphStore, rows: np.ndarray, fraction: float, seed: int) -> Split:
    """The measured compounds: a share to adapt to, a tenth of which the epoch is chosen by, and the
    others to be judged by; no formula on two sides.

    Args:
      store: of compounds.
      rows: those with both values.
      fraction: the share to adapt to.
      seed: of the order of formulas; a smaller share lies within a larger.

    Raises:
      UserError: a side would have too few compounds.
    """
    parts = (fraction * (1 - CHOOSING), fraction * CHOOSING, 1 - fraction)
    split = by_formula(store, rows, parts, seed)
    few = min(len(split.train) + len(split.validation), len(split.test))
    if few < FEWEST or not len(split.validation):
        raise UserError(
            f"`fractions` {fraction:g} of {len(rows)} compounds leaves {few} on one side; "
            f"{FEWEST} are the fewest"
        )
    return split


def adapting(student: Student, trained: TrainedModel, property: str, store: GraphStore) -> Lesson:
    """The lesson of a trained predictor that goes on with measured values.

    It begins with all of its weights and the scale of its labels, and so with its own predictions;
    the teacher has no part in it, and the learning rate is that of any student which has learned
    before (`settings.START_RATE`).

    Args:
      student: what was trained.
      trained: the student, on DFT labels.
      property: label of the measured values.
      store: of compounds, with the graphs of ``trained``.
    """
    rows = np.flatnonzero(np.isfinite(store.labels(property)))
    return Lesson(dataclasses.replace(student, start=start_of(trained)), property, store, rows)
