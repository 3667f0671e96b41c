"""What a network is to the rest of the package: its module, its needs, how it is trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.models.recipe import Recipe


class Prediction(NamedTuple):
    """What a property predictor returns.

    Attributes:
      prediction: ``[n_graph]``, the property in standardised units.
      embeddings: ``[n_node, d]``, the atom vectors after the last convolution, any ``d``.
      penalty: scalar, added to the property loss; None for none.

    Example:
      ``return Prediction(nn.Dense(1)(batch.mean_of_atoms(atoms))[:, 0], atoms)``
    """

    prediction: jax.Array
    embeddings: jax.Array
    penalty: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that can be trained: a student, or one that learns without labels.

    Attributes:
      module: Flax module class. Called as ``module(graph, train)``, a student's returns a
        `Prediction`. Its attribute ``cutoff`` (Å, of the graphs) is set where it has one; every
        other attribute is a setting, and needs a default.
      needs: what its batches must hold.
      recipe: how it is trained unless a run says otherwise.
      starts_from: name of the network, trained without labels, whose convolutions it starts from;
        None for one that starts from random weights.
      explanation: parameters → what the predictions rest on, as (name, weight) in descending
        order; None for a network that does not say.

    Example:
      ``Network(MyModule, needs=Needs(reduced=True), recipe=Recipe(learning_rate=0.002))``
    """

    module: type[nn.Module]
    needs: Needs = Needs()
    recipe: Recipe = Recipe()
    starts_from: str | None = None
    explanation: Callable[[Mapping[str, Any]], Sequence[tuple[str, float]]] | None = None
