"""How a crystal looks to a network: a few dozen numbers that do not depend on the choice of cell.

All that a network knows of a crystal is which elements its atoms and their neighbours are, and how
far apart. So a crystal's *look* is, of each element, the distances of its atoms to their first,
second, … neighbour and what share of the neighbours is of which element, both as means over the
atoms; beside these, the volume per atom. None of this changes with the cell, its origin, its size
(supercells) or the order of the atoms, and all of it changes little where the atoms move little.

Looks are read off the reduced graphs (`reduction`), by whoever has made them; and are compared in
`duplicates`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from crysgnn_jax.graphs.ragged import ragged
from crysgnn_jax.graphs.store import GraphStore

N_NEIGHBOURS = 12
"""Neighbours of an atom that are compared."""

DISPLACEMENT = 0.03
"""Å, by which mean distances may differ beside the tolerance. Where atoms are off by 0.01 Å in each
direction, as after a relaxation that ended early, the distance of two of them is by 0.014 Å, and
the shortest of twelve equal ones by 0.023 Å."""

SHARE_TOLERANCE = 0.05
"""Of the share of neighbours of an element, 0 to 1. Where the last of an atom's neighbours are in
the middle of a shell, a small distortion changes which of them count."""

WIDE_SHARE_TOLERANCE = 0.25
"""The same where structures are compared next, which tell for sure."""

COLUMNS = (
    *("lattice", "n_nodes", "n_sites", "n_bonds", "site_species", "multiplicity", "site_degree"),
    *("bond_senders", "bond_distances", "bond_multiplicity"),
)
"""What looks are read off, as of `reduction.Reduction` and `store`."""

_FADE = 1.1
"""A neighbour's weight in the shares falls to 0 at this many times the distance of the last one."""

_TIED = 5e-4
"""Ratio of distances, less one, up to which they are tied."""


class Looks(NamedTuple):
    """The looks of n crystals, one after the other.

    A crystal of m elements has 1 + 12 m + m² numbers, elements by atomic number: the volume per
    atom, Å³; of each element the mean distances to the neighbours, Å; of each the shares of the
    elements among the neighbours.

    Attributes:
      counts: ``[n]`` int64, numbers of each crystal.
      values: ``[Σ counts]`` float32.
    """

    counts: np.ndarray
    values: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """``[len(rows), d]`` float32: the looks of crystals that have as many numbers, d."""
        first = (np.cumsum(self.counts) - self.counts)[rows]
        return self.values[first[:, None] + np.arange(int(self.counts[rows[0]]))]


def scaled(
    looks: np.ndarray, tolerance: float, share_tolerance: float = SHARE_TOLERANCE
) -> np.ndarray:
    """``[n, d]``, the same such that looks which differ by up to 1 everywhere are alike; the volume
    first.

    Args:
      looks: ``[n, d]``, of crystals of as many elements each.
      tolerance: of lengths: cube roots of the volume, and distances less `DISPLACEMENT`, may differ
        by this fraction.
      share_tolerance: by which shares may differ.
    """
    m = round((looks.shape[1] + 35) ** 0.5) - 6
    n_distances = N_NEIGHBOURS * m
    volume, distances, shares = np.split(looks, [1, 1 + n_distances], axis=1)
    return np.hstack(
        [
            np.log(volume) / (3 * tolerance),
            np.log(tolerance * distances + DISPLACEMENT) / tolerance,
            shares / share_tolerance,
        ]
    )


def looks_of_store(store: GraphStore, rows: np.ndarray) -> Looks:
    """The looks of some crystals of a store, whose graphs must be of the `nearest` kind: others do
    not reach as many neighbours."""
    columns = {"lattice": store.lattice[rows], "n_nodes": store.n_nodes[rows]}
    for offsets, count, names in (
        (store.site_offsets, "n_sites", ("site_species", "multiplicity", "site_degree")),
        (store.bond_offsets, "n_bonds", ("bond_senders", "bond_distances", "bond_multiplicity")),
    ):
        columns[count] = np.diff(offsets)[rows]
        places = ragged(offsets[rows], columns[count])
        columns |= {name: getattr(store, name)[places] for name in names}
    return looks_of(columns, store.settings.cutoff)


