"""The element features of each atom (Das et al., AAAI 2023; node level)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.elements import N_FEATURES
from crysgnn_jax.models.layers import atom_features, dense, softplus
from crysgnn_jax.pretraining.objective import Objective, entropy


def feature_entropy(logits: jax.Array, species: jax.Array) -> jax.Array:
    """``[n_node]``: binary cross entropy of the 92 element features, their mean.

    Args:
      logits: ``[n_node, 92]``
      species: ``[n_node]``, atomic numbers.
    """
    return jnp.mean(softplus(logits) - atom_features(species) * logits, axis=1)


@dataclasses.dataclass(frozen=True)
class ElementFeatures(Objective):
    """Tell the 92 binary element features of each atom: binary cross entropy, mean over atoms.

    Attributes:
      by_crystal: take the mean over each crystal first, as the crystal auto-encoder does.
    """

    name: ClassVar[str] = "feature"

    by_crystal: bool = False

    @property
    def scope(self) -> str:
        return "features"

    def head(self, width: int) -> nn.Module:
        return dense(N_FEATURES, width)

    def loss(self, outputs: jax.Array, batch: Batch, seen: Batch) -> jax.Array:
        entropy = feature_entropy(outputs, batch.species)
        if self.by_crystal:
            return batch.crystals.mean(batch.mean_of_atoms(entropy[:, None])[:, 0])
        return batch.atoms.mean(entropy)

    def answers(self, batch: Batch, seen: Batch) -> jax.Array:
        """How often each feature is 1, ``[92]``."""
        return batch.atoms.mean(atom_features(batch.species))

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        if answers is None:
            return None
        return float(np.mean([entropy(np.array([chance, 1.0 - chance])) for chance in answers]))
