"""Crystal graphs in which equivalent atoms, and equal edges, stand only once.

Most crystals repeat themselves within their cell: two thirds of the atoms in the cells of the
Materials Project are images of others under the crystal's symmetry. A network that knows no more of
an atom than its element, its neighbours and their distances gives equivalent atoms the same vector,
layer by layer (`equivalence`). So one atom of each kind, with its multiplicity, is all that has to
be computed: a *site*. Likewise a site's edges to equivalent neighbours at the same distance carry
one message, and stand once, with the number of them: a *bond*. Sums and means over atoms and edges
become weighted ones, and give the same results.

Where a network sees angles too, its triplets, pairs of edges, are merged in the same way.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from crysgnn_jax.graphs.equivalence import (
    FlatGraphs,
    FlatTriplets,
    atom_and_edge_colours,
    atom_colours,
    shells,
)
from crysgnn_jax.graphs.ragged import ragged

TOLERANCE = 1e-4
"""Distances, in Å, and cosines of angles that are less than this apart are taken as equal, and so
are chains of such, up to ten times as long (`equivalence.shells`). Symmetry-equivalent ones differ
by this much in structures of five or six decimals. Each bond has the mean of those it stands for,
so that predictions change by the square of it."""

N_CONNECTIONS = 5
"""More edges than this between two atoms count as this many, see `Reduction.pair_edges`."""

_LARGEST = np.iinfo(np.int64).max

_MAX_TRIPLETS = 300_000
"""Triplets to be reduced at a time, unless a crystal has more: some 50 MB."""


class Reduction(NamedTuple):
    """The reduced graphs of some crystals, one after the other.

    n crystals, N atoms, S sites, B bonds, P kinds of pairs, T triplets. Sites and bonds are counted
    within the crystal, sites in the order of their first atoms; bonds are sorted by receiver,
    distance and sender, triplets by second bond.

    Attributes:
      site: ``[N]`` int32, the site of each atom.
      n_sites: ``[n]`` int64.
      n_bonds: ``[n]`` int64.
      n_pairs: ``[n]`` int64.
      n_triplets: ``[n]`` int64, 0 without angles.
      site_species: ``[S]``, atomic number.
      multiplicity: ``[S]`` int32, atoms of the site.
      site_degree: ``[S]`` int32, bonds that the site receives.
      bond_senders: ``[B]`` int32, neighbouring site.
      bond_distances: ``[B]`` float32, Å.
      bond_multiplicity: ``[B]`` int32, equal edges of one atom of the receiving site.
      pair_receivers: ``[P]`` int32, site of the first atoms of a kind of pairs.
      pair_senders: ``[P]`` int32, site of the second ones.
      pair_edges: ``[P]`` int32, edges from second to first atom, 1 … `N_CONNECTIONS`.
      pair_multiplicity: ``[P]`` int32, ordered pairs of atoms of this kind.
      triplet_senders: ``[T]`` int32, the first bond.
      triplet_receivers: ``[T]`` int32, the second, which leaves the site the first arrives at.
      triplet_cosines: ``[T]`` float32, of the angle between them: 1 for going back.
      triplet_multiplicity: ``[T]`` int32, equal triplets of one edge of the second bond.
    """

    site: np.ndarray
    n_sites: np.ndarray
    n_bonds: np.ndarray
    n_pairs: np.ndarray
    n_triplets: np.ndarray
    site_species: np.ndarray
    multiplicity: np.ndarray
    site_degree: np.ndarray
    bond_senders: np.ndarray
    bond_distances: np.ndarray
    bond_multiplicity: np.ndarray
    pair_receivers: np.ndarray
    pair_senders: np.ndarray
    pair_edges: np.ndarray
    pair_multiplicity: np.ndarray
    triplet_senders: np.ndarray
    triplet_receivers: np.ndarray
    triplet_cosines: np.ndarray
    triplet_multiplicity: np.ndarray


_OF_TRIPLETS = (
    "triplet_senders",
    "triplet_receivers",
    "triplet_cosines",
    "triplet_multiplicity",
)


def reduce_graphs(
    n_nodes: np.ndarray,
    n_edges: np.ndarray,
    species: np.ndarray,
    degree: np.ndarray,
    senders: np.ndarray,
    distances: np.ndarray,
    vectors: np.ndarray | None = None,
    *,
    identity: bool = False,
) -> Reduction:
    """Reduce the graphs of n crystals, given as columns of a graph store.

    Args:
      n_nodes: ``[n]``, atoms of each crystal.
      n_edges: ``[n]``, edges of each crystal.
      species: ``[N]``, atomic numbers.
      degree: ``[N]``, edges that each atom receives; edges are sorted by receiver.
      senders: ``[E]``, counted within the crystal.
      distances: ``[E]``, Å.
      vectors: ``[E, 3]``, Å, from the receiver to the image of the sender, where the network sees
        angles; None where it does not.
      identity: merge nothing: the pairs and triplets of whole graphs.
    """
    first_atom = np.append(0, np.cumsum(n_nodes))
    first_edge = np.append(0, np.cumsum(n_edges))
    parts = []
    for start, stop in _spans(n_nodes, n_edges, with_angles=vectors is not None):
        atoms = slice(first_atom[start], first_atom[stop])
        edges = slice(first_edge[start], first_edge[stop])
        counts = n_nodes[start:stop], n_edges[start:stop]
        parts.append(
            _reduce(
                _flat(*counts, degree[atoms], senders[edges]),
                stop - start,
                species[atoms],
                distances[edges].astype(np.float64),
                None if vectors is None else vectors[edges].astype(np.float64),
                identity,
            )
        )
    return Reduction(*map(np.concatenate, zip(*parts)))


def _spans(
    n_nodes: np.ndarray, n_edges: np.ndarray, with_angles: bool
) -> Iterator[tuple[int, int]]:
    """Crystals to be reduced together, as (first, last + 1): all, or those of so many triplets."""
    if not with_angles:
        yield 0, len(n_nodes)
        return
    about = np.cumsum(n_edges.astype(np.int64) ** 2 // np.maximum(n_nodes, 1))
    start = 0
    while start < len(n_nodes):
        limit = (about[start - 1] if start else 0) + _MAX_TRIPLETS
        stop = max(start + 1, int(np.searchsorted(about, limit, side="right")))
        yield start, stop
        start = stop


def _flat(
    n_nodes: np.ndarray, n_edges: np.ndarray, degree: np.ndarray, senders: np.ndarray
) -> FlatGraphs:
    first_atom = np.cumsum(n_nodes) - n_nodes
    crystal, edge_crystal = (np.repeat(np.arange(len(n)), n) for n in (n_nodes, n_edges))
    receivers = np.repeat(np.arange(len(degree)), degree)
    return FlatGraphs(crystal, edge_crystal, receivers, senders + first_atom[edge_crystal])


def _reduce(
    graphs: FlatGraphs,
    n: int,
    species: np.ndarray,
    distances: np.ndarray,
    vectors: np.ndarray | None,
    identity: bool,
) -> Reduction:
    """As `reduce_graphs`, of the graphs of n crystals."""
    distance_shells = shells(distances, graphs.edge_crystal, TOLERANCE)
    if vectors is not None:
        first, second = _triplets(graphs, len(species))
        cosines = _cosines(vectors, first, second)
        crystal = graphs.edge_crystal[second]
        triplets = FlatTriplets(first, second, shells(1.0 + cosines, crystal, TOLERANCE))
    if identity:
        colours, edge_kind = np.arange(len(species)), np.arange(len(distances))
        # The order of the edges stays, whatever the shells.
        distance_shells = np.zeros_like(distance_shells)
    elif vectors is None:
        colours = atom_colours(species, graphs, distance_shells)
        edge_kind = np.zeros(len(distances), np.int64)
    else:
        colours, edge_colours = atom_and_edge_colours(species, graphs, distance_shells, triplets)
        edge_kind = np.unique(edge_colours, return_inverse=True)[1]

    # Sites, in the order of their first atoms, and so of their crystals.
    _, representatives, inverse = np.unique(colours, return_index=True, return_inverse=True)
    order = np.argsort(representatives)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    site, representatives = rank[inverse], representatives[order]
    multiplicity = np.bincount(site, minlength=len(order))
    site_crystal = graphs.crystal[representatives]
    n_sites, site_in_crystal = _counted(site_crystal, n)

    # Bonds: groups of edges.
    to_site, from_site = site[graphs.receivers], site[graphs.senders]
    bonds = _Groups.of(
        to_site,
        distance_shells,
        *(() if identity else (site_in_crystal[from_site],)),
        edge_kind,
    )
    bond_receivers = to_site[bonds.some]
    n_bonds, bond_in_crystal = _counted(site_crystal[bond_receivers], n)

    # Groups of edges join the same two atoms; groups of those are pairs of the same kind.
    joined = _Groups.of(graphs.receivers, graphs.senders)
    n_connections = np.minimum(joined.sizes, N_CONNECTIONS)
    ends = to_site[joined.some], site_in_crystal[from_site[joined.some]]
    pairs = _Groups.of(*ends, n_connections)
    pair_receivers = ends[0][pairs.some]

    if vectors is None:
        n_triplets: np.ndarray = np.zeros(n, np.int64)
        of_triplets = tuple(
            np.empty(0, kind) for kind in (np.int32, np.int32, np.float32, np.int32)
        )
    else:
        bond_of_edge = bonds.number()
        ends_of_triplet = bond_of_edge[second], bond_of_edge[first]
        merged = _Groups.of(*ends_of_triplet, triplets.shells)
        receiving, sending = (x[merged.some] for x in ends_of_triplet)
        n_triplets = np.bincount(site_crystal[bond_receivers[receiving]], minlength=n)
        of_triplets = (
            bond_in_crystal[sending],
            bond_in_crystal[receiving],
            merged.means(cosines).astype(np.float32),
            (merged.sizes // bonds.sizes[receiving]).astype(np.int32),
        )
    return Reduction(
        site=site_in_crystal[site],
        n_sites=n_sites,
        n_bonds=n_bonds,
        n_pairs=np.bincount(site_crystal[pair_receivers], minlength=n),
        n_triplets=n_triplets,
        site_species=species[representatives],
        multiplicity=multiplicity.astype(np.int32),
        site_degree=np.bincount(bond_receivers, minlength=len(order)).astype(np.int32),
        bond_senders=site_in_crystal[from_site[bonds.some]],
        bond_distances=bonds.means(distances).astype(np.float32),
        bond_multiplicity=(bonds.sizes // multiplicity[bond_receivers]).astype(np.int32),
        pair_receivers=site_in_crystal[pair_receivers],
        pair_senders=ends[1][pairs.some],
        pair_edges=n_connections[pairs.some].astype(np.int32),
        pair_multiplicity=pairs.sizes.astype(np.int32),
        **dict(zip(_OF_TRIPLETS, of_triplets)),
    )


def _triplets(graphs: FlatGraphs, n_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second edge of all triplets, ``[T]`` twice, by second edge; no edge of an atom to
    its own image with itself."""
    degree = np.bincount(graphs.receivers, minlength=n_atoms)
    arrivals = np.cumsum(degree) - degree
    lengths = degree[graphs.senders]
    second = np.repeat(np.arange(len(lengths)), lengths)
    first = ragged(arrivals[graphs.senders], lengths)
    different = first != second
    return first[different], second[different]


