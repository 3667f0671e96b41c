"""What a property predictor, a student, takes and gives back, and how it likes to be trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.settings import FeaturiserSettings


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
      loss: name in `objectives.property.LOSSES`.
      learning_rate: the highest of the schedule.
      batch_size: crystals of an average batch, a device.
      weight_decay: decoupled, on kernels alone.
      graphs: fields of `FeaturiserSettings` that differ from the default graph.
      edge_columns: columns of the graph store that the module reads from ``graph.edges``.
      extra_sizes: store → quantities besides atoms and edges that the module lays out in static
        shapes, as name → ``[n]`` integers, one a crystal. The budget of a batch becomes the
        module's attribute of that name. They are taken to be most of its cost: batches are as full
        of them as can be, and of atoms and edges as it happens.
      not_settings: attributes of the module that ``--set`` may not change.
      starts_from: name of the network, trained without labels, whose convolutions it starts from;
        None for one that starts from random weights.
      reduced: whether the module takes reduced graphs, in which a node stands for all equivalent
        atoms (`data.reduction`): its sums and means over atoms and edges must count what each
        stands for, `graph.multiplicities`. That saves two thirds of the work.
      explanation: parameters → what the predictions rest on, as (name, weight) in descending
        order; None for a student that does not say.

    Raises:
      UserError: a loss, column or field of the settings that there is not.
    """

    module: type[nn.Module]
    loss: str = "mse"
    learning_rate: float = 0.005
    batch_size: int = 64
    weight_decay: float = 0.0
    graphs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    edge_columns: tuple[str, ...] = ("distances",)
    extra_sizes: Callable[[Any], Mapping[str, np.ndarray]] | None = None
    not_settings: tuple[str, ...] = ()
    starts_from: str | None = None
    reduced: bool = False
    explanation: Callable[[Mapping[str, Any]], Sequence[tuple[str, float]]] | None = None

    def __post_init__(self):
        for field, known in (("loss", _LOSSES), ("edge_columns", _EDGE_COLUMNS)):
            values = getattr(self, field)
            for value in (values,) if isinstance(values, str) else values:
                if value not in known:
                    raise UserError(f"Student({field}={value!r}): there is {', '.join(known)}")
        if self.reduced and "vectors" in self.edge_columns:
            raise UserError("Student(reduced=True): reduced graphs have no vectors")
        fields = [field.name for field in dataclasses.fields(FeaturiserSettings)]
        for name in self.graphs:
            if name not in fields:
                raise UserError(f"Student(graphs={name!r}): there is {', '.join(fields)}")


_LOSSES = ("mse", "smooth_l1", "l1")
"""As of `objectives.property.LOSSES`, which comes after the models."""

_EDGE_COLUMNS = ("distances", "vectors")
