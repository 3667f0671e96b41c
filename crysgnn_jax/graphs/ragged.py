"""Crystal graphs as ragged columns: many crystals, one after the other.

A graph may be *reduced* (`reduction`): a node then stands for all equivalent atoms, and an edge for
all equal edges of one such atom. A whole graph is the reduction by the identity, in which each
stands for itself, so that batches are made of either in the same way.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """Things that crystals have some of, one crystal after the other: L in all.

    Attributes:
      offsets: ``[n + 1]``: those of crystal k are ``offsets[k:k + 2]``.
      columns: name → ``[L]``.
      of_nodes: names of the columns that hold numbers of nodes, counted within the crystal.
      of_edges: likewise of edges.
    """

    offsets: np.ndarray
    columns: Mapping[str, np.ndarray]
    of_nodes: Sequence[str] = ()
    of_edges: Sequence[str] = ()

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """``[n]`` int64, how many each crystal has."""
        return np.diff(self.offsets)

    def of_batch(
        self, rows: np.ndarray, first_node: np.ndarray, first_edge: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The columns of the crystals ``rows``, with nodes and edges counted over all of these.

        Args:
          rows: of the store.
          first_node: ``[len(rows)]`` int32, number of the first node of each crystal.
          first_edge: ``[len(rows)]`` int32, likewise of edges.
        """
        lengths = self.lengths[rows]
        where = ragged(self.offsets[rows], lengths)
        out = {name: column[where] for name, column in self.columns.items()}
        for names, first in ((self.of_nodes, first_node), (self.of_edges, first_edge)):
            for name in names:
                out[name] = out[name] + np.repeat(first, lengths)
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class Graphs:
    """The graphs of n crystals, one after the other: N nodes, E edges.

    Attributes:
      node_offsets: ``[n + 1]``: the nodes of crystal k are ``node_offsets[k:k + 2]``.
      edge_offsets: ``[n + 1]``, the same for its edges.
      species: ``[N]``, atomic numbers.
      degree: ``[N]``, edges that each node receives; edges are sorted by receiver.
      senders: ``[E]``, counted within the crystal.
      node_counts: ``[N]``, atoms that each node stands for.
      edge_counts: ``[E]``, edges of one atom that each edge stands for.
      edges: name → ``[E, …]``, features of the edges.
      atom_offsets: ``[n + 1]``: the atoms of crystal k are ``atom_offsets[k:k + 2]``.
      site: ``[all atoms]``, the node that stands for each, counted within the crystal.
      lists: name → what gives the list of that name, see `list`.
    """

    node_offsets: np.ndarray
    edge_offsets: np.ndarray
    species: np.ndarray
    degree: np.ndarray
    senders: np.ndarray
    node_counts: np.ndarray
    edge_counts: np.ndarray
    edges: Mapping[str, np.ndarray]
    atom_offsets: np.ndarray
    site: np.ndarray
    lists: Mapping[str, Callable[[], Ragged]]

    @functools.cached_property
    def n_nodes(self) -> np.ndarray:
        """``[n]`` int64, nodes of each crystal."""
        return np.diff(self.node_offsets)

    @functools.cached_property
    def n_edges(self) -> np.ndarray:
        """``[n]`` int64, edges of each crystal."""
        return np.diff(self.edge_offsets)

    @functools.cached_property
    def _listed(self) -> dict[str, Ragged]:
        return {}

    def list(self, name: str) -> Ragged:
        """What else a batch may carry: ``pairs`` of nodes, or ``triplets`` of edges.

        ``pairs``: ``receivers`` and ``senders``, nodes; ``n_edges`` int32, edges from second to
        first atom, 1 … `reduction.N_CONNECTIONS`; ``count``, ordered pairs of atoms of this kind.
        Pairs without an edge are left out. ``triplets``: ``senders`` and ``receivers``, edges of
        which the second leaves the atom that the first arrives at, receivers ascending;
        ``cosines`` of the angle between them, 1 for going back; ``count``, equal triplets of one
        edge of the second.
        """
        if name not in self._listed:
            self._listed[name] = self.lists[name]()
        return self._listed[name]

    def of_nodes(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values of the atoms of the crystals ``rows``, ``[n_atom, d]``, as values of their nodes,
        ``[n_node, d]``: the mean over the atoms that each stands for."""
        node = self.nodes_of_atoms(rows)
        order = np.argsort(node, kind="stable")
        counts = np.bincount(node)
        starts = np.cumsum(counts) - counts
        return np.add.reduceat(values[order], starts) / counts[:, None].astype(values.dtype)

    def nodes_of_atoms(self, rows: np.ndarray) -> np.ndarray:
        """The node that stands for each atom of the crystals ``rows``, both counted over the nodes
        and atoms of these crystals alone."""
        n_nodes = self.n_nodes[rows]
        n_atoms = self.atom_offsets[rows + 1] - self.atom_offsets[rows]
        site = self.site[ragged(self.atom_offsets[rows], n_atoms)]
        return site + np.repeat(np.cumsum(n_nodes) - n_nodes, n_atoms)


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The positions start … start + length − 1 of every range, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
