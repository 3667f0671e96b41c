"""How many edges join each pair of atoms (Das et al., AAAI 2023; node level)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.pairs import (
    N_CONNECTION_CLASSES,
    PairBlocks,
    connection_counts,
    pair_blocks,
)
from crysgnn_jax.batches.views import Batch, Rows, over_devices
from crysgnn_jax.models.layers import torch_uniform
from crysgnn_jax.pretraining.objective import Objective, entropy

CLASS_WEIGHTS = (0.1, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Of pairs with 0 … 4, and 5 or more edges, as published."""


class ConnectionHead(nn.Module):
    """Bilinear(d, d → 6) and Linear(6 → 6) on every ordered pair of atoms of a crystal."""

    @nn.compact
    def __call__(self, atoms: jax.Array, blocks: PairBlocks) -> jax.Array:
        """``[n_node, d]`` → ``[n_block, 6, TILE, TILE]``."""
        width, classes = atoms.shape[-1], N_CONNECTION_CLASSES
        bilinear = self.param("bilinear", torch_uniform(width), (classes, width, width))
        bilinear_bias = self.param("bilinear_bias", torch_uniform(width), (classes,))
        kernel = self.param("kernel", torch_uniform(classes), (classes, classes))
        bias = self.param("bias", torch_uniform(classes), (classes,))
        # Two linear maps in a row are one: mix the six matrices, not the scores of every pair.
        mixed = jnp.einsum("cij,ck->kij", bilinear, kernel)
        mixed_bias = bilinear_bias @ kernel + bias
        columns = atoms[blocks.columns]

        # One class at a time: the rows of all six in one tensor would be nearly as large as
        # pairs × width.
        def scores(matrix: jax.Array) -> jax.Array:
            return jnp.einsum("bid,bjd->bij", (atoms @ matrix)[blocks.rows], columns)

        logits = jnp.stack([scores(matrix) for matrix in mixed], axis=1)
        return logits + mixed_bias[:, None, None]


def connection_terms(
    logits: jax.Array, batch: Batch, class_weights: tuple[float, ...] = CLASS_WEIGHTS
) -> tuple[jax.Array, Rows]:
    """Negative log likelihood of the number of edges between two atoms, and its weight.

    Args:
      logits: ``[n_block, 6, TILE, TILE]``, as of `ConnectionHead`.
      batch: the target of pair (i, j) is how many of i's neighbours are images of j, 5 standing
        for five or more.
      class_weights: weight of each class.

    Returns:
      ``[n_block, TILE, TILE]``, the mean over the pairs of atoms that a pair of nodes stands for;
      and as many rows, which weigh the sum of their weights, 0 where there is no pair.
    """
    counts = connection_counts(batch, pair_blocks(batch))
    by_class = counts * jnp.asarray(class_weights, logits.dtype)[:, None, None]
    weights = jnp.sum(by_class, axis=1)
    share = by_class / jnp.where(weights > 0, weights, 1.0)[:, None]
    nll = jax.nn.logsumexp(logits, axis=1) - jnp.sum(logits * share, axis=1)
    return nll, Rows(weights, batch.axis)


def connection_by_crystal(logits: jax.Array, batch: Batch) -> jax.Array:
    """``[n_graph]``: weighted mean of `connection_terms` over the pairs of each crystal; 0 for
    empty ones."""
    nll, rows = connection_terms(logits, batch)
    sums = jnp.stack(
        [jnp.sum(nll * rows.weights, axis=(1, 2)), jnp.sum(rows.weights, axis=(1, 2))], axis=1
    )
    crystals = pair_blocks(batch).crystals
    sums = jax.ops.segment_sum(sums, crystals, len(batch.crystals.weights))
    return sums[:, 0] / jnp.where(sums[:, 1] > 0, sums[:, 1], 1.0)


@dataclasses.dataclass(frozen=True)
class Connection(Objective):
    """Tell the number of edges j → i, saturating at 5, of all ordered pairs of atoms (i, j).

    Weighted negative log likelihood, mean over pairs.

    Attributes:
      by_crystal: take the mean over each crystal first, and then over crystals, as the crystal
        auto-encoder does (Das et al. 2022); otherwise every pair of the batch counts alike.
    """

    name: ClassVar[str] = "connection"
    needs: ClassVar[tuple[str, ...]] = ("pairs",)

    by_crystal: bool = False

    def head(self, width: int) -> nn.Module:
        return ConnectionHead()

    def outputs(self, head: ConnectionHead, atoms: jax.Array, batch: Batch) -> jax.Array:
        return head(atoms, pair_blocks(batch))

    def loss(self, outputs: jax.Array, batch: Batch, seen: Batch) -> jax.Array:
        if self.by_crystal:
            return batch.crystals.mean(connection_by_crystal(outputs, batch))
        nll, rows = connection_terms(outputs, batch)
        return rows.mean(nll)

    def answers(self, batch: Batch, seen: Batch) -> jax.Array:
        """How often each number of edges is right, in terms of the loss's weights, ``[6]``."""
        counts = jnp.sum(connection_counts(batch, pair_blocks(batch)), axis=(0, 2, 3))
        weighted = over_devices(counts * jnp.asarray(CLASS_WEIGHTS), batch.axis)
        return weighted / jnp.maximum(jnp.sum(weighted), 1.0)

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        return None if answers is None else entropy(answers)
