"""Steps of more batches than devices: what a device does with its batches, one after the other.

A loss is a mean over all rows of a step, and a teacher's pull, or a contrast of crystals, is more
than a sum over batches. So a network runs over one batch after the other, and the loss over what it
has said of all of them together: it is the loss of one large batch. The arrays of a batch have a
leading axis, of rounds.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jraph

from crysgnn_jax.batches.views import axis_of, mark_spread, rounds_of

ROUNDS = "rounds"
"""Name of the axis of rounds, beside that of devices."""


def one_of(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    """Batches of several rounds, marked as a round's, of which one is to be taken."""
    return mark_spread(graph, _devices_of(graph))


def _devices_of(graph: jraph.GraphsTuple) -> str:
    axis = axis_of(graph)
    assert isinstance(axis, str), "batches of several rounds lie on devices"
    return axis


def one_by_one(function: Callable[..., Any], graph: jraph.GraphsTuple) -> Any:
    """What a function makes of each of a device's batches: the outputs, with more than one round
    ``[n_rounds, …]``.

    Args:
      function: of a batch, and the number of its round.
      graph: the batches.
    """
    n = rounds_of(graph)
    if n == 1:
        return function(graph, 0)
    return jax.lax.map(lambda of_round: function(*of_round), (one_of(graph), jnp.arange(n)))


def together(function: Callable[..., Any], outputs: Any, graph: jraph.GraphsTuple) -> Any:
    """What a function makes of all outputs and batches at once, with sums over the rows of all:
    ``[n_rounds, …]``, equal in each round where it goes through `Rows`; without rounds ``[…]``.

    Args:
      function: of outputs and a batch, as a loss.
      outputs: as of `one_by_one`.
      graph: the batches.
    """
    if rounds_of(graph) == 1:
        return function(outputs, graph)
    axes = (_devices_of(graph), ROUNDS)
    spread = lambda x: mark_spread(x, axes) if isinstance(x, jraph.GraphsTuple) else x
    outputs = jax.tree.map(spread, outputs, is_leaf=lambda x: isinstance(x, jraph.GraphsTuple))
    return jax.vmap(function, axis_name=ROUNDS)(outputs, mark_spread(graph, axes))
