"""Distillation as a pure transform of a property loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from crysgnn_jax.models.graph import l2_normalise, masks, mean_pool
from crysgnn_jax.models.layers import dense
from crysgnn_jax.models.protocol import Prediction
from crysgnn_jax.objectives.reduction import Loss, mean_share


def embedding_loss(
    student: jax.Array,
    teacher: jax.Array,
    graph: jraph.GraphsTuple,
    *,
    axis_name: str | None = None,
) -> jax.Array:
    """Mean over crystals of the mean squared difference between two sets of atom embeddings.

    Both sides are scaled to length 1 an atom first. Each crystal weighs the same, whatever its
    size. Das et al., AAAI 2023, eq. "KD loss".

    Args:
      student: ``[n_node, d]``
      teacher: ``[n_node, d]``; no gradient flows into it.
      graph: the batch.
      axis_name: device axis, if any.
    """
    difference = l2_normalise(student) - jax.lax.stop_gradient(l2_normalise(teacher))
    per_atom = jnp.mean(jnp.square(difference), axis=1, keepdims=True)
    return mean_share(mean_pool(per_atom, graph)[:, 0], masks(graph).graphs, axis_name)


def distil(property_loss: Loss, weight: float = 0.5, *, axis_name: str | None = None) -> Loss:
    """Add the teacher's pull to a property loss.

    ``(1 − weight) · property_loss + weight · embedding_loss``. Works with any loss of this
    signature and any module whose outputs have ``embeddings`` as wide as the teacher's
    (`ProjectedStudent` makes them so); the batch carries the teacher's as
    ``nodes["teacher_embeddings"]`` ``[n_node, d]``.

    Args:
      property_loss: ``(outputs, graph) → (value, parts)``.
      weight: from 0 (the student alone) to 1 (the teacher alone).
      axis_name: device axis, if any.

    Returns:
      A loss of the same signature, with ``embedding`` among its parts. With weight 0 it is
      ``property_loss`` itself, and the batch needs no teacher.

    Raises:
      ValueError: the weight is outside 0…1; at call time, the widths differ.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"the distillation weight must lie between 0 and 1, not {weight}")
    if weight == 0.0:
        return property_loss

    def loss(outputs, graph: jraph.GraphsTuple):
        teacher = graph.nodes["teacher_embeddings"]
        if outputs.embeddings.shape != teacher.shape:
            raise ValueError(
                f"the student's embeddings are {outputs.embeddings.shape}, the teacher's "
                f"{teacher.shape}; wrap the student in ProjectedStudent"
            )
        value, parts = property_loss(outputs, graph)
        pull = embedding_loss(outputs.embeddings, teacher, graph, axis_name=axis_name)
        return (1.0 - weight) * value + weight * pull, {**parts, "embedding": pull}

    return loss


class ProjectedStudent(nn.Module):
    """A student whose embeddings are mapped to the teacher's width for the loss.

    The projection is learned with the student and used by the loss alone: predictions do not
    depend on it.

    Attributes:
      student: a module that returns a `Prediction`.
      width: the teacher's width.
    """

    student: nn.Module
    width: int

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        outputs = self.student(graph, train)
        own_width = outputs.embeddings.shape[-1]
        if own_width == self.width:
            return outputs
        projected = dense(self.width, own_width, name="projection")(outputs.embeddings)
        return outputs._replace(embeddings=projected)
