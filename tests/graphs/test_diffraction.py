"""A powder pattern has its lines where Bragg's law puts them, and hardly sees a cell or noise."""

import numpy as np

from crysgnn_jax.graphs.diffraction import FIRST, apart, pattern
from crysgnn_jax.graphs.primitive import Cell
from toys import fcc, random_crystal, rocksalt

WIDTH = 0.02


def of(crystal):
    return pattern(Cell(crystal.lattice, crystal.frac_coords, crystal.species), WIDTH)


def test_lines_of_a_face_centred_lattice_are_at_the_roots_of_3_and_4():
    (found,) = of(fcc())
    places = FIRST * np.exp(WIDTH * np.arange(len(found)))
    # In units of the cube root of the volume per atom, a / 4^(1/3), over the spacing a / √N.
    lines = np.sqrt([3, 4]) / 4 ** (1 / 3)
    from_line = np.abs(np.log(places[:, None] / lines)).min(axis=1)
    assert lines[0] < places[-1] < lines[1]
    assert found[from_line < 0.01].min() > 1.0
    assert found[from_line > 0.08].max() < 0.01


def test_a_pattern_of_each_element_and_one_of_all_atoms():
    sodium, chlorine, both = of(rocksalt())
    assert np.allclose(sodium, chlorine, rtol=1e-3, atol=1e-5)  # the same lattice, shifted
    assert apart(of(rocksalt()), of(rocksalt(a=6.0))) < 1e-3
    assert not np.allclose(sodium, both, rtol=0.1)


def test_random_places_scatter_as_expected():
    found = np.mean([of(random_crystal(40, seed=k))[-1] for k in range(5)], axis=0)
    assert abs(found[-20:].mean() - 1) < 0.2


def test_noise_changes_a_pattern_little_and_another_structure_much():
    one, other = random_crystal(10, seed=1), random_crystal(10, seed=2)
    species = np.sort(one.species)
    noise = np.random.default_rng(0).normal(0, 0.01, (10, 3)) @ np.linalg.inv(one.lattice)
    ours = pattern(Cell(one.lattice, one.frac_coords, species), WIDTH)
    noisy = pattern(Cell(one.lattice, one.frac_coords + noise, species), WIDTH)
    theirs = pattern(Cell(other.lattice, other.frac_coords, species), WIDTH)
    assert apart(ours, noisy) < 0.03 < 0.5 < apart(ours, theirs)
