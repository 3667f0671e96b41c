"""What a loss is."""

from collections.abc import Callable
from typing import Any

import jax
import jraph

Loss = Callable[[Any, jraph.GraphsTuple], tuple[jax.Array, dict[str, jax.Array]]]
"""``(outputs, graph) → (value, parts)``: a scalar, and scalars worth logging.

Means are taken over the rows of all devices, through `batches.views.Rows`, so that each device has
the same value: the loss of the whole step. What is computed otherwise is averaged over devices.
"""
