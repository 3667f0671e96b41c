"""How much a crystal has been blown up or shrunk, told from the whole of it (graph level)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.models.layers import dense
from crysgnn_jax.pretraining.objective import Objective


@dataclasses.dataclass(frozen=True)
class HiddenScale(Objective):
    """Multiply all distances of a crystal by eᵘ, and tell u from the crystal vector.

    A crystal at rest is neither stretched nor squeezed: to see by how much it has been, a network
    must know which distances are natural between which atoms. u is uniform between −range and
    range, the loss the squared error of u / range, mean over crystals, which is 1/3 for always
    saying 0. Angles and symmetry stay as they are.

    Attributes:
      range: largest size of u.
    """

    name: ClassVar[str] = "hidden_scale"

    range: float = 0.1

    def head(self, width: int) -> nn.Module:
        return dense(1, width)

    def outputs(self, head: nn.Module, atoms: jax.Array, batch: Batch) -> jax.Array:
        """u / range, ``[n_graph]``."""
        return head(batch.mean_of_atoms(atoms))[:, 0]

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        share = jax.random.uniform(key, batch.crystals.weights.shape, minval=-1.0, maxval=1.0)
        of_edges = share[batch.crystal_of_node][batch.edges.receivers]
        stretched = batch.with_edges(distances=batch.distances * jnp.exp(self.range * of_edges))
        return stretched.with_crystals(hidden_scale=share)

    def loss(self, outputs: jax.Array, batch: Batch, seen: Batch) -> jax.Array:
        return batch.crystals.mean(jnp.square(outputs - seen.graph.globals["hidden_scale"]))

    def trivial_loss(self, answers: np.ndarray | None) -> float:
        return 1 / 3  # the variance of u / range
