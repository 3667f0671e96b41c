"""The same structure is found in whatever cell; another one is not taken for it."""

import dataclasses

import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.graphs import duplicates
from crysgnn_jax.graphs.duplicates import look_alikes, same_structures
from toys import fcc, perovskite, random_crystal, rocksalt

GOLD, COPPER = 79, 29


def first_of(crystals, tmp_path):
    """For each crystal, the id of the first that is the same structure; where structures that look
    alike are not the same, pairs of (look-alike, same)."""
    store = cg.build_store(cg.crystal_list(crystals), cache=tmp_path)
    assert not store.skipped
    alike = look_alikes(store)
    same = same_structures(store, alike)
    if np.array_equal(alike, same):
        return store.ids[same].tolist()
    return list(zip(store.ids[alike].tolist(), store.ids[same].tolist()))


def supercell(crystal, id, times=(2, 1, 1)):
    """The crystal in a larger cell."""
    shifts = np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), -1).reshape(-1, 3)
    coords = (crystal.frac_coords[None] + shifts[:, None]).reshape(-1, 3) / np.array(times)
    lattice = crystal.lattice * np.array(times)[:, None]
    return Crystal(id, np.tile(crystal.species, len(shifts)), coords, lattice)


def l1_0(id="L1_0", a=3.85):
    """Layers of two elements along [001] of an fcc lattice: 4 of 12 neighbours are like."""
    coords = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal(id, [GOLD, GOLD, COPPER, COPPER], coords, a * np.eye(3))


def l1_1(id="L1_1", a=3.85):
    """Layers along [111]: the same distances, 6 of 12 neighbours are like."""
    lattice = a / 2 * np.array([[2, 1, 1], [1, 2, 1], [1, 1, 2]])
    return Crystal(id, [GOLD, COPPER], [[0, 0, 0], [0.5, 0.5, 0.5]], lattice)


def test_the_cell_does_not_matter(tmp_path):
    one = random_crystal(5, seed=3, id="one")
    order = np.random.default_rng(0).permutation(5)
    shuffled = dataclasses.replace(
        one,
        id="shuffled",
        species=one.species[order],
        frac_coords=one.frac_coords[order] + [0.3, 0.1, 0.7],
    )
    mirrored = dataclasses.replace(one, id="mirrored", lattice=one.lattice * [1, 1, -1])
    other_cell = dataclasses.replace(
        one,
        id="other cell",
        lattice=np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ one.lattice,
        frac_coords=one.frac_coords @ np.linalg.inv([[1, 0, 0], [1, 1, 0], [0, 0, 1]]),
    )
    crystals = [one, supercell(one, "twice"), shuffled, mirrored, other_cell]
    assert first_of(crystals, tmp_path) == ["one"] * 5


def zinc_sulphide(layers, id):
    """Close-packed layers ABC… of one element, each with one of another above it: SiC."""
    a, c = 3.08, 2.515
    lattice = np.array([[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c * len(layers)]])
    place = {"A": (0, 0), "B": (1 / 3, 2 / 3), "C": (2 / 3, 1 / 3)}
    coords = [
        (*place[layer], (k + z) / len(layers)) for z in (0, 0.75) for k, layer in enumerate(layers)
    ]
    return Crystal(id, [14] * len(layers) + [6] * len(layers), coords, lattice)


def test_polytypes_look_alike_and_are_not_the_same(tmp_path):
    stacks = [zinc_sulphide(*x) for x in (("AB", "2H"), ("ABC", "3C"), ("ABCABC", "3C again"))]
    found = first_of(stacks, tmp_path)
    assert found == [("2H", "2H"), ("2H", "3C"), ("2H", "3C")]


def test_small_differences_are_none_and_large_ones_are(tmp_path):
    cells = [rocksalt(a=a, id=f"{a}") for a in (5.64, 5.70, 5.84)]  # 1.1 % and 3.5 % longer
    assert first_of(cells, tmp_path) == ["5.64", "5.64", "5.84"]


def test_a_chain_of_small_steps_is_no_group(tmp_path):
    cells = [rocksalt(a=a, id=f"{a}") for a in (5.64, 5.73, 5.82)]
    assert first_of(cells, tmp_path) == ["5.64", "5.64", "5.82"]


def test_an_order_of_elements_is_told_where_all_distances_agree(tmp_path):
    found = first_of([l1_0(), l1_1(), supercell(l1_1(), "again", (1, 2, 3))], tmp_path)
    assert found == ["L1_0", "L1_1", "L1_1"]


def test_other_elements_and_formulas_are_others(tmp_path):
    cells = [fcc(species=13, id="Al"), fcc(species=47, id="Ag"), perovskite(), rocksalt()]
    assert first_of(cells, tmp_path) == ["Al", "Ag", "SrTiO3", "NaCl"]


@pytest.mark.parametrize("many", [3, 10_000])
def test_a_tree_finds_what_all_pairs_do(tmp_path, monkeypatch, many):
    monkeypatch.setattr(duplicates, "_MANY", many)
    lengths = [3.5, 3.9, 4.3, 3.53, 3.91, 4.8, 3.5, 4.31]
    cells = [fcc(a=a, id=f"{k}") for k, a in enumerate(lengths)]
    assert first_of(cells, tmp_path) == ["0", "1", "2", "0", "1", "5", "0", "2"]


def test_atoms_with_few_neighbours_or_none_are_compared_too(tmp_path):
    far = [Crystal(id, [2], [[0, 0, 0]], a * np.eye(3)) for id, a in (("x", 9), ("y", 9.1))]
    assert first_of([*far, fcc(a=20, species=10, id="Ne")], tmp_path) == ["x", "x", "Ne"]
