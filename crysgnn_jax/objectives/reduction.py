"""Means over what is real, across devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jraph

Loss = Callable[[Any, jraph.GraphsTuple], tuple[jax.Array, dict[str, jax.Array]]]
"""``(outputs, graph) → (this device's share of the loss, parts to log)``"""


def mean_share(values: jax.Array, weights: jax.Array, axis_name: str | None = None) -> jax.Array:
    """This device's share of a weighted mean over all devices.

    Args:
      values: any shape.
      weights: the same shape; 0 for padding.
      axis_name: device axis, if any.

    Returns:
      Scalar Σ(values · weights) / Σ_all devices(weights); 0 where all weights are 0.
    """
    total = jax.lax.stop_gradient(jnp.sum(weights))
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    # Where every weight is zero, so is the numerator: any divisor but zero will do.
    return jnp.sum(values * weights) / jnp.where(total > 0, total, 1.0)
