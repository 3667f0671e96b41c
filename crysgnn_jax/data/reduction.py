"""Crystal graphs in which equivalent atoms, and equal edges, stand only once.

Most crystals repeat themselves within their cell: two thirds of the atoms in the cells of the
Materials Project are images of others under the crystal's symmetry. A network that knows no more of
an atom than its element and the distances to its neighbours gives equivalent atoms the same vector,
layer by layer. So one atom of each kind, with its multiplicity, is all that has to be computed: a
*site*. Likewise a site's edges to equivalent neighbours at the same distance carry one message,
and stand once, with the number of them: a *bond*. Sums and means over atoms and edges become
weighted ones, and no number changes.

Equivalence is read off the graph itself, by colour refinement (Weisfeiler and Leman 1968): atoms
start with their element as colour, and two atoms keep the same colour as long as they have the same
number of neighbours of each colour at each distance. That is the coarsest partition under which the
above is exact, so it also holds where the space group was missed, or the graph is not quite
symmetric. Distances count as equal up to `TOLERANCE`; a bond has the mean of those it stands for.
"""

from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-4
"""Å. Symmetry-equivalent distances differ by up to this in structures of five or six decimals; with
means in their place, what a network computes changes by the square of it."""

N_CONNECTIONS = 5
"""More edges than this between two atoms count as this many, see `Reduction.pair_edges`."""


class Reduction(NamedTuple):
    """The reduced graphs of some crystals, one after the other.

    n crystals, N atoms, S sites, B bonds, P kinds of pairs. Sites are counted within the crystal,
    in the order of their first atoms; bonds are sorted by receiver, distance and sender.

    Attributes:
      site: ``[N]`` int32, the site of each atom.
      n_sites: ``[n]`` int64.
      n_bonds: ``[n]`` int64.
      n_pairs: ``[n]`` int64.
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
    """

    site: np.ndarray
    n_sites: np.ndarray
    n_bonds: np.ndarray
    n_pairs: np.ndarray
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


