"""What a pre-training objective is: something to be told of a crystal without any label."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.loader import NodeColumn
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.objectives.loss import Loss


class Objective:
    """A head, its targets and its loss. Each is a frozen dataclass in a file of its own.

    The fields of the dataclass are its settings.

    Attributes:
      name: in losses, metrics and flags.
      needs: lists of the batch that it reads, see `Needs.lists`.

    Example:
      ``docs/examples/masked_elements.py``
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def scope(self) -> str:
        """Name of the head's parameters."""
        return self.name

    def columns(self, store: GraphStore) -> Mapping[str, NodeColumn]:
        """What it reads of each atom beside the graph, asked for once, before training.

        Args:
          store: the crystals.

        Returns:
          By name, equal for equivalent atoms; in a batch it is ``batch.graph.nodes[name]``.
        """
        return {}

    def head(self, width: int) -> nn.Module | None:
        """The layers on top of atom embeddings of this width; None for none."""
        return None

    def outputs(self, head: Any, atoms: jax.Array, batch: Batch) -> Any:
        """What the head says.

        Args:
          head: the module of `head`, to be called.
          atoms: ``[n_node, width]``, the embeddings.
          batch: as the encoder saw it.
        """
        return head(atoms)

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        """Hide or disturb a part of the batch before the encoder sees it.

        A pure function; the key is one of the step's, so that a resumed run draws the same. What
        equivalent atoms share stays shared, for they are one row.
        """
        return batch

    def loss(self, outputs: Any, batch: Batch, seen: Batch) -> jax.Array:
        """Scalar: the mean over all devices, through `Rows`.

        Args:
          outputs: as of `outputs`.
          batch: as it is.
          seen: as the encoder saw it, when all objectives had corrupted it.
        """
        raise NotImplementedError

    def metrics(self, outputs: Any, batch: Batch, seen: Batch) -> dict[str, jax.Array]:
        """Further scalars to report of the validation crystals, by name."""
        return {}

    def answers(self, batch: Batch, seen: Batch) -> jax.Array | None:
        """What `trivial_loss` must know of the right answers: an array that is a mean over atoms,
        edges or crystals, so that those of several batches can be averaged."""
        return None

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        """The loss of the best answer that is the same for every crystal: what a network must
        beat to have learned anything.

        Args:
          answers: as of `answers`, the mean over the validation crystals.

        Returns:
          None where there is no such answer.
        """
        return None


def entropy(frequencies: np.ndarray) -> float:
    """−Σ p ln p of frequencies of any scale: the cross entropy of always guessing by them."""
    chances = np.asarray(frequencies, dtype=np.float64)
    chances = chances[chances > 0] / chances.sum()
    return float(-np.sum(chances * np.log(chances)))


Weighted = Sequence[tuple[Objective, float]]
"""Objectives, each with its weight in the loss."""


def corrupted(objectives: Sequence[Objective], batch: Batch, module: nn.Module) -> Batch:
    """The batch as the encoder is to see it; keys are the module's ``corruption``."""
    for objective in objectives:
        if type(objective).corrupt is not Objective.corrupt:
            batch = objective.corrupt(batch, module.make_rng("corruption"))
    return batch


def pretraining_loss(objectives: Weighted) -> Loss:
    """The weighted sum of the objectives' losses.

    A loss of `teacher.PretrainedOutputs` and a batch; its parts are the losses, by name.
    """

    def loss(outputs: Any, graph: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch, seen = Batch(graph), Batch(outputs.seen)
        parts = {
            objective.name: objective.loss(outputs.heads[objective.name], batch, seen)
            for objective, _ in objectives
        }
        terms = [weight * parts[objective.name] for objective, weight in objectives]
        return jnp.sum(jnp.stack(terms)), parts

    return loss


def pretraining_metrics(objectives: Weighted, outputs: Any, graph: Any) -> dict[str, jax.Array]:
    """What else the objectives report of a batch, by name; and their `Objective.answers`, which
    `with_trivial_losses` takes out again."""
    batch, seen = Batch(graph), Batch(outputs.seen)
    found: dict[str, jax.Array] = {}
    for objective, _ in objectives:
        found |= objective.metrics(outputs.heads[objective.name], batch, seen)
        answers = objective.answers(batch, seen)
        if answers is not None:
            found[_ANSWERS + objective.name] = answers
    return found


_ANSWERS = "answers of "


def with_trivial_losses(objectives: Weighted, means: Mapping[str, Any]) -> dict[str, float]:
    """Means of `pretraining_metrics`, with ``NAME_trivial`` beside the loss of each objective."""
    found = {name: value for name, value in means.items() if not name.startswith(_ANSWERS)}
    for objective, _ in objectives:
        trivial = objective.trivial_loss(means.get(_ANSWERS + objective.name))
        if trivial is not None:
            found[f"{objective.name}_trivial"] = trivial
    return found
