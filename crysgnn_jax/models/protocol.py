"""What a property predictor, a student, takes and gives back, and how it likes to be trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np


class Prediction(NamedTuple):
    """Output of a student.

    Attributes:
      prediction: ``[n_graph]``, the property in standardised units.
      embeddings: ``[n_node, d]``, the atom vectors after the last convolution, any ``d``.
      penalty: scalar, added to the property loss; None for none.
    """

    prediction: jax.Array
    embeddings: jax.Array
    penalty: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Student:
    """A predictor that the commands can train: its module, and the defaults of its authors.

    Attributes:
      module: Flax module class. Called as ``module(graph, train)``, it returns a `Prediction`.
        Of its attributes, ``cutoff`` (Å, of the graphs) and ``axis_name`` (of the devices, for
        batch norms) are set where it has them.
      summary: one line for ``--help`` and the documentation.
      loss: name in `objectives.property.LOSSES`.
      learning_rate: the highest of the schedule.
      batch_size: crystals of an average batch, a device.
      weight_decay: decoupled, on kernels alone.
      graphs: fields of `FeaturiserSettings` that differ from the default graph.
      edge_columns: columns of the graph store that the module reads from ``graph.edges``.
      extra_sizes: store → quantities besides atoms and edges that the module lays out in static
        shapes, as name → ``[n]`` integers, one a crystal. The budget of a batch becomes the
        module's attribute of that name.
      starts_from: name of the network, trained without labels, whose convolutions it starts from;
        None for one that starts from random weights.
      explanation: parameters → what the predictions rest on, as (name, weight) in descending
        order; None for a student that does not say.
    """

    module: type[nn.Module]
    summary: str = ""
    loss: str = "mse"
    learning_rate: float = 0.005
    batch_size: int = 64
    weight_decay: float = 0.0
    graphs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    edge_columns: tuple[str, ...] = ("distances",)
    extra_sizes: Callable[[Any], Mapping[str, np.ndarray]] | None = None
    starts_from: str | None = None
    explanation: Callable[[Mapping[str, Any]], Sequence[tuple[str, float]]] | None = None