def reduce_graphs(
    n_nodes: np.ndarray,
    n_edges: np.ndarray,
    species: np.ndarray,
    degree: np.ndarray,
    senders: np.ndarray,
    distances: np.ndarray,
    tolerance: float = TOLERANCE,
) -> Reduction:
    """Reduce the graphs of n crystals, given as columns of a graph store.

    Args:
      n_nodes: ``[n]``, atoms of each crystal.
      n_edges: ``[n]``, edges of each crystal.
      species: ``[N]``, atomic numbers.
      degree: ``[N]``, edges that each atom receives; edges are sorted by receiver.
      senders: ``[E]``, counted within the crystal.
      distances: ``[E]``, Å.
      tolerance: Å, up to which distances are equal.
    """
    n_atoms, n_crystals = len(species), len(n_nodes)
    crystal = np.repeat(np.arange(n_crystals), n_nodes)
    crystal_of_edge = np.repeat(np.arange(n_crystals), n_edges)
    first_atom = np.cumsum(n_nodes) - n_nodes
    receivers = np.repeat(np.arange(n_atoms), degree)
    senders = senders + first_atom[crystal_of_edge]
    shells = _shells(distances, crystal_of_edge, tolerance)

    colours = _refined_colours(species, crystal, receivers, senders, shells)
    _, representatives, inverse = np.unique(colours, return_index=True, return_inverse=True)
    # Sites in the order of their first atoms, and so of their crystals.
    order = np.argsort(representatives)
    representatives = representatives[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    site = rank[inverse]
    multiplicity = np.bincount(site, minlength=len(order))
    crystal_of_site = crystal[representatives]
    n_sites = np.bincount(crystal_of_site, minlength=n_crystals)
    first_site = np.cumsum(n_sites) - n_sites
    within = lambda sites: (sites - first_site[crystal_of_site[sites]]).astype(np.int32)

    # Bonds: groups of edges.
    to_site, from_site = site[receivers], site[senders]
    rows, starts = _grouped(to_site, shells, within(from_site))
    ends = np.append(starts, len(rows))
    members, some = np.diff(ends), rows[starts]
    sums = np.diff(np.append(0.0, np.cumsum(distances[rows], dtype=np.float64))[ends])
    bond_receivers, bond_senders = to_site[some], from_site[some]

    # Pairs: groups of edges join the same two atoms; groups of those are of the same kind.
    rows, starts = _grouped(receivers, senders - first_atom[crystal_of_edge])
    some_edge = rows[starts]
    n_connections = np.minimum(np.diff(np.append(starts, len(rows))), N_CONNECTIONS)
    first, second = to_site[some_edge], from_site[some_edge]
    rows, starts = _grouped(first, within(second), n_connections)
    kind = rows[starts]
    return Reduction(
        site=within(site),
        n_sites=n_sites,
        n_bonds=np.bincount(crystal_of_site[bond_receivers], minlength=n_crystals),
        n_pairs=np.bincount(crystal_of_site[first[kind]], minlength=n_crystals),
        site_species=species[representatives],
        multiplicity=multiplicity.astype(np.int32),
        site_degree=np.bincount(bond_receivers, minlength=len(order)).astype(np.int32),
        bond_senders=within(bond_senders),
        bond_distances=(sums / members).astype(np.float32),
        bond_multiplicity=(members // multiplicity[bond_receivers]).astype(np.int32),
        pair_receivers=within(first[kind]),
        pair_senders=within(second[kind]),
        pair_edges=n_connections[kind].astype(np.int32),
        pair_multiplicity=np.diff(np.append(starts, len(rows))).astype(np.int32),
    )


def _shells(distances: np.ndarray, crystal: np.ndarray, tolerance: float) -> np.ndarray:
    """``[E]``: numbers of groups of equal distances, counted within each crystal, nearest first.

    A group ends at a gap of more than the tolerance, and is cut where it grows wider than that.
    """
    distances = distances.astype(np.float64)
    # One key, since a sort by two takes three times as long; it loses 1e-12 Å.
    order = np.argsort(crystal * (1.0 + distances.max(initial=0.0)) + distances)
    sorted_distances, sorted_crystal = distances[order], crystal[order]
    first = np.append(True, np.diff(sorted_crystal) != 0)[: len(order)]
    gap = first | np.append(True, np.diff(sorted_distances) > tolerance)[: len(order)]
    group_start = np.flatnonzero(gap)
    beyond = sorted_distances - np.repeat(
        sorted_distances[group_start], np.diff(np.append(group_start, len(order)))
    )
    cell = np.floor(beyond / tolerance)
    number = np.cumsum(gap | np.append(True, np.diff(cell) != 0)[: len(order)])
    crystal_start = np.flatnonzero(first)
    number -= np.repeat(number[crystal_start], np.diff(np.append(crystal_start, len(order))))
    shells = np.empty(len(order), np.int64)
    shells[order] = number
    return shells


def _refined_colours(
    species: np.ndarray,
    crystal: np.ndarray,
    receivers: np.ndarray,
    senders: np.ndarray,
    shells: np.ndarray,
) -> np.ndarray:
    """``[N]`` uint64: atoms of equal colour are equivalent.

    Colours are hashes: of 64 bits, so that two of a million atoms get the same one by chance once
    in 10⁷ times.
    """
    edge_ends = np.cumsum(np.bincount(receivers, minlength=len(species)))
    shells = _hash(shells.astype(np.uint64))
    colours = _hash(_hash(crystal.astype(np.uint64)) + species.astype(np.uint64))
    n_colours = 0
    while (n := len(np.unique(colours))) > n_colours:
        n_colours = n
        # A sum does not depend on the order of the neighbours; it wraps around, as a hash may.
        sums = np.append(np.uint64(0), np.cumsum(_hash(shells + colours[senders])))[
            np.append(0, edge_ends)
        ]
        colours = _hash(colours + np.diff(sums))
    return colours


def _hash(values: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64 numbers (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _grouped(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers sorted by non-negative integers, the first key foremost, and where in them each
    group of equal keys starts."""
    joined = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        joined = joined * (int(key.max(initial=0)) + 1) + key
    rows = np.argsort(joined, kind="stable")
    joined = joined[rows]
    return rows, np.flatnonzero(np.append(True, joined[1:] != joined[:-1])[: len(rows)])
