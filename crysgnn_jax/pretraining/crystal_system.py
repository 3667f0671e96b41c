"""The crystal system, by contrast (Das et al., AAAI 2023; graph level)."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.views import Batch, Rows
from crysgnn_jax.models.layers import softplus
from crysgnn_jax.pretraining.objective import Objective


def contrastive_loss(
    vectors: jax.Array, labels: jax.Array, rows: Rows, *, temperature: float = 0.07
) -> jax.Array:
    """NT-Xent over all ordered pairs (a, p) with the same label, averaged over the pairs.

    ``−log(e^{s_ap/τ} / (e^{s_ap/τ} + Σ_n e^{s_an/τ}))`` with s the cosine and n running over the
    vectors with another label than a; 0 where no two vectors share a label. Pairs are formed across
    devices.

    Args:
      vectors: ``[n, d]``
      labels: ``[n]`` integers.
      rows: which of the vectors are real.
      temperature: τ.
    """
    # A crystal vector can be short where its atoms' embeddings point in all directions, never 0.
    norms = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(vectors), axis=1, keepdims=True), 1e-24))
    unit, mask = vectors / norms, rows.weights
    others, all_labels, all_mask = map(rows.everywhere, (unit, labels, mask))
    similarity = unit @ others.T / temperature
    real = mask[:, None] * all_mask[None, :]
    itself = jnp.arange(len(all_labels))[None, :] == rows.numbers[:, None]
    same = labels[:, None] == all_labels[None, :]
    positive = real * (same & ~itself)
    # −1e9 stands for −∞: an anchor without negatives then adds softplus(−1e9 − s) = 0, and no
    # 0 · ∞ arises in the gradient.
    negative = jnp.where((real > 0) & ~same, similarity, -1e9)
    nll = softplus(jax.nn.logsumexp(negative, axis=1, keepdims=True) - similarity)
    return Rows(positive, rows.axis).mean(nll)


@dataclasses.dataclass(frozen=True)
class CrystalSystem(Objective):
    """Bring the vectors of crystals of the same system together: `contrastive_loss`.

    Attributes:
      temperature: of the loss.
    """

    name: ClassVar[str] = "contrastive"

    temperature: float = 0.07

    def outputs(self, head: Any, atoms: jax.Array, batch: Batch) -> jax.Array:
        """The crystal vectors themselves, ``[n_graph, d]``: there is no head."""
        return batch.mean_of_atoms(atoms)

    def loss(self, outputs: jax.Array, batch: Batch, seen: Batch) -> jax.Array:
        labels, temperature = batch.crystal_system, self.temperature
        return contrastive_loss(outputs, labels, batch.crystals, temperature=temperature)

    def answers(self, batch: Batch, seen: Batch) -> jax.Array:
        """The loss itself where all vectors are equal, a scalar."""
        equal = jnp.ones((len(batch.crystals.weights), 1))
        return self.loss(equal, batch, seen)

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        return None if answers is None else float(answers)
