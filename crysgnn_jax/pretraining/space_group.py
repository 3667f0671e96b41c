"""The space group of the crystal (Das et al., AAAI 2023; graph level)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.graphs.symmetry import N_SPACE_GROUPS
from crysgnn_jax.models.layers import dense
from crysgnn_jax.pretraining.objective import Objective, entropy


@dataclasses.dataclass(frozen=True)
class SpaceGroup(Objective):
    """Tell the space group, of 230: negative log likelihood, mean over crystals.

    Reports ``space_group_accuracy``, the fraction of crystals whose space group is the first guess.
    """

    name: ClassVar[str] = "space_group"

    def head(self, width: int) -> nn.Module:
        return dense(N_SPACE_GROUPS, width)

    def outputs(self, head: nn.Module, atoms: jax.Array, batch: Batch) -> jax.Array:
        """Logits ``[n_graph, 230]``."""
        return head(batch.mean_of_atoms(atoms))

    def loss(self, outputs: jax.Array, batch: Batch, seen: Batch) -> jax.Array:
        targets = jnp.clip(batch.space_group - 1, 0)
        chances = jax.nn.log_softmax(outputs)
        nll = -jnp.take_along_axis(chances, targets[:, None], axis=1)[:, 0]
        return batch.crystals.mean(nll)

    def metrics(self, outputs: jax.Array, batch: Batch, seen: Batch) -> dict[str, jax.Array]:
        guess = jnp.argmax(outputs, axis=1) + 1
        right = (guess == batch.space_group).astype(jnp.float32)
        return {"space_group_accuracy": batch.crystals.mean(right)}

    def answers(self, batch: Batch, seen: Batch) -> jax.Array:
        """How often each space group is right, ``[230]``."""
        return batch.crystals.mean(jax.nn.one_hot(batch.space_group - 1, N_SPACE_GROUPS))

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        return None if answers is None else entropy(answers)
