"""The same structure is found in whatever cell; another one is not taken for it."""

import dataclasses

import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.graphs import diffraction, duplicates
from crysgnn_jax.graphs.duplicates import cell_of, first_of_each, look_alikes, same_structures
from crysgnn_jax.graphs.looks import looks_of, looks_of_store
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
    cells = [rocksalt(a=a, id=f"{a}") for a in (5.64, 5.72, 5.80)]
    assert first_of(cells, tmp_path) == ["5.64", "5.64", "5.8"]


def test_an_order_of_elements_is_told_where_all_distances_agree(tmp_path):
    found = first_of([l1_0(), l1_1(), supercell(l1_1(), "again", (1, 2, 3))], tmp_path)
    assert found == ["L1_0", "L1_1", "L1_1"]


def lithium_ferrite(spinel, id, a=8.2):
    """LiFeO2, a rock salt of two cations: in every second layer along [111], or as Ti and Mg are
    in the spinel's places 16c and 16d."""
    sites = np.stack(np.meshgrid(*3 * [np.arange(4)], indexing="ij"), -1).reshape(-1, 3)
    total = sites.sum(axis=1)
    corner = np.array([[2, 2, 2], [2, 1, 1], [1, 2, 1], [1, 1, 2]])
    shifts = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]])
    places = {tuple(x) for x in ((corner[:, None] + shifts) % 4).reshape(-1, 3).tolist()}
    iron = np.array([tuple(x) in places for x in sites.tolist()]) if spinel else total // 2 % 2 == 1
    species = np.where(total % 2 == 1, 8, np.where(iron, 26, 3))
    return Crystal(id, species, sites / 4, a * np.eye(3))


def test_an_order_of_elements_is_told_where_powder_patterns_agree(tmp_path):
    crystals = [lithium_ferrite(False, "layered"), lithium_ferrite(True, "like spinel")]
    store = cg.build_store(cg.crystal_list(crystals), cache=tmp_path)
    patterns = [diffraction.pattern(cell_of(store, row), 0.02)[None] for row in range(2)]
    assert diffraction.apart(*patterns) < 0.003
    assert first_of([*crystals, *map(disturbed, crystals)], tmp_path) == [
        ("layered", "layered"), ("layered", "like spinel"),
        ("layered", "layered"), ("layered", "like spinel"),
    ]  # fmt: skip


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


def silicon_carbide():
    """Polytypes: the same nearest neighbours, other layers farther off."""
    stacks = {"3C": "ABC", "2H": "AB", "4H": "ABCB", "6H": "ABCACB", "15R": "ABCACBCABACABCB"}
    return [zinc_sulphide(layers, name) for name, layers in stacks.items()]


def disturbed(crystal, seed=0, noise=0.01):
    """The crystal in another cell of twice the size, from another origin, in another order, its
    atoms off by ``noise`` Å in each direction."""
    random = np.random.default_rng(seed)
    twice = supercell(crystal, f"{crystal.id} again", (1, 2, 1))
    change = np.array([[1, 1, 0], [0, 1, 0], [1, 0, -1]])
    order = random.permutation(len(twice.species))
    coords = twice.frac_coords + random.normal(0, noise, (len(order), 3)) @ np.linalg.inv(
        twice.lattice
    )
    coords = coords @ np.linalg.inv(change) + random.random(3)
    return dataclasses.replace(
        twice,
        species=twice.species[order],
        frac_coords=coords[order],
        lattice=change @ twice.lattice,
    )


def others():
    """Structures that are no copies of each other, though some look alike."""
    olivine = random_crystal(14, seed=8, id="triclinic")
    return [*silicon_carbide(), l1_0(), l1_1(), perovskite(), rocksalt(), fcc(), olivine]


def test_disturbed_copies_are_found_and_polytypes_kept_apart(tmp_path):
    crystals = others()
    found = first_of([*crystals, *(disturbed(x, k) for k, x in enumerate(crystals))], tmp_path)
    same = [same for _, same in found]
    assert same == 2 * [x.id for x in crystals]


def test_swapped_sites_and_expanded_cells_are_other_structures(tmp_path):
    swapped = Crystal("swapped", [22, 38, 8, 8, 8], perovskite().frac_coords, perovskite().lattice)
    larger = perovskite(a=3.9 * 1.05 ** (1 / 3), id="larger")
    found = first_of([perovskite(), swapped, larger, disturbed(larger)], tmp_path)
    assert found == ["SrTiO3", "swapped", "larger", "larger"]


def test_a_relaxed_twin_of_another_shape_is_found(tmp_path):
    one = random_crystal(12, seed=5, id="one")
    strain = np.eye(3) + np.diag([0.006, -0.004, 0.002])
    noise = np.random.default_rng(1).normal(0, 0.001, (12, 3))
    relaxed = dataclasses.replace(
        one, id="relaxed", lattice=one.lattice @ strain, frac_coords=one.frac_coords + noise
    )
    assert first_of([one, relaxed], tmp_path) == ["one", "one"]


def test_a_wider_tolerance_joins_more(tmp_path):
    store = cg.build_store(
        cg.crystal_list([rocksalt(), rocksalt(a=5.64 * 1.02, id="larger")]), cache=tmp_path
    )
    looks = looks_of_store(store, np.arange(2))
    first = lambda tolerance: first_of_each(
        store.reduced_formula, looks, lambda row: cell_of(store, row), tolerance
    )
    assert first(0.015).tolist() == [0, 1]
    assert first(0.03).tolist() == [0, 0]


def test_looks_are_read_off_the_columns_of_a_chunk_of_any_integer_type(tmp_path):
    store = cg.build_store(cg.crystal_list(others()), cache=tmp_path)
    columns = {
        "lattice": np.array(store.lattice),
        "n_nodes": store.n_nodes.astype(np.uint16),
        "n_sites": np.diff(store.site_offsets).astype(np.uint16),
        "n_bonds": np.diff(store.bond_offsets).astype(np.uint16),
        "site_species": np.array(store.site_species),
        "bond_distances": np.array(store.bond_distances),
        **{
            name: np.asarray(getattr(store, name)).astype(np.uint16)
            for name in ("multiplicity", "site_degree", "bond_senders", "bond_multiplicity")
        },
    }
    looks = looks_of(columns, store.settings.cutoff)
    apart = looks_of_store(store, np.array([7, 3]))
    assert looks.counts[7] == 1 + 3 * 12 + 9
    assert apart.values.tolist() == [*looks.of(np.array([7]))[0], *looks.of(np.array([3]))[0]]
    sodium_chloride = looks.of(np.array([8]))[0]
    assert sodium_chloride[0] == pytest.approx(5.64**3 / 8)
    assert sodium_chloride[1:7] == pytest.approx(5.64 / 2)


def test_the_first_ones_can_be_fixed_and_each_is_then_compared_with(tmp_path):
    cells = [rocksalt(a=a, id=f"{a}") for a in (5.64, 5.72, 5.80)]
    store = cg.build_store(cg.crystal_list(cells), cache=tmp_path)
    looks = looks_of_store(store, np.arange(3))
    first = lambda n: first_of_each(
        store.reduced_formula, looks, lambda row: cell_of(store, row), n_fixed=n
    )
    assert first(0).tolist() == [0, 0, 2]
    assert first(2).tolist() == [0, 1, 1]
