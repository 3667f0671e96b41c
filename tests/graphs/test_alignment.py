"""A structure is laid upon itself in any cell and as its mirror image, and upon no other."""

import numpy as np
import pytest

from crysgnn_jax.graphs import alignment
from crysgnn_jax.graphs.alignment import can_be_aligned, normal_cell
from crysgnn_jax.graphs.primitive import Cell
from toys import fcc, perovskite, random_crystal


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


def frame(seed, size=7, noise=0.2):
    """Atoms of a lattice, each off by chance: a step of a simulation."""
    random = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*3 * [np.arange(size)], indexing="ij"), -1).reshape(-1, 3) / size
    lattice = size * fcc().lattice
    off = random.normal(0, noise, places.shape) @ np.linalg.inv(lattice)
    return Cell(lattice, (places + off) % 1.0, np.full(len(places), 14))


@pytest.mark.parametrize("small", [0, 10**9])
def test_a_copy_of_a_large_cell_is_told_from_another_step(monkeypatch, small):
    """By a tree and by all pairs; few of 343 atoms of one element coincide."""
    monkeypatch.setattr(alignment, "_SMALL", small)
    monkeypatch.setattr(alignment, "_AT_A_TIME", 50_000)
    size = 4 if small else 7
    one, other = frame(0, size), frame(1, size)
    random = np.random.default_rng(2)
    order = random.permutation(len(one.species))
    off = random.normal(0, 0.01, one.frac_coords.shape) @ np.linalg.inv(one.lattice)
    coords = (one.frac_coords + off)[order][:, [1, 2, 0]] + [0.2, 0.5, 0.9]
    copy = Cell(one.lattice[[1, 2, 0]], coords, one.species[order])
    assert len(normal_cell(one).species) == size**3
    assert can_be_aligned(normal_cell(one), normal_cell(copy), 0.01)
    assert not can_be_aligned(normal_cell(one), normal_cell(other), 0.01)


def test_a_superstructure_that_misses_by_little_is_the_structure():
    """Of which only the smaller cell is seen as such."""
    simple = perovskite()
    double = np.concatenate([simple.frac_coords, simple.frac_coords + [1, 0, 0]]) / [2, 1, 1]
    double[4] += [0, 0.15 / simple.lattice[1, 1], 0]
    twice = Cell(simple.lattice * [[2], [1], [1]], double, np.tile(simple.species, 2))
    assert len(normal_cell(twice).species) == 10
    assert can_be_aligned(normal_cell(twice), normal(simple), 0.01)
    assert can_be_aligned(normal(simple), normal_cell(twice), 0.01)
    double[4] += [0, 0.35 / simple.lattice[1, 1], 0]
    farther = twice._replace(frac_coords=double)
    assert not can_be_aligned(normal_cell(farther), normal(simple), 0.01)
