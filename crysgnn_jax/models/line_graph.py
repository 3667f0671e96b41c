"""The line graph of a batch, in static shapes: its nodes are the edges of the crystal graph.

A **triplet** is a pair of edges of which the second leaves the atom that the first arrives at, an
edge of the line graph (Choudhary and DeCost 2021). An edge leads from sender to receiver, and
receivers ascend in a batch, so the edges that precede an edge, those that arrive at its sender,
stand in one row. In full graphs each triplet is then found from its number alone: nothing is sorted
or stored. Reduced graphs, whose triplets are merged, carry them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.graph import masks

_CHUNK = 4096
"""Crystals whose triplets are counted at a time: some 100 MB."""


class LineGraph(NamedTuple):
    """The triplets of a batch.

    Attributes:
      senders: ``[n_triplet]`` int32, the first edge of each triplet, e1 = k → j.
      receivers: ``[n_triplet]`` int32, the second, e2 = j → i, in ascending order.
      multiplicity: ``[n_triplet]`` float32, equal triplets of one edge e2 that each stands for: 1.0
        in full graphs; 0.0 for padding, which comes last.
      total: scalar int32, triplets that the batch has; more than ``n_triplet`` where the static
        shape is too small.
    """

    senders: jax.Array
    receivers: jax.Array
    multiplicity: jax.Array
    total: jax.Array

    @property
    def mask(self) -> jax.Array:
        """``[n_triplet]`` float32, 1.0 for real triplets."""
        return (self.multiplicity > 0).astype(jnp.float32)


def line_graph(graph: jraph.GraphsTuple, n_triplet: int) -> LineGraph:
    """The triplets of a batch, all but those of an edge with itself.

    Going back, i → j → i, is a triplet; an edge from an atom to its own image has no triplet with
    itself, though it leaves where it arrives. Padding edges are in none. A batch of reduced graphs
    carries its triplets (`data.reduction`), merged; those of full graphs are found here.

    Args:
      graph: a padded batch, receivers ascending.
      n_triplet: static; of full graphs, at least the sum of `count_triplets` over the crystals of
        the batch.
    """
    if "triplet_multiplicity" in graph.globals:
        ends = graph.globals["triplet_senders"], graph.globals["triplet_receivers"]
        multiplicity = jnp.asarray(graph.globals["triplet_multiplicity"])
        return LineGraph(*ends, multiplicity, jnp.sum(multiplicity > 0))
    n_node, n_edge = jax.tree.leaves(graph.nodes)[0].shape[0], len(graph.senders)
    senders, receivers = jnp.asarray(graph.senders), jnp.asarray(graph.receivers)
    real = masks(graph).edges.astype(jnp.int32)
    degree = jax.ops.segment_sum(real, receivers, n_node, indices_are_sorted=True)
    first_arrival = jnp.cumsum(degree) - degree
    loop = (senders == receivers).astype(jnp.int32)
    count = real * (degree[senders] - loop)
    last = jnp.cumsum(count)
    slot = jnp.arange(n_triplet, dtype=jnp.int32)
    # jnp.repeat fills the unused slots with the last edge: they are masked.
    second = jnp.repeat(jnp.arange(n_edge, dtype=jnp.int32), count, total_repeat_length=n_triplet)
    first = first_arrival[senders[second]] + slot - (last - count)[second]
    # The edge itself is among the arrivals of its sender if it leads to its own image: step over.
    first += loop[second] * (first >= second)
    return LineGraph(
        senders=jnp.clip(first, 0, n_edge - 1),
        receivers=second,
        multiplicity=(slot < last[-1]).astype(jnp.float32),
        total=last[-1],
    )


def triplet_cosines(graph: jraph.GraphsTuple, line: LineGraph) -> jax.Array:
    """``[n_triplet]``: `angle_cosines` of full graphs; reduced ones carry them."""
    if "triplet_cosines" in graph.globals:
        return graph.globals["triplet_cosines"]
    return angle_cosines(line, graph.edges["vectors"])


def angle_cosines(line: LineGraph, vectors: jax.Array) -> jax.Array:
    """``[n_triplet]``: cosine of the angle between the two edges of each triplet at their atom.

    1 for going back along an edge, −1 for going straight on; clamped, since rounding goes beyond.

    Args:
      line: the triplets.
      vectors: ``[n_edge, 3]`` Å, from the receiver to the image of the sender, or zero (padding).
    """
    square = jnp.sum(jnp.square(vectors), axis=1, keepdims=True)
    # The floor is under the root: the gradient of sqrt at 0 is infinite.
    unit = vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-12))
    # From atom j, the first edge k → j is seen along its vector, the second j → i against it.
    cosine = -jnp.sum(unit[line.senders] * unit[line.receivers], axis=1)
    return jnp.clip(cosine, -1.0, 1.0)


def count_triplets(store: GraphStore) -> np.ndarray:
    """``[n]`` int64, the triplets of each crystal's full graph: for students of their own that take
    those, as ``extra_sizes``."""
    counts = np.empty(len(store), np.int64)
    for start in range(0, len(store), _CHUNK):
        stop = min(start + _CHUNK, len(store))
        atoms = slice(store.node_offsets[start], store.node_offsets[stop])
        edges = slice(store.edge_offsets[start], store.edge_offsets[stop])
        degree = store.degree[atoms].astype(np.int64)
        first_atom = store.node_offsets[start:stop] - store.node_offsets[start]
        senders = store.senders[edges] + np.repeat(first_atom, store.n_edges[start:stop])
        receivers = np.repeat(np.arange(len(degree)), degree)
        last = np.cumsum(degree[senders] - (senders == receivers))
        ends = store.edge_offsets[start : stop + 1] - store.edge_offsets[start]
        counts[start:stop] = np.diff(np.concatenate([[0], last])[ends])
    return counts
