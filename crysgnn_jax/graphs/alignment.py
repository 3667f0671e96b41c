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

CLOSE = 0.1
"""Å, by which two atoms of a copy may miss each other more than two others do."""

_PROBES = 8
"""Atoms that are tried first."""

_AT_A_TIME = 1_000_000
"""Places that are compared at a time: 24 MB."""

_SMALL = 20_000
"""Up to so many pairs of atoms, all of them are compared; of more, a tree finds those that are
near."""

_MOST_TRIED = 300_000
"""Places of single atoms that are looked up in trees, a second or two. Two large cells that are not
told apart by then, such as steps of a simulation, are taken to be different."""


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
    n_pairs = int(alike.sum()) * int(counts.max())
    if n_pairs > _SMALL:
        # A copy is found where next to nothing else is near, before all that nearly coincides.
        return any(_large_can_be_aligned(first, second, bases, rare, x) for x in (CLOSE, 2 * MISS))
    n_bases = max(1, _AT_A_TIME // n_pairs)
    for some in np.split(bases, range(n_bases, len(bases), n_bases)):
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


def _large_can_be_aligned(
    first: Cell, second: Cell, bases: np.ndarray, order: np.ndarray, within: float
) -> bool:
    """`can_be_aligned` of cells of many atoms: one basis after the other, and one atom after the
    other until no shift is left.

    Args:
      first: as of `can_be_aligned`.
      second: likewise.
      bases: of the second, as of `_same_shape`.
      order: the first's atoms, those of the rarest element first.
      within: Å, along each axis, of where an atom should be, for a shift to stay.
    """
    # Half of what is usually imported with graphs, and few cells are so large.
    from scipy.spatial import cKDTree

    # In these coordinates an atom that is so near is within 1 along each axis.
    box = 1 / (within * np.linalg.norm(np.linalg.inv(first.lattice), axis=0))
    inside = lambda coords: (coords % 1.0 % 1.0) * box
    n_tried = 0
    for basis in bases:
        coords = second.frac_coords @ np.linalg.inv(basis)
        trees = {
            kind: cKDTree(inside(coords[second.species == kind]), boxsize=box)
            for kind in np.unique(second.species).tolist()
        }
        shifts = first.frac_coords[order[0]] - coords[second.species == first.species[order[0]]]
        for atom in order[1:].tolist():
            n_tried += len(shifts)
            if n_tried > _MOST_TRIED:
                return False
            tree, place = trees[int(first.species[atom])], first.frac_coords[atom]
            apart, _ = tree.query(inside(place - shifts), p=np.inf, distance_upper_bound=1.0)
            shifts = shifts[np.isfinite(apart)]
            if not len(shifts):
                break
        if any(_coincide(first, coords + shift, second.species) for shift in shifts):
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
        ours, theirs = first.frac_coords[first.species == kind], coords[species == kind]
        taken = []
        step = max(1, _AT_A_TIME // len(theirs))
        for start in range(0, len(ours), step):
            apart = ours[start : start + step, None] - theirs
            apart = (apart - np.round(apart)) @ first.lattice
            squares = (apart**2).sum(axis=2)
            nearest = np.argmin(squares, axis=1)
            # Neither the atom nor the mean of all misses by more.
            if squares.min(axis=1).max() > (2 * MISS) ** 2:
                return False
            taken.append(nearest)
            misses.append(apart[np.arange(len(nearest)), nearest])
        if len(np.unique(np.concatenate(taken))) < len(ours):
            return False
    found = np.concatenate(misses)
    return bool(np.linalg.norm(found - found.mean(axis=0), axis=1).max() <= MISS)
