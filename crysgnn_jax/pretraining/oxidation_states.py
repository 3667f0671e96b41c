"""Which oxidation states make the crystal neutral, if any do (node and graph level)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.batches.loader import NodeColumn
from crysgnn_jax.batches.views import Batch, Rows
from crysgnn_jax.crystals.oxidation import CLASSES, OxidationTable
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.layers import dense
from crysgnn_jax.pretraining.objective import Objective, entropy

_COLUMN = "oxidation_states"


class OxidationHead(nn.Module):
    """Of atoms their states, of the crystal how it is made neutral.

    Attributes:
      width: of the embeddings.
    """

    width: int

    @nn.compact
    def __call__(self, atoms: jax.Array, crystals: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``[n_node]``, and logits ``[n_graph, 4]``."""
        states = dense(1, self.width, name="states")(atoms)[:, 0]
        return states, dense(len(CLASSES), self.width, name="kind")(crystals)


@dataclasses.dataclass(frozen=True)
class OxidationStates(Objective):
    """Tell the oxidation state of each atom, and whether such states make the crystal neutral.

    Whether they do, and how far apart anions and cations then are, is what a chemist knows of a
    compound's electrons without a calculation: insulators are nearly always neutral by common
    states, and metals mostly by none. The targets follow from the formula, see
    `crysgnn_jax.crystals.oxidation`. The loss is the squared error of state / ``scale``, mean over
    the atoms of the crystals that have states, and the cross entropy of `CLASSES`, mean over
    crystals. Reports ``oxidation_states_accuracy``, the fraction of crystals whose class is the
    first guess.

    Attributes:
      scale: a usual state.
    """

    name: ClassVar[str] = "oxidation_states"

    scale: float = 2.0

    def columns(self, store: GraphStore) -> Mapping[str, NodeColumn]:
        """``oxidation_states``: of each node its state, and the class of its crystal."""
        return {_COLUMN: OxidationTable(store.reduced_formula)}

    def head(self, width: int) -> nn.Module:
        return OxidationHead(width)

    def outputs(self, head: nn.Module, atoms: jax.Array, batch: Batch) -> Any:
        """States / ``scale``, ``[n_node]``, and logits, ``[n_graph, 4]``."""
        return head(atoms, batch.mean_of_atoms(atoms))

    def loss(self, outputs: Any, batch: Batch, seen: Batch) -> jax.Array:
        states, logits = outputs
        target, kind = _targets(batch)
        off = jnp.square(states - target / self.scale)
        chances = jax.nn.log_softmax(logits)
        nll = -jnp.take_along_axis(chances, kind[:, None], axis=1)[:, 0]
        return _with_states(batch).mean(off) + batch.crystals.mean(nll)

    def metrics(self, outputs: Any, batch: Batch, seen: Batch) -> dict[str, jax.Array]:
        right = (jnp.argmax(outputs[1], axis=1) == _targets(batch)[1]).astype(jnp.float32)
        return {"oxidation_states_accuracy": batch.crystals.mean(right)}

    def answers(self, batch: Batch, seen: Batch) -> jax.Array:
        """How often each class is right, ``[4]``; and sums over the atoms that have states: how
        many there are, the states and their squares, of all atoms."""
        target, kind = _targets(batch)
        known = _with_states(batch).weights > 0
        powers = jnp.stack([known * (target / self.scale) ** power for power in range(3)], axis=1)
        classes = batch.crystals.mean(jax.nn.one_hot(kind, len(CLASSES)))
        return jnp.concatenate([classes, batch.atoms.mean(powers)])

    def trivial_loss(self, answers: np.ndarray | None) -> float | None:
        if answers is None:
            return None
        n, first, second = np.asarray(answers, np.float64)[len(CLASSES) :]
        spread = second / n - (first / n) ** 2 if n > 0 else 0.0
        return float(spread + entropy(answers[: len(CLASSES)]))


def _targets(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """States of the nodes, ``[n_node]``, and classes of the crystals, ``[n_graph]`` int32."""
    found = batch.graph.nodes[_COLUMN]
    kind = jnp.rint(batch.mean_of_atoms(found[:, 1:])[:, 0])
    return found[:, 0], kind.astype(jnp.int32)


def _with_states(batch: Batch) -> Rows:
    """The atoms of the crystals that states make neutral."""
    return batch.atoms.only(batch.graph.nodes[_COLUMN][:, 1] < CLASSES.index("none"))
