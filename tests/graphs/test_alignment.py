"""A structure is laid upon itself in any cell and as its mirror image, and upon no other."""

import numpy as np
import pytest

from crysgnn_jax.graphs.alignment import can_be_aligned, normal_cell
from crysgnn_jax.graphs.primitive import Cell
from toys import perovskite, random_crystal


def normal(crystal, lattice=None, coords=None, species=None):
    return normal_cell(
        Cell(
            crystal.lattice if lattice is None else lattice,
            crystal.frac_coords if coords is None else coords,
            crystal.species if species is None else np.asarray(species),
        )
    )


@pytest.mark.parametrize("crystal", [perovskite(), random_crystal(9, seed=4)])
def test_another_cell_origin_and_hand_are_the_same_structure(crystal):
    change = np.array([[1, 2, 0], [0, 1, 1], [0, 0, -1]])
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    coords = crystal.frac_coords @ np.linalg.inv(change) + [0.1, 0.7, 0.2]
    other = normal(crystal, change @ crystal.lattice @ turn, coords)
    assert can_be_aligned(normal(crystal), other, 0.01)
    mirrored = normal(crystal, change @ crystal.lattice @ -turn, coords)
    assert can_be_aligned(normal(crystal), mirrored, 0.01)


def test_a_deformed_lattice_is_taken_up_to_the_strain():
    crystal = random_crystal(9, seed=4)
    deformed = normal(crystal, crystal.lattice @ np.diag([1.02, 1.0, 1 / 1.02]))
    assert can_be_aligned(normal(crystal), deformed, 0.03)
    assert not can_be_aligned(normal(crystal), deformed, 0.005)


def test_swapped_elements_and_moved_atoms_are_another_structure():
    crystal = random_crystal(9, seed=4)
    swapped = crystal.species.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert not can_be_aligned(normal(crystal), normal(crystal, species=swapped), 0.03)
    moved = crystal.frac_coords.copy()
    moved[3] += [0.1, 0, 0]
    assert not can_be_aligned(normal(crystal), normal(crystal, coords=moved), 0.03)
    assert not can_be_aligned(normal(crystal), normal(random_crystal(8, seed=4)), 0.03)
