"""What composition alone tells of a property: the baseline that a graph network is to beat."""

import numpy as np

from crysgnn_jax.batches.splits import Split
from crysgnn_jax.crystals.elements import MAX_ATOMIC_NUMBER, element_features
from crysgnn_jax.graphs.store import GraphStore

PENALTIES = np.logspace(-4, 4, 17)
"""Tried against the validation crystals, each times the number of training crystals / 1,000."""


def composition_features(store: GraphStore, rows: np.ndarray) -> np.ndarray:
    """Mean over the atoms of crystals of their element features, ``[len(rows), 92]`` float64.

    Args:
      store: the crystals.
      rows: those of the store that are wanted, each once.
    """
    n_elements = MAX_ATOMIC_NUMBER + 1
    # Not of the whole store: there may be a hundred times as many crystals without labels.
    place = np.full(len(store), -1)
    place[rows] = np.arange(len(rows))
    crystal = np.repeat(place, store.n_nodes)
    wanted = crystal >= 0
    counts = np.bincount(
        crystal[wanted] * n_elements + store.species[wanted], minlength=len(rows) * n_elements
    ).reshape(len(rows), n_elements)
    return counts @ element_features().astype(np.float64) / counts.sum(axis=1, keepdims=True)


def predict_by_composition(features: np.ndarray, targets: np.ndarray, split: Split) -> np.ndarray:
    """Ridge regression on composition: a prediction for each crystal, ``[n]``.

    The closed form, with features and targets centred by the training crystals. The penalty with
    the lowest mean absolute error on the validation crystals is taken.

    Args:
      features: ``[n, d]``, of the crystals.
      targets: ``[n]``, in any unit.
      split: rows of both; those that are tested on are not looked at.

    Example:
      >>> half = np.array([[0.0], [1.0], [2.0], [3.0]])
      >>> split = Split(np.array([0, 1]), np.array([2]), np.array([3]))
      >>> predict_by_composition(half, 2.0 * half[:, 0], split).round(2).tolist()
      [0.0, 2.0, 4.0, 6.0]
    """
    mean = features[split.train].mean(axis=0)
    level = targets[split.train].mean()
    centred = features - mean
    known = centred[split.train]
    # One decomposition serves all penalties.
    values, vectors = np.linalg.eigh(known.T @ known)
    sides = vectors.T @ (known.T @ (targets[split.train] - level))
    seen = centred @ vectors
    tried = PENALTIES * len(split.train) / 1000
    weights = sides[:, None] / (np.maximum(values, 0.0)[:, None] + tried)
    predictions = level + seen @ weights
    errors = np.abs(predictions - targets[:, None])[split.validation].mean(axis=0)
    return predictions[:, np.argmin(errors)]


def mae_of_composition(store: GraphStore, targets: np.ndarray, split: Split) -> float:
    """Mean absolute error on the test crystals of a ridge regression on composition.

    Args:
      store: the crystals.
      targets: ``[len(store)]``, the property; what is not in the split may be NaN.
      split: rows of the store.
    """
    rows = np.concatenate([rows for _, rows in split.items()])
    ends = np.cumsum([len(part) for _, part in split.items()])
    own = Split(*np.split(np.arange(len(rows)), ends[:-1]))
    predictions = predict_by_composition(composition_features(store, rows), targets[rows], own)
    return float(np.mean(np.abs(predictions - targets[rows])[own.test]))
