"""Reading a padded batch: masks, multiplicities and pooling.

Batches follow jraph's padding convention: the real crystals come first, the first padding graph
holds all padding nodes and edges, any further padding graphs are empty. Padding edges join
padding nodes, so they never reach a real atom.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph


class Masks(NamedTuple):
    """1.0 for what is real, 0.0 for padding, float32.

    Attributes:
      nodes: ``[n_node]``.
      edges: ``[n_edge]``.
      graphs: ``[n_graph]``.
    """

    nodes: jax.Array
    edges: jax.Array
    graphs: jax.Array


def masks(graph: jraph.GraphsTuple) -> Masks:
    """The masks of a padded batch, of NumPy or JAX arrays."""
    graph = graph._replace(n_node=jnp.asarray(graph.n_node), n_edge=jnp.asarray(graph.n_edge))
    return Masks(
        jraph.get_node_padding_mask(graph).astype(jnp.float32),
        jraph.get_edge_padding_mask(graph).astype(jnp.float32),
        jraph.get_graph_padding_mask(graph).astype(jnp.float32),
    )


class Multiplicities(NamedTuple):
    """How many atoms and edges those of a batch stand for, 0.0 for padding, float32.

    Attributes:
      nodes: ``[n_node]``, atoms of the crystal that the node stands for.
      edges: ``[n_edge]``, edges of one such atom that the edge stands for.
    """

    nodes: jax.Array
    edges: jax.Array


def multiplicities(graph: jraph.GraphsTuple) -> Multiplicities:
    """Those of a batch of reduced graphs (`data.reduction`); the masks of one of full graphs.

    Of NumPy or JAX arrays.
    """
    if "multiplicity" in graph.nodes:
        of = lambda part: jnp.asarray(part["multiplicity"])
        return Multiplicities(of(graph.nodes), of(graph.edges))
    mask = masks(graph)
    return Multiplicities(mask.nodes, mask.edges)


def node_graph_ids(graph: jraph.GraphsTuple) -> jax.Array:
    """``[n_node]`` int32: the crystal that each atom belongs to."""
    return jnp.repeat(
        jnp.arange(len(graph.n_node), dtype=jnp.int32),
        graph.n_node,
        total_repeat_length=jax.tree_util.tree_leaves(graph.nodes)[0].shape[0],
    )


def mean_pool(nodes: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """Mean over the atoms of each crystal: ``[n_node, d]`` → ``[n_graph, d]``; 0 for empty ones."""
    weights = multiplicities(graph).nodes
    total = lambda x: jax.ops.segment_sum(
        x, node_graph_ids(graph), len(graph.n_node), indices_are_sorted=True
    )
    return total(nodes * weights[:, None]) / jnp.maximum(total(weights), 1.0)[:, None]


def l2_normalise(vectors: jax.Array) -> jax.Array:
    """Scale each row of ``[n, d]`` to length 1; rows shorter than 1e-12 are divided by 1e-12."""
    square = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    # The floor is applied under the root: the gradient of sqrt at 0 is infinite.
    return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
