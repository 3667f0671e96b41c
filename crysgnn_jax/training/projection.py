"""From embeddings to points in a plane."""

import numpy as np

from crysgnn_jax.errors import UserError
from crysgnn_jax.extras import imported
from crysgnn_jax.training.similarity import standardised

FEWEST = 3
"""Crystals that a plane is laid through."""


def principal_components(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions in which crystals differ most (Pearson 1901; Hotelling 1933).

    Of embeddings as `similarity.standardised`, so that every component counts the same. The sign of
    a direction is such that its largest entry is positive: the same crystals give the same picture.

    Args:
      embeddings: ``[n, d]``, of crystals.

    Returns:
      Points ``[n, 2]``, and the fraction of the variance along each direction, ``[2]``.

    Raises:
      UserError: there are fewer than `FEWEST` crystals, or all are the same.
    """
    require_enough(len(embeddings))
    vectors = standardised(embeddings, embeddings)
    _, lengths, directions = np.linalg.svd(
        np.linalg.qr(vectors, mode="r"), full_matrices=False
    )  # of the triangle, which is small, and has the same directions
    variance = np.square(lengths)
    if not variance.sum() > 0:
        raise UserError("all crystals have the same embedding, and make no map")
    directions = _of_two(directions)
    largest = np.argmax(np.abs(directions), axis=1)
    signs = np.sign(directions[[0, 1], largest])
    signs[signs == 0] = 1.0
    shares = _of_two(variance / variance.sum())
    return vectors @ (directions * signs[:, None]).T, shares


def umap(embeddings: np.ndarray) -> np.ndarray:
    """Points ``[n, 2]`` of which near ones are near in the embeddings, standardised likewise
    (UMAP, McInnes, Healy and Melville 2018). Distances of far ones mean nothing. Seed 0.

    Raises:
      UserError: there are fewer than `FEWEST` crystals, or umap-learn is not installed.
    """
    require_enough(len(embeddings))
    vectors = standardised(embeddings, embeddings)
    package = imported("umap", "umap", "`projection` umap")
    # Its eigenvectors fail where neighbours are nearly all the crystals there are.
    few = len(vectors) < 20
    reducer = package.UMAP(
        n_neighbors=min(15, len(vectors) - 1),
        init="random" if few else "spectral",
        random_state=0,
        n_jobs=1,
    )
    return np.asarray(reducer.fit_transform(vectors), dtype=np.float64)


def require_enough(n: int) -> None:
    """
    Raises:
      UserError: so few crystals make no map.
    """
    if n < FEWEST:
        raise UserError(
            f"{n} {'crystal makes' if n == 1 else 'crystals make'} no map; give at least {FEWEST}"
        )


def _of_two(rows: np.ndarray) -> np.ndarray:
    """The first two rows; zeros where there is one: of embeddings of one component."""
    return np.concatenate([rows, np.zeros_like(rows)])[:2]
