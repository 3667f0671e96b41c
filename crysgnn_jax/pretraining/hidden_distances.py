"""How far two neighbours are from each other, told from what surrounds them (edge level)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.views import Batch, Rows
from crysgnn_jax.models.layers import dense, softplus
from crysgnn_jax.pretraining.objective import Objective

NOWHERE = -10.0
"""Å: a distance so far from every centre of the basis that an edge of it has no feature."""


class PairHead(nn.Module):
    """Both ends of each edge → one number: a hidden layer of the sum of what they give."""

    width: int

    @nn.compact
    def __call__(self, atoms: jax.Array, batch: Batch) -> jax.Array:
        """``[n_node, width]`` → ``[n_edge]``."""
        edges = batch.edges
        ends = dense(self.width, atoms.shape[-1], name="centre")(atoms)[edges.receivers]
        ends += dense(self.width, atoms.shape[-1], name="neighbour")(atoms)[edges.senders]
        return dense(1, self.width, name="distance")(softplus(ends))[:, 0]


@dataclasses.dataclass(frozen=True)
class HiddenDistances(Objective):
    """Hide the distances of some edges, and tell them from the two atoms.

    Squared error in units of ``unit``, mean over the hidden edges. What is to be told is the
    distance as it would have been seen, stretched where another objective has stretched it. The
    network still knows which atoms are neighbours.

    Attributes:
      fraction: of the edges that are hidden; each way of a pair, and each pair, by itself.
      unit: Å.
    """

    name: ClassVar[str] = "hidden_distances"

    fraction: float = 0.15
    unit: float = 0.7

    def head(self, width: int) -> nn.Module:
        return PairHead(width)

    def outputs(self, head: PairHead, atoms: jax.Array, batch: Batch) -> jax.Array:
        """Distances less 3 Å, in units of ``unit``, ``[n_edge]``."""
        return head(atoms, batch)

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        hidden = jax.random.bernoulli(key, self.fraction, batch.distances.shape)
        return batch.with_edges(
            distances=jnp.where(hidden, NOWHERE, batch.distances), hidden_distances=batch.distances
        )

    def loss(self, outputs: jax.Array, batch: Batch, seen: Batch) -> jax.Array:
        return _hidden(seen).mean(jnp.square(outputs - self._targets(seen)))

    def answers(self, batch: Batch, seen: Batch) -> jax.Array:
        """Mean and mean square, ``[2]``."""
        targets = self._targets(seen)
        return batch.edges.rows.mean(jnp.stack([targets, jnp.square(targets)], axis=1))

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        return None if answers is None else float(answers[1] - answers[0] ** 2)

    def _targets(self, seen: Batch) -> jax.Array:
        return (seen.graph.edges["hidden_distances"] - 3.0) / self.unit


def _hidden(seen: Batch) -> Rows:
    return seen.edges.rows.only(seen.distances < 0.0)
