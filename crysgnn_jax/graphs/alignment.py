"""Whether one structure can be laid upon another, atom on atom.

Both are brought to their primitive cells, and one to the volume of the other. Every choice of
lattice vectors of the second whose lengths and angles are those of the first is tried, mirror
images included, with every shift that brings an atom of the rarest element onto one of its kind;
until all atoms come to lie on atoms of their element.
"""

import itertools

import numpy as np

from crysgnn_jax.graphs.neighbour_search import compact_lattice
from crysgnn_jax.graphs.primitive import Cell, primitive_cell

PRIMITIVE = 0.1
"""Å, by which atoms may miss each other under a translation that makes the cell smaller."""

MISS = 0.25
"""Å, by which an atom may miss the one that it is laid upon, once all are shifted such that they do
in the mean by none. Another order of the atoms on the same places misses by the distance of two."""

_PROBES = 8
"""Atoms that are tried first."""

_BASES = 64
"""Choices of lattice vectors that are tried at a time."""


def normal_cell(cell: Cell, tolerance: float = PRIMITIVE) -> Cell:
    """The primitive cell, with short vectors of a right-handed lattice.

    Args:
      cell: of the structure.
      tolerance: Å, as of `PRIMITIVE`.
    """
    lattice, coords, species = primitive_cell(cell, tolerance)
    compact = compact_lattice(lattice)
    compact *= np.sign(np.linalg.det(compact))
    return Cell(compact, np.linalg.solve(compact.T, (coords @ lattice).T).T, species)


def can_be_aligned(first: Cell, second: Cell, strain: float) -> bool:
    """Whether the second structure is the first one, slightly deformed.

    Args:
      first: as of `normal_cell`.
      second: likewise.
      strain: by which fraction lattice vectors may differ in length, at equal volumes.
    """
    if len(first.species) != len(second.species):
        # One is a superstructure, though atoms may be off by no more than they may miss.
        first, second = sorted((first, second), key=lambda cell: len(cell.species))
        second = normal_cell(second, MISS)
    if not np.array_equal(np.sort(first.species), np.sort(second.species)):
        return False
    ratio = np.linalg.det(first.lattice) / np.linalg.det(second.lattice)
    second = second._replace(lattice=second.lattice * np.cbrt(ratio))
    kinds, counts = np.unique(first.species, return_counts=True)
    # Of the rarest elements, for fewer places are tried.
    rare = np.argsort(counts[np.searchsorted(kinds, first.species)], kind="stable")
    origin, probes = rare[0], rare[1 : 1 + _PROBES]
    alike = second.species == first.species[origin]
    bases = _same_shape(first.lattice, second.lattice, strain)
    for some in np.split(bases, range(_BASES, len(bases), _BASES)):
        coords = second.frac_coords @ np.linalg.inv(some)  # [b, n, 3]
        shifts = first.frac_coords[origin] - coords[:, alike]
        basis, place = np.divmod(np.arange(shifts.shape[0] * shifts.shape[1]), shifts.shape[1])
        shifts = shifts[basis, place]
        for probe in probes.tolist():
            places = coords[:, second.species == first.species[probe]]
            near = _meets(first, probe, places[basis] + shifts[:, None])
            basis, shifts = basis[near], shifts[near]
        for k, shift in zip(basis.tolist(), shifts):
            if _coincide(first, coords[k] + shift, second.species):
                return True
    return False


def _same_shape(first: np.ndarray, second: np.ndarray, strain: float) -> np.ndarray:
    """``[b, 3, 3]``: multiples of the second lattice's vectors that are a cell with the lengths and
    angles of the first lattice's."""
    metric = first @ first.T
    lengths = np.sqrt(np.diag(metric))
    # A sphere that holds the longest reaches so many planes of the lattice.
    planes = np.linalg.norm(np.linalg.inv(second), axis=0)
    reach = (lengths.max() * (1 + strain) * planes).astype(int).tolist()
    steps = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    vectors = steps @ second
    norms = np.linalg.norm(vectors, axis=1)
    of_three = [np.flatnonzero(abs(norms / length - 1) <= strain) for length in lengths]
    products = lambda i, j: vectors[of_three[i]] @ vectors[of_three[j]].T - metric[i, j]
    fits = lambda i, j: abs(products(i, j)) <= 2 * strain * lengths[i] * lengths[j]
    fitting = fits(0, 1)[:, :, None] & fits(0, 2)[:, None] & fits(1, 2)
    chosen = np.stack([steps[of[k]] for of, k in zip(of_three, np.nonzero(fitting))], axis=1)
    volumes = np.einsum("ni,ni->n", chosen[:, 0], np.cross(chosen[:, 1], chosen[:, 2]))
    return chosen[abs(volumes) == 1]


def _meets(first: Cell, atom: int, places: np.ndarray) -> np.ndarray:
    """``[s]`` bool, in which of the arrangements ``[s, n, 3]`` of the atoms of its element one of
    them comes near an atom of the first structure."""
    apart = first.frac_coords[atom] - places
    apart -= np.round(apart)
    apart = apart @ first.lattice
    # The atom that was laid upon another may miss it as well.
    return ((apart * apart).sum(axis=2) <= (2 * MISS) ** 2).any(axis=1)


def _coincide(first: Cell, coords: np.ndarray, species: np.ndarray) -> bool:
    """Whether each atom of the first structure has one of its element at ``coords`` ``[n, 3]`` to
    itself, up to the mean miss."""
    misses = []
    for kind in np.unique(species).tolist():
        ours = first.frac_coords[first.species == kind]
        apart = ours[:, None] - coords[species == kind]
        apart = (apart - np.round(apart)) @ first.lattice
        nearest = np.argmin((apart**2).sum(axis=2), axis=1)
        if len(np.unique(nearest)) < len(nearest):
            return False
        misses.append(apart[np.arange(len(nearest)), nearest])
    found = np.concatenate(misses)
    return bool(np.linalg.norm(found - found.mean(axis=0), axis=1).max() <= MISS)
