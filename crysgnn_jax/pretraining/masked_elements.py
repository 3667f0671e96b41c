"""Which element an atom is, told from its surroundings (Hu et al., ICLR 2020; node level)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.elements import MAX_ATOMIC_NUMBER
from crysgnn_jax.models.layers import dense
from crysgnn_jax.pretraining.objective import Objective, entropy


@dataclasses.dataclass(frozen=True)
class MaskedElements(Objective):
    """Hide the elements of some atoms, and tell them: cross entropy, mean over the hidden atoms.

    Equivalent atoms are hidden together, so that what is hidden has the crystal's symmetry.
    Reports ``masked_elements_accuracy``, the fraction of hidden atoms that are told right at first
    guess.

    Attributes:
      fraction: of the atoms that are hidden.
    """

    name: ClassVar[str] = "masked_elements"

    fraction: float = 0.15

    def head(self, width: int) -> nn.Module:
        return dense(MAX_ATOMIC_NUMBER + 1, width)

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        hidden = jax.random.bernoulli(key, self.fraction, batch.species.shape)
        return batch.with_nodes(species=jnp.where(hidden, 0, batch.species))

    def loss(self, outputs: jax.Array, batch: Batch, seen: Batch) -> jax.Array:
        chances = jax.nn.log_softmax(outputs)
        nll = -jnp.take_along_axis(chances, batch.species[:, None], axis=1)[:, 0]
        return _hidden(batch, seen).mean(nll)

    def metrics(self, outputs: jax.Array, batch: Batch, seen: Batch) -> dict[str, jax.Array]:
        right = (jnp.argmax(outputs, axis=1) == batch.species).astype(jnp.float32)
        return {"masked_elements_accuracy": _hidden(batch, seen).mean(right)}

    def answers(self, batch: Batch, seen: Batch) -> jax.Array:
        """How often each element is right, ``[101]``."""
        return batch.atoms.mean(jax.nn.one_hot(batch.species, MAX_ATOMIC_NUMBER + 1))

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        return None if answers is None else entropy(answers)


def _hidden(batch: Batch, seen: Batch):
    return batch.atoms.only(seen.species != batch.species)
