"""How alike crystals are to a network: distances between their embeddings."""

import numpy as np

from crysgnn_jax.errors import UserError

_BLOCK = 2**22
"""Distances that are held at a time, of 8 bytes each."""

_CONSTANT = 1e-6
"""A component whose spread is less than this, of the largest component's, is rounding."""


def standardised(embeddings: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Embeddings in units in which every component counts the same.

    Each component has the mean over ``among`` taken off and is divided by its standard deviation
    there, and by √(number of components that vary there). The Euclidean distance of two
    vectors is then the root mean square, over the components, of how many standard deviations they
    are apart: about 1.4 for two crystals of ``among`` drawn at random, 0 for the same crystal. A
    component that is the same for all of ``among`` says nothing there, and is made 0.

    Args:
      embeddings: ``[m, d]``, of crystals.
      among: ``[n, d]``, of those that give the mean and the standard deviation.

    Returns:
      ``[m, d]`` float64.

    Raises:
      UserError: the two have different widths: they are of different networks; or ``among`` is
        empty, or either has numbers that are not finite.
    """
    embeddings, among = (np.asarray(x, dtype=np.float64) for x in (embeddings, among))
    if embeddings.ndim != 2 or among.ndim != 2 or embeddings.shape[1] != among.shape[1]:
        raise UserError(
            f"embeddings {list(embeddings.shape)} and {list(among.shape)} cannot be compared; make "
            "both with the same model"
        )
    if not len(among):
        raise UserError("there are no crystals to compare with")
    if not (np.isfinite(embeddings).all() and np.isfinite(among).all()):
        raise UserError("some embeddings are not finite; make them again")
    mean, spread = among.mean(0), among.std(0)
    varies = spread > _CONSTANT * spread.max(initial=0.0)
    scale = np.zeros_like(spread)
    scale[varies] = 1.0 / (spread[varies] * np.sqrt(varies.sum()))
    return (embeddings - mean) * scale


def nearest(queries: np.ndarray, among: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest crystals of each of some crystals, by the distance of `standardised` embeddings.

    Args:
      queries: ``[q, d]``, embeddings.
      among: ``[n, d]``, embeddings of the crystals to look among.
      k: how many to find for each; all n where there are fewer.

    Returns:
      Indices into ``among`` ``[q, k]`` int64 and distances ``[q, k]`` float64, nearest first.

    Raises:
      UserError: as of `standardised`.

    Example:
      >>> indices, distances = nearest(np.array([[1.0]]), np.array([[0.0], [1.0], [4.0]]), 2)
      >>> indices.tolist()
      [[1, 0]]
    """
    return closest(standardised(queries, among), standardised(among, among), k)


def closest(queries: np.ndarray, among: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The closest points of each of some points, by their Euclidean distance.

    All distances are looked at, a block of queries at a time: 150,000 points of 64 components need
    about 400 MB.

    Args:
      queries: ``[q, d]``
      among: ``[n, d]``
      k: how many to find for each; all n where there are fewer.

    Returns:
      Indices into ``among`` ``[q, k]`` int64 and distances ``[q, k]`` float64, the closest first.
    """
    k = min(k, len(among))
    indices = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k))
    squares = np.einsum("nd,nd->n", among, among)
    step = max(1, _BLOCK // len(among))
    for first in range(0, len(queries), step):
        here = queries[first : first + step]
        # Up to what is the same for all points of a query.
        order = squares - 2.0 * (here @ among.T)
        if k < len(among):
            found = np.argpartition(order, k - 1, axis=1)[:, :k]
        else:
            found = np.broadcast_to(np.arange(k), (len(here), k))
        # By differences: of equal vectors, those of squares leave some rounding.
        gaps = np.linalg.norm(among[found] - here[:, None], axis=2)
        ranked = np.lexsort((found, gaps), axis=1)
        indices[first : first + step] = np.take_along_axis(found, ranked, axis=1)
        distances[first : first + step] = np.take_along_axis(gaps, ranked, axis=1)
    return indices, distances
