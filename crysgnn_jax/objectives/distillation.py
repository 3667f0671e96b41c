"""Distillation as a pure transform of a property loss."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.members import find_member
from crysgnn_jax.models.layers import dense, l2_normalise
from crysgnn_jax.models.network import Prediction
from crysgnn_jax.objectives.loss import Loss

Pull = Callable[[jax.Array, jax.Array, Batch], jax.Array]
"""``(student [n_node, d], teacher [n_node, d], batch) → scalar``: how far a student's atom
embeddings are from the teacher's, a mean over all devices through `Rows`. No gradient flows into
the teacher's."""


def embedding_loss(student: jax.Array, teacher: jax.Array, batch: Batch) -> jax.Array:
    """Mean over crystals of the mean squared difference between two sets of atom embeddings.

    Both sides are scaled to length 1 an atom first. Each crystal weighs the same, whatever its
    size. Das et al., AAAI 2023, eq. "KD loss". A `Pull`.

    Example:
      ``distil(property_loss(standardiser), embedding_loss, weight=0.5)``
    """
    difference = l2_normalise(student) - l2_normalise(teacher)
    per_atom = jnp.mean(jnp.square(difference), axis=1, keepdims=True)
    return batch.crystals.mean(batch.mean_of_atoms(per_atom)[:, 0])


def standardised_loss(student: jax.Array, teacher: jax.Array, batch: Batch) -> jax.Array:
    """Mean over crystals of the mean squared difference to the teacher's standardised embeddings.

    Each dimension of the teacher's is standardised over the atoms of the step, so that all of them
    count alike, the small ones too; the student's are taken as they are, behind a learned
    projection (`ProjectedStudent`, with ``always``). 1 for a student that tells nothing, 0 for one
    that tells all; each crystal weighs the same, whatever its size. A `Pull`.

    Example:
      ``distil(property_loss(standardiser), standardised_loss, weight=0.1)``
    """
    centred = teacher - batch.atoms.mean(teacher)
    variance = batch.atoms.mean(jnp.square(centred))
    # A dimension that says nothing is not blown up to say noise.
    scale = jax.lax.rsqrt(jnp.maximum(variance, 1e-6 * jnp.mean(variance) + 1e-12))
    per_atom = jnp.mean(jnp.square(student - centred * scale), axis=1, keepdims=True)
    return batch.crystals.mean(batch.mean_of_atoms(per_atom)[:, 0])


PULLS: dict[str, Pull] = {"standardised": standardised_loss, "released": embedding_loss}
"""Name on the command line → what it is."""


def teacher_columns(embeddings: np.ndarray) -> dict[str, np.ndarray]:
    """What batches carry of a teacher, as columns of atoms.

    Args:
      embeddings: ``[all atoms, d]``; NaN in crystals that the teacher cannot take. The pull leaves
        these out, and they count as crystals without any distance.
    """
    taught = np.isfinite(embeddings[:, :1])
    if taught.all():
        return {"teacher_embeddings": embeddings}
    return {
        "teacher_embeddings": np.where(taught, embeddings, np.float32(0.0)),
        "taught": taught.astype(np.float32),
    }


def is_projected(pull: Pull) -> bool:
    """Whether a pull compares with the teacher's embeddings behind a projection, even where the
    student's are as wide."""
    return pull is standardised_loss


def name_of_pull(pull: str | Pull) -> tuple[str, Pull]:
    """A pull's name and function, of either.

    Args:
      pull: a name in `PULLS`, ``package.module:NAME`` of a function of your own, or a function.

    Raises:
      UserError: there is no such pull.
    """
    if isinstance(pull, str):
        there = f"there is {', '.join(PULLS)}, or a function of your own as package.module:NAME"
        return pull, PULLS.get(pull) or find_member(pull, "pull", there)
    known = next((name for name, function in PULLS.items() if function is pull), None)
    return known or f"{pull.__module__}:{pull.__qualname__}", pull


def distil(property_loss: Loss, pull: Pull = embedding_loss, *, weight: float = 0.5) -> Loss:
    """Add the teacher's pull to a property loss.

    ``(1 − weight) · property_loss + weight · pull``. Works with any loss of this signature and any
    module whose outputs have ``embeddings`` as wide as the teacher's (`ProjectedStudent` makes
    them so); the batch carries the teacher's as ``nodes["teacher_embeddings"]`` ``[n_node, d]``.
    Crystals without a label take part in the pull alone.

    Args:
      property_loss: ``(outputs, graph) → (value, parts)``.
      pull: how far the student is from the teacher.
      weight: from 0 (the student alone) to 1 (the teacher alone).

    Returns:
      A loss of the same signature, with ``embedding`` among its parts. With weight 0 it is
      ``property_loss`` itself, and the batch needs no teacher.

    Raises:
      ValueError: the weight is outside 0…1; at call time, the widths differ.

    Example:
      ``distil(property_loss(standardiser), weight=0.3)``; with a pull of your own,
      ``docs/examples/cosine_pull.py``.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"the distillation weight must lie between 0 and 1, not {weight}")
    if weight == 0.0:
        return property_loss

    def loss(outputs: Prediction, graph: jraph.GraphsTuple):
        batch = Batch(graph)
        teacher = jax.lax.stop_gradient(batch.teacher_embeddings)
        if outputs.embeddings.shape != teacher.shape:
            raise ValueError(
                f"the student's embeddings are {outputs.embeddings.shape}, the teacher's "
                f"{teacher.shape}; wrap the student in ProjectedStudent"
            )
        value, parts = property_loss(outputs, graph)
        distance = pull(outputs.embeddings, teacher, batch.followed)
        return (1.0 - weight) * value + weight * distance, {**parts, "embedding": distance}

    return loss


class ProjectedStudent(nn.Module):
    """A student whose embeddings are mapped to the teacher's width for the loss.

    The projection is learned with the student and used by the loss alone: predictions do not
    depend on it.

    Attributes:
      student: a module that returns a `Prediction`.
      width: the teacher's width.
      always: whether to map embeddings that are as wide as the teacher's too.

    Example:
      ``ProjectedStudent(ALIGNN(), width=64)``
    """

    student: nn.Module
    width: int
    always: bool = False

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        outputs = self.student(graph, train)
        own_width = outputs.embeddings.shape[-1]
        if own_width == self.width and not self.always:
            return outputs
        projected = dense(self.width, own_width, name="projection")(outputs.embeddings)
        return outputs._replace(embeddings=projected)