def looks_of(columns: Mapping[str, np.ndarray], cutoff: float) -> Looks:
    """The looks of the crystals of a chunk, or of a shard.

    Args:
      columns: those of `COLUMNS`, of any integer and float types.
      cutoff: Å, of the graphs: it stands for the distance of a neighbour that an atom has not.

    Example:
      ``looks_of(shard.columns, 8.0).values``
    """
    n_sites, n_bonds = (np.asarray(columns[name], np.int64) for name in ("n_sites", "n_bonds"))
    n = len(n_sites)
    crystal = np.repeat(np.arange(n), n_sites)
    species = np.asarray(columns["site_species"], np.int64)
    multiplicity = np.asarray(columns["multiplicity"], np.float64)
    elements, element = np.unique(crystal * 128 + species, return_inverse=True)
    n_elements = np.bincount(elements // 128, minlength=n)

    # Edges of each site in the order of their distances, its bonds as often as they stand for.
    degree = np.asarray(columns["site_degree"], np.int64)
    site_of_bond = np.repeat(np.arange(len(species)), degree)
    first_site = np.cumsum(n_sites) - n_sites
    sender = np.asarray(columns["bond_senders"], np.int64) + np.repeat(first_site, n_bonds)
    counts = np.asarray(columns["bond_multiplicity"], np.int64)
    edge = np.repeat(np.arange(len(counts)), counts)
    site = site_of_bond[edge]
    n_edges = np.bincount(site, minlength=len(species))
    nth = np.arange(len(edge)) - (np.cumsum(n_edges) - n_edges)[site]
    distance = np.asarray(columns["bond_distances"], np.float64)[edge]

    table = np.full((len(species), N_NEIGHBOURS), cutoff, np.float64)
    near = nth < N_NEIGHBOURS
    table[site[near], nth[near]] = distance[near]
    total = np.bincount(element, multiplicity)
    means = np.stack(
        [np.bincount(element, multiplicity * column) / total for column in table.T], axis=1
    )

    # What is tied with the last neighbour shares its place: a graph may keep all of these, and
    # where the atoms are slightly off, it keeps some.
    n_near = np.minimum(n_edges, N_NEIGHBOURS)
    last = np.zeros(len(species))
    last[site[near]] = distance[near]
    ratio = distance / last[site]
    tied = abs(ratio - 1) <= _TIED
    n_before = np.bincount(site, ratio < 1 - _TIED, minlength=len(species))
    n_tied = np.bincount(site, tied, minlength=len(species))
    part = np.where(tied, ((n_near - n_before) / np.maximum(n_tied, 1))[site], ratio < 1)
    weight = (1 - ratio / _FADE) ** 2 * part * multiplicity[site]
    rank = np.arange(len(elements)) - (np.cumsum(n_elements) - n_elements)[elements // 128]
    m = n_elements[crystal[site]]
    first_share = np.cumsum(n_elements**2) - n_elements**2
    pair = first_share[crystal[site]] + rank[element[site]] * m + rank[element[sender[edge]]]
    shares = np.bincount(pair, weight, minlength=int((n_elements**2).sum()))
    of_all = np.bincount(element[site], weight, minlength=len(elements))
    of_all = np.repeat(np.where(of_all > 0, of_all, 1.0), n_elements[elements // 128])

    lattice = np.asarray(columns["lattice"], np.float64).reshape(n, 3, 3)
    parts = (
        (np.ones(n, np.int64), np.abs(np.linalg.det(lattice)) / np.asarray(columns["n_nodes"])),
        (N_NEIGHBOURS * n_elements, means.ravel()),
        (n_elements**2, shares / of_all),
    )
    sizes = np.array([lengths for lengths, _ in parts])
    total_of = sizes.sum(axis=0)
    values = np.empty(int(total_of.sum()), np.float32)
    begin = np.cumsum(total_of) - total_of
    for lengths, part in parts:
        values[ragged(begin, lengths)] = part
        begin = begin + lengths
    return Looks(total_of, values)
