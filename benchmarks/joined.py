"""Crystals of a store as one graph without padding, as PyTorch's graph packages take it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crysgnn_jax.graphs.store import GraphStore


class Joined(NamedTuple):
    """Crystals of a store as one graph.

    Attributes:
      atoms: ``[N]``, where their atoms stand in the store.
      edges: ``[E]``, where their edges stand.
      edge_index: ``[2, E]`` int64: neighbour j, centre i; centres ascend.
      crystal: ``[N]`` int64.
    """

    atoms: np.ndarray
    edges: np.ndarray
    edge_index: np.ndarray
    crystal: np.ndarray


def join(store: GraphStore, rows: Sequence[int]) -> Joined:
    """The crystals ``rows`` of a store, one after the other."""
    stretch = lambda offsets: np.concatenate([np.arange(*offsets[row : row + 2]) for row in rows])
    atoms, edges = stretch(store.node_offsets), stretch(store.edge_offsets)
    n_nodes = store.n_nodes[rows].astype(np.int64)
    first_atom = np.repeat(np.cumsum(n_nodes) - n_nodes, store.n_edges[rows])
    neighbours = store.senders[edges].astype(np.int64) + first_atom
    centres = np.repeat(np.arange(len(atoms)), store.degree[atoms])
    crystal = np.repeat(np.arange(len(rows)), n_nodes)
    return Joined(atoms, edges, np.stack([neighbours, centres]), crystal)
