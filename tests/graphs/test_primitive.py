"""Primitive cells of supercells, of cells with a motif, and of cells that are primitive already."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.graphs import symmetry
from crysgnn_jax.graphs.primitive import Cell, primitive_cell
from toys import perovskite


def cell_of(atoms: Atoms) -> Cell:
    return Cell(np.array(atoms.cell), atoms.get_scaled_positions(wrap=False), atoms.numbers)


SKEWED = [[2, 1, 0], [0, 3, 1], [1, 0, 2]]


@pytest.mark.parametrize(
    "atoms, n_primitive",
    [
        (bulk("Cu", cubic=True), 1),
        (bulk("Si", cubic=True) * (3, 2, 4), 2),
        (make_supercell(bulk("NaCl", "rocksalt", 5.64), SKEWED), 2),
        (make_supercell(bulk("Mg"), SKEWED), 2),
        (bulk("Cu") * (5, 1, 1), 1),
    ],
)
def test_supercells_are_reduced(atoms, n_primitive):
    found = primitive_cell(cell_of(atoms), 0.01)
    assert len(found.species) == n_primitive
    volume = abs(np.linalg.det(found.lattice))
    assert volume / n_primitive == pytest.approx(atoms.get_volume() / len(atoms))
    # Every atom of the supercell lies on one of the cell's.
    coords = atoms.positions @ np.linalg.inv(found.lattice)
    for number, position in zip(atoms.numbers, coords):
        apart = found.frac_coords[found.species == number] - position
        apart -= np.round(apart)
        assert np.linalg.norm(apart @ found.lattice, axis=1).min() < 1e-8


def test_atoms_may_miss_each_other_by_the_tolerance_and_no_more():
    atoms = bulk("Si", cubic=True) * (2, 2, 2)
    atoms.positions[7, 0] += 0.005
    assert len(primitive_cell(cell_of(atoms), 0.01).species) == 2
    assert len(primitive_cell(cell_of(atoms), 0.001).species) == 64


def test_primitive_cells_stay():
    crystal = perovskite()
    cell = Cell(crystal.lattice, crystal.frac_coords, crystal.species)
    assert primitive_cell(cell, 0.01) is cell
    one_swapped = bulk("Cu", cubic=True) * (2, 2, 2)
    one_swapped.numbers[0] = 47
    assert len(primitive_cell(cell_of(one_swapped), 0.01).species) == 32


@pytest.mark.parametrize("name, number", [("Si", 227), ("Mg", 194)])
def test_large_cells_have_the_space_group_of_their_primitive_one(name, number):
    atoms = bulk(name) * (8, 7, 6)
    assert len(atoms) > symmetry.LARGE
    assert symmetry.space_group_number(Crystal.from_ase(atoms, "x"), 0.01) == number
