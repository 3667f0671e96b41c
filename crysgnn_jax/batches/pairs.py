"""All ordered pairs of nodes of the same crystal, in static shapes.

A crystal of n nodes has n² pairs, and they have to be laid out somehow. Here its nodes are cut
into tiles of `TILE`, and the pairs become ⌈n/TILE⌉² blocks of ``TILE × TILE``. A score for every
pair is then one small matrix product a block, and nothing of the size pairs × width exists. A batch
says of each block to which crystal it belongs; the rest follows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from crysgnn_jax.batches.views import Batch, Rows
from crysgnn_jax.graphs.reduction import N_CONNECTIONS

N_CONNECTION_CLASSES = N_CONNECTIONS + 1
"""Numbers of edges between two atoms that are told apart: 0 … 4, and 5 or more."""

TILE = 8
"""Nodes in a tile: about as many as a reduced crystal has, lest blocks be mostly padding."""


class PairBlocks(NamedTuple):
    """Where the pairs of a batch are.

    Attributes:
      rows: ``[n_block, TILE]`` int32, first nodes i of the pairs of a block.
      columns: ``[n_block, TILE]`` int32, second nodes j.
      crystals: ``[n_block]`` int32, the crystal that each block belongs to.
      pairs: ``[n_block, TILE, TILE]``, where (i, j) is a pair: the ordered pairs of atoms that it
        stands for.
    """

    rows: jax.Array
    columns: jax.Array
    crystals: jax.Array
    pairs: Rows


def count_blocks(n_node):
    """Blocks that a crystal of ``n_node`` nodes needs; integers or integer arrays."""
    return (-(-n_node // TILE)) ** 2


def _tiling(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """First node, nodes, tiles and first block of each crystal, ``[n_graph]`` each."""
    n_node = jnp.asarray(batch.graph.n_node)
    first_node = jnp.cumsum(n_node) - n_node
    real = n_node * batch.crystals.weights.astype(n_node.dtype)
    tiles = -(-real // TILE)
    return first_node, real, tiles, jnp.cumsum(tiles**2) - tiles**2


def pair_blocks(batch: Batch) -> PairBlocks:
    """The layout of the pairs of a batch, in as many blocks as it carries."""
    first_node, n_node, tiles, first_block = _tiling(batch)
    crystal = jnp.asarray(batch.graph.edges["blocks"]["crystals"])
    inside = jnp.arange(len(crystal)) - first_block[crystal]
    width = jnp.maximum(tiles[crystal], 1)
    offsets = jnp.arange(TILE)
    row = (inside // width)[:, None] * TILE + offsets
    column = (inside % width)[:, None] * TILE + offsets
    # Unused blocks belong to padding, which has no node here.
    in_row, in_column = (index < n_node[crystal][:, None] for index in (row, column))
    start = first_node[crystal][:, None]
    rows = jnp.where(in_row, start + row, 0)
    columns = jnp.where(in_column, start + column, 0)
    atoms = batch.atoms.weights
    weights = (atoms[rows] * in_row)[:, :, None] * (atoms[columns] * in_column)[:, None, :]
    return PairBlocks(rows, columns, crystal, Rows(weights, batch.axis))


def connection_counts(batch: Batch, blocks: PairBlocks) -> jax.Array:
    """How many pairs of atoms there are for each pair of nodes, by the edges that join them.

    Returns:
      ``[n_block, N_CONNECTION_CLASSES, TILE, TILE]`` float32: class c counts the pairs with c edges
      from j to i, the last one those with as many or more. Of a whole graph, one class of each pair
      is 1.
    """
    n_block, classes = len(blocks.crystals), N_CONNECTION_CLASSES
    found = batch.graph.edges["pairs"]
    block, place = jnp.divmod(_slots(batch, found["receivers"], found["senders"]), TILE * TILE)
    joined = jnp.zeros((n_block, classes, TILE * TILE))
    joined = joined.at[block, found["n_edges"], place].add(found["count"], mode="drop")
    joined = joined.reshape(n_block, classes, TILE, TILE)
    return joined.at[:, 0].set(blocks.pairs.weights - jnp.sum(joined, axis=1))


def _slots(batch: Batch, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Where pairs of nodes of the same crystal stand in the flattened layout of `pair_blocks`."""
    first_node, _, tiles, first_block = _tiling(batch)
    crystal = batch.crystal_of_node
    local = jnp.arange(len(crystal)) - first_node[crystal]
    owner, row, column = crystal[rows], local[rows], local[columns]
    block = first_block[owner] + (row // TILE) * tiles[owner] + column // TILE
    return (block * TILE + row % TILE) * TILE + column % TILE
