"""Losses of property prediction."""

import dataclasses

import jax.numpy as jnp
import jraph
import numpy as np

from crysgnn_jax.models.graph import masks
from crysgnn_jax.models.protocol import Prediction
from crysgnn_jax.objectives.reduction import Loss, mean_share


@dataclasses.dataclass(frozen=True)
class Standardiser:
    """Targets in units of their training statistics: (y − mean) / std.

    Attributes:
      mean: of the training targets, in the property's unit.
      std: likewise; never 0.
    """

    mean: float
    std: float

    @classmethod
    def fit(cls, targets: np.ndarray) -> "Standardiser":
        """Statistics of the training targets ``[n]``; std 1 where all are equal."""
        mean, std = float(np.mean(targets)), float(np.std(targets))
        # Equal targets differ by the rounding of their mean.
        return cls(mean, std if std > 1e-12 * max(1.0, abs(mean)) else 1.0)

    def apply(self, targets):
        return (targets - self.mean) / self.std

    def invert(self, predictions):
        return predictions * self.std + self.mean


def property_loss(standardiser: Standardiser, *, axis_name: str | None = None) -> Loss:
    """Mean squared error on standardised targets, over the crystals that have one.

    The batch carries ``globals["labels"]`` ``[n_graph, 1]`` in the property's own unit and
    ``globals["label_mask"]`` of the same shape. Besides the loss, the mean absolute error in the
    property's unit is reported as ``mae``.
    """

    def loss(outputs: Prediction, graph: jraph.GraphsTuple):
        labels = graph.globals["labels"][:, 0]
        known = masks(graph).graphs * graph.globals["label_mask"][:, 0]
        error = outputs.prediction - standardiser.apply(labels)
        mse = mean_share(jnp.square(error), known, axis_name)
        mae = standardiser.std * mean_share(jnp.abs(error), known, axis_name)
        return mse, {"property": mse, "mae": mae}

    return loss
