"""The primitive cell of a large one, so that a perfect supercell costs what its cell costs."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # whose graphs are made with this module
    from scipy.spatial import cKDTree

    from crysgnn_jax.graphs.store import GraphStore


class Cell(NamedTuple):
    """A crystal's structure alone.

    Attributes:
      lattice: ``[3, 3]``, lattice vectors as rows, Å.
      frac_coords: ``[n, 3]``.
      species: ``[n]``, atomic numbers.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    species: np.ndarray


def primitive_cell(cell: Cell, tolerance: float) -> Cell:
    """A cell without translations of its own, of the same crystal.

    The shortest vector between two atoms of the rarest element that maps every atom onto one of its
    element is made a lattice vector; then the same with what is left. Each finding at least halves
    the cell.

    Args:
      cell: any cell.
      tolerance: Å, by which atoms may miss each other.
    """
    while True:
        found = _translation(cell, tolerance)
        if found is None:
            return cell
        cell = _divided(cell, *found)


def n_primitive(store: "GraphStore", row: int) -> int:
    """Atoms of the primitive cell of a crystal in a store, with the store's tolerance."""
    begin, end = store.node_offsets[row : row + 2]
    cell = Cell(
        np.array(store.lattice[row]),
        np.array(store.frac_coords[begin:end]),
        np.array(store.species[begin:end]),
    )
    return len(primitive_cell(cell, store.settings.symprec).species)


def _translation(cell: Cell, tolerance: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The shortest translation, ``[3]`` fractional, and ``[n]``, the atom that each comes to."""
    kinds, counts = np.unique(cell.species, return_counts=True)
    if np.gcd.reduce(counts) == 1:
        return None  # a translation would map the atoms of every element in equal orbits
    alike = np.flatnonzero(cell.species == kinds[np.argmin(counts)])
    shifts = cell.frac_coords[alike[1:]] - cell.frac_coords[alike[0]]
    shifts -= np.round(shifts)
    order = np.argsort(np.linalg.norm(shifts @ cell.lattice, axis=1), kind="stable")
    points = np.column_stack([cell.frac_coords % 1.0 % 1.0, 10.0 * cell.species])
    # Half of what a worker would need to start, and few crystals are large enough to need it.
    from scipy.spatial import cKDTree

    # Periodic in space; elements stay apart. A zero is no period.
    tree = cKDTree(points, boxsize=[1, 1, 1, 0])
    first = alike[: min(len(alike), 4)]
    for shift in shifts[order]:
        if _targets(cell, tree, points, first, shift, tolerance) is None:
            continue
        targets = _targets(cell, tree, points, np.arange(len(points)), shift, tolerance)
        if targets is not None and len(np.unique(targets)) == len(points):
            return shift, targets
    return None


def _targets(
    cell: Cell,
    tree: "cKDTree",
    points: np.ndarray,
    atoms: np.ndarray,
    shift: np.ndarray,
    tolerance: float,
) -> np.ndarray | None:
    """Where ``atoms`` come to lie; None where one of them meets no atom of its element."""
    moved = points[atoms].copy()
    moved[:, :3] = (moved[:, :3] + shift) % 1.0 % 1.0
    _, targets = tree.query(moved)
    difference = points[targets] - moved
    if np.abs(difference[:, 3]).max() > 0:
        return None
    apart = difference[:, :3] - np.round(difference[:, :3])
    if np.linalg.norm(apart @ cell.lattice, axis=1).max() > tolerance:
        return None
    return targets


def _divided(cell: Cell, shift: np.ndarray, targets: np.ndarray) -> Cell:
    """The cell whose lattice has the translation as well."""
    # One atom of each orbit, and how long the orbits are.
    first, image, length = np.arange(len(targets)), targets, 1
    while image[0] != 0:
        first, image, length = np.minimum(first, image), targets[image], length + 1
    kept = np.flatnonzero(first == np.arange(len(targets)))
    basis = _rows([*(length * np.eye(3, dtype=int)), np.round(length * shift).astype(int)]) / length
    coords = cell.frac_coords[kept] @ np.linalg.inv(basis)
    return Cell(basis @ cell.lattice, coords - np.floor(coords), cell.species[kept])


def _rows(vectors: list[np.ndarray]) -> np.ndarray:
    """``[3, 3]``, a basis of the lattice of whole-number vectors: their Hermite normal form."""
    rows = [vector.copy() for vector in vectors]
    basis = []
    for column in range(3):
        while True:
            left = [row for row in rows if row[column] != 0]
            if len(left) == 1:
                break
            least = min(left, key=lambda row: abs(row[column]))
            for row in left:
                if row is not least:
                    row -= (row[column] // least[column]) * least
        basis.append(left[0])
        rows = [row for row in rows if row is not left[0]]
    return np.array(basis)
