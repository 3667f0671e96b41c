"""Losses of property prediction."""

import dataclasses

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.models.network import Prediction
from crysgnn_jax.objectives.loss import Loss


@dataclasses.dataclass(frozen=True)
class Standardiser:
    """Targets in units of their training statistics: (y − mean) / std.

    Attributes:
      mean: of the training targets, in the property's unit.
      std: likewise; never 0.

    Example:
      ``Standardiser.fit(targets).invert(predictions)``
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


def smooth_l1(error: jax.Array) -> jax.Array:
    """½ e² where |e| < 1, |e| − ½ beyond."""
    size = jnp.abs(error)
    return jnp.where(size < 1.0, 0.5 * jnp.square(error), size - 0.5)


LOSSES = {"mse": jnp.square, "smooth_l1": smooth_l1, "l1": jnp.abs}
"""Name → what is averaged: a function of the error on standardised targets."""


def property_loss(standardiser: Standardiser, *, kind: str = "mse") -> Loss:
    """Mean loss on standardised targets, over the crystals that have one, and the penalty.

    The batch carries ``globals["labels"]`` ``[n_graph, 1]`` in the property's own unit and
    ``globals["label_mask"]`` of the same shape. Besides the loss, the mean absolute error in the
    property's unit is reported as ``mae``.

    Args:
      standardiser: of the targets.
      kind: name in `LOSSES`.

    Example:
      ``property_loss(Standardiser.fit(targets), kind="smooth_l1")``
    """
    of_error = LOSSES[kind]

    def loss(outputs: Prediction, graph: jraph.GraphsTuple):
        batch = Batch(graph)
        error = outputs.prediction - standardiser.apply(batch.labels)
        value = batch.labelled.mean(of_error(error))
        mae = standardiser.std * batch.labelled.mean(jnp.abs(error))
        parts = {"property": value, "mae": mae}
        if outputs.penalty is not None:
            parts["penalty"] = outputs.penalty
            value = value + outputs.penalty
        return value, parts

    return loss
