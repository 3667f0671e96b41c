"""What a teacher makes of each atom: distillation that needs no label (untagged stage)."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import numpy as np

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.models.layers import dense
from crysgnn_jax.objectives.distillation import Pull, is_projected, standardised_loss
from crysgnn_jax.pretraining.objective import Objective


@dataclasses.dataclass(frozen=True)
class TeacherEmbeddings(Objective):
    """Tell a frozen teacher's atom embeddings, as a `Pull` measures it.

    The teacher has seen each crystal as it is. Where other objectives disturb what the student
    sees, it must tell from that what the teacher makes of the whole.

    Attributes:
      width: of the teacher's embeddings.
      pull: how far the student is from the teacher.
    """

    name: ClassVar[str] = "teacher_embeddings"

    width: int = 64
    pull: Pull = standardised_loss

    def head(self, width: int) -> nn.Module | None:
        if width == self.width and not is_projected(self.pull):
            return None
        return dense(self.width, width)

    def outputs(self, head: Any, atoms: jax.Array, batch: Batch) -> jax.Array:
        """The student's embeddings at the teacher's width, ``[n_node, width]``."""
        return atoms if head is None else head(atoms)

    def loss(self, outputs: jax.Array, batch: Batch, seen: Batch) -> jax.Array:
        teacher = jax.lax.stop_gradient(batch.teacher_embeddings)
        return self.pull(outputs, teacher, batch.followed)

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        return 1.0 if self.pull is standardised_loss else None
