"""All ordered pairs of atoms of the same crystal, in static shapes; of reduced graphs, all pairs of
nodes, which stand for pairs of atoms.

A crystal of n atoms has n² pairs, and they have to be laid out somehow. Here its atoms are cut
into tiles of `TILE`, and the pairs become ⌈n/TILE⌉² blocks of ``TILE × TILE``. A score for every
pair is then one small matrix product a block, and nothing of the size pairs × width exists.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph

from crysgnn_jax.graphs.reduction import N_CONNECTIONS
from crysgnn_jax.models.graph import masks, multiplicities, node_graph_ids

N_CONNECTION_CLASSES = N_CONNECTIONS + 1
"""Numbers of edges between two atoms that are told apart: 0 … 4, and 5 or more."""

TILE = 8
"""Atoms in a tile: about as many as a reduced crystal has, lest blocks be mostly padding."""


class PairBlocks(NamedTuple):
    """Where the pairs of a batch are.

    Attributes:
      rows: ``[n_block, TILE]`` int32, first atoms i of the pairs of a block.
      columns: ``[n_block, TILE]`` int32, second atoms j.
      mask: ``[n_block, TILE, TILE]`` float32, 1.0 where (i, j) is a pair of the batch.
    """

    rows: jax.Array
    columns: jax.Array
    mask: jax.Array


def _tiling(graph: jraph.GraphsTuple) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """First atom, atoms, tiles and first block of each crystal, ``[n_graph]`` each."""
    n_node = graph.n_node
    first_node = jnp.cumsum(n_node) - n_node
    real = n_node * masks(graph).graphs.astype(n_node.dtype)
    tiles = (real + TILE - 1) // TILE
    return first_node, real, tiles, jnp.cumsum(tiles**2) - tiles**2


def pair_blocks(graph: jraph.GraphsTuple, n_block: int) -> PairBlocks:
    """Lay out the pairs of a batch in ``n_block`` blocks.

    ``n_block``, static, must be at least the sum of ⌈n/TILE⌉² over the crystals: see
    `count_blocks`, by which batches are budgeted.
    """
    first_node, n_node, tiles, first_block = _tiling(graph)
    crystal = jnp.repeat(jnp.arange(len(tiles)), tiles**2, total_repeat_length=n_block)
    block = jnp.arange(n_block)
    inside = block - first_block[crystal]
    width = jnp.maximum(tiles[crystal], 1)
    offsets = jnp.arange(TILE)
    row = (inside // width)[:, None] * TILE + offsets
    column = (inside % width)[:, None] * TILE + offsets
    # jnp.repeat fills the unused blocks with the last crystal: they are masked.
    used = (block < jnp.sum(tiles**2))[:, None]
    row_mask = used & (row < n_node[crystal][:, None])
    column_mask = used & (column < n_node[crystal][:, None])
    start = first_node[crystal][:, None]
    return PairBlocks(
        jnp.where(row_mask, start + row, 0),
        jnp.where(column_mask, start + column, 0),
        (row_mask[:, :, None] & column_mask[:, None, :]).astype(jnp.float32),
    )


def count_blocks(n_node):
    """Blocks that a crystal of ``n_node`` atoms needs; integers or integer arrays."""
    return (-(-n_node // TILE)) ** 2


def count_edges(graph: jraph.GraphsTuple, n_block: int) -> jax.Array:
    """How many edges lead from atom j to atom i, for each pair (i, j) of a full graph.

    Returns:
      ``[n_block, TILE, TILE]`` float32 in the layout of `pair_blocks`: i is the receiver, the
      atom whose neighbours are counted, and j the neighbour.
    """
    slot = _slots(graph, graph.receivers, graph.senders)
    counts = jnp.zeros(n_block * TILE * TILE).at[slot].add(masks(graph).edges, mode="drop")
    return counts.reshape(n_block, TILE, TILE)


def connection_counts(graph: jraph.GraphsTuple, n_block: int) -> jax.Array:
    """How many pairs of atoms there are for each pair of nodes, by the edges that join them.

    Args:
      graph: full, or reduced with the kinds of pairs among its ``globals`` (see `Batcher`).
      n_block: as of `pair_blocks`.

    Returns:
      ``[n_block, N_CONNECTION_CLASSES, TILE, TILE]`` float32: class c counts the pairs with c edges
      from j to i, the last one those with as many or more. Of a full graph, one class of each pair
      is 1.
    """
    classes = N_CONNECTION_CLASSES
    if "pair_multiplicity" not in graph.globals:
        edges = jnp.minimum(count_edges(graph, n_block), classes - 1)[:, None]
        chosen = edges == jnp.arange(classes, dtype=edges.dtype)[:, None, None]
        return chosen * pair_blocks(graph, n_block).mask[:, None]
    found = graph.globals
    block, place = jnp.divmod(
        _slots(graph, found["pair_receivers"], found["pair_senders"]), TILE * TILE
    )
    joined = jnp.zeros((n_block, classes, TILE * TILE))
    joined = joined.at[block, found["pair_edges"], place].add(
        found["pair_multiplicity"], mode="drop"
    )
    joined = joined.reshape(n_block, classes, TILE, TILE)
    blocks = pair_blocks(graph, n_block)
    atoms = multiplicities(graph).nodes
    all_pairs = atoms[blocks.rows][:, :, None] * atoms[blocks.columns][:, None, :] * blocks.mask
    return joined.at[:, 0].set(all_pairs - jnp.sum(joined, axis=1))


def _slots(graph: jraph.GraphsTuple, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Where pairs of nodes of the same crystal stand in the flattened layout of `pair_blocks`."""
    first_node, _, tiles, first_block = _tiling(graph)
    crystal = node_graph_ids(graph)
    local = jnp.arange(len(crystal)) - first_node[crystal]
    owner, row, column = crystal[rows], local[rows], local[columns]
    block = first_block[owner] + (row // TILE) * tiles[owner] + column // TILE
    return (block * TILE + row % TILE) * TILE + column % TILE
