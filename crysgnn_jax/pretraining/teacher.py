"""The networks that learn without labels: one encoder, with different sets of objectives."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jraph

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.models.encoder import CrystalEncoder
from crysgnn_jax.models.layers import l2_normalise
from crysgnn_jax.pretraining.objective import Objective, corrupted


class PretrainedOutputs(NamedTuple):
    """What a network says while it learns.

    Attributes:
      embeddings: ``[n_node, width]``, the atom vectors: what is distilled.
      crystals: ``[n_graph, width]``, their mean over the atoms of each crystal.
      heads: objective → what its head says.
      seen: the batch as the encoder saw it.
    """

    embeddings: jax.Array
    crystals: jax.Array
    heads: dict[str, Any]
    seen: jraph.GraphsTuple


class Teacher(nn.Module):
    """CrysGNN (Das et al., AAAI 2023): 162,162 parameters with the released objectives.

    Attributes:
      width: length of an embedding.
      n_convolutions: rounds of messages.
      unit_length: whether embeddings are scaled to length 1.
      cutoff: Å, of the graphs; last centre of the distance basis.
      objectives: what it learns; none for embeddings alone.
    """

    width: int = 64
    n_convolutions: int = 5
    unit_length: bool = True
    cutoff: float = 8.0
    objectives: tuple[Objective, ...] = ()

    def setup(self):
        self.encoder = CrystalEncoder(self.width, self.n_convolutions, False, self.cutoff)
        for objective in self.objectives:
            if (head := objective.head(self.width)) is not None:
                setattr(self, objective.scope, head)

    def _atoms(self, batch: Batch, train: bool) -> jax.Array:
        atoms = self.encoder(batch, train)
        return l2_normalise(atoms) if self.unit_length else atoms

    def embed(self, graph: jraph.GraphsTuple, train: bool = False) -> jax.Array:
        """Embeddings alone: ``[n_node, width]``."""
        return self._atoms(Batch(graph), train)

    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> PretrainedOutputs:
        """Run the encoder and all heads.

        Args:
          graph: a padded batch, with the lists that the objectives need.
          train: use and update batch statistics.
        """
        seen = corrupted(self.objectives, Batch(graph), self)
        atoms = self._atoms(seen, train)
        heads = {
            objective.name: objective.outputs(getattr(self, objective.scope, None), atoms, seen)
            for objective in self.objectives
        }
        return PretrainedOutputs(atoms, seen.mean_of_atoms(atoms), heads, seen.graph)


class CrysAE(Teacher):
    """The crystal auto-encoder whose convolutions CrysXPP starts from (Das et al. 2022).

    102,924 parameters with the released objectives, which see atom vectors of any length.
    """

    n_convolutions: int = 3
    unit_length: bool = False


class PretrainedStudent(nn.Module):
    """A student that learns without labels and without a teacher, from its atom embeddings.

    What distillation is to be measured against: the same student, the same crystals.

    Attributes:
      student: a module that returns a `Prediction`. Its property head learns nothing.
      objectives: what it learns.
    """

    student: nn.Module
    objectives: tuple[Objective, ...] = ()

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> PretrainedOutputs:
        """Run the student and all heads."""
        seen = corrupted(self.objectives, Batch(graph), self)
        atoms = self.student(seen.graph, train).embeddings
        heads = {}
        for objective in self.objectives:
            # A module made here is given a name by its parent, and so must be made anew.
            head = objective.head(atoms.shape[-1])
            if head is not None:
                head = head.clone(parent=self, name=objective.scope)
            heads[objective.name] = objective.outputs(head, atoms, seen)
        return PretrainedOutputs(atoms, seen.mean_of_atoms(atoms), heads, seen.graph)