def _cosines(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``[T]``: of the angle between two edges at the atom where the first arrives, which sees that
    one along its vector and the second against it."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.clip(-np.einsum("td,td->t", unit[first], unit[second]), -1.0, 1.0)


def _counted(crystal: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """How many things each of n crystals has, ``[n]``, and their numbers within the crystal, int32;
    from the crystal of each, ascending."""
    counts = np.bincount(crystal, minlength=n)
    first = np.cumsum(counts) - counts
    return counts, (np.arange(len(crystal)) - first[crystal]).astype(np.int32)


class _Groups(NamedTuple):
    """Rows with equal keys, in the order of the keys.

    Attributes:
      rows: ``[n]``, row numbers, group by group.
      starts: ``[m]``, where the groups start.
    """

    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, *keys: np.ndarray) -> "_Groups":
        """By non-negative integers ``[n]``, the first key foremost."""
        joined, n_values = np.zeros(len(keys[0]), np.int64), 1
        for key in keys:
            n_keys = int(key.max(initial=0)) + 1
            if n_values * n_keys > _LARGEST:
                joined = np.unique(joined, return_inverse=True)[1]
                n_values = len(joined)
            joined = joined * n_keys + key
            n_values *= n_keys
        rows = np.argsort(joined, kind="stable")
        joined = joined[rows]
        return cls(rows, np.flatnonzero(np.append(True, joined[1:] != joined[:-1])[: len(rows)]))

    @property
    def some(self) -> np.ndarray:
        """``[m]``, a row of each group."""
        return self.rows[self.starts]

    @property
    def sizes(self) -> np.ndarray:
        """``[m]``"""
        return np.diff(np.append(self.starts, len(self.rows)))

    def number(self) -> np.ndarray:
        """``[n]``, the group of each row."""
        out = np.empty(len(self.rows), np.int64)
        out[self.rows] = np.repeat(np.arange(len(self.starts)), self.sizes)
        return out

    def means(self, values: np.ndarray) -> np.ndarray:
        """``[n]`` float64 → ``[m]``."""
        return (
            np.add.reduceat(values[self.rows], self.starts) / self.sizes if len(values) else values
        )
