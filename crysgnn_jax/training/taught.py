"""Members: students that have learned a property tell it of crystals without a label.

A teacher that has been trained without labels knows nothing of a property. Students distilled from
it do: their mean, where they agree, is a target for crystals without a label. One more student
learns the labels and these targets together, and is as cheap to use as ever.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crysgnn_jax.batches.splits import digest_of_ids


class Taught(NamedTuple):
    """What members say of crystals without a label.

    Attributes:
      rows: of the store, the crystals.
      targets: ``[len(rows)]``, in the property's own unit: the mean over the members.
      weights: ``[len(rows)]``, from 0 to 1, how much each counts beside a label.
      fingerprint: of the members.
    """

    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    fingerprint: str


def what_members_say(
    predictions: np.ndarray, rows: np.ndarray, fingerprints: Sequence[str]
) -> Taught:
    """The members' mean, weighted by how far they agree.

    A target whose spread over the members is s counts 1 / (1 + s² / m²), with m the median spread:
    half where they differ as they mostly do.

    Args:
      predictions: ``[n_members, n]``, in the property's own unit.
      rows: ``[n]``, of the store.
      fingerprints: of the members.

    Example:
      >>> found = what_members_say(np.array([[1.0, 2.0], [1.0, 4.0]]), np.array([7, 9]), ["a", "b"])
      >>> found.targets.tolist()
      [1.0, 3.0]
    """
    spread = np.std(predictions, axis=0)
    median = float(np.median(spread))
    weights = 1.0 / (1.0 + np.square(spread / median)) if median > 0 else np.ones(len(rows))
    return Taught(rows, np.mean(predictions, axis=0), weights, digest_of_ids(list(fingerprints)))
