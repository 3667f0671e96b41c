"""Space groups of textbook structures and of published crystals."""

import moyopy
import numpy as np
import pytest

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.table import CrystalTable
from crysgnn_jax.errors import InvalidCrystal
from crysgnn_jax.graphs import symmetry
from crysgnn_jax.graphs.symmetry import CRYSTAL_SYSTEMS, crystal_system, space_group_number
from golden_files import SHARED
from toys import rocksalt

PUBLISHED = SHARED / "data" / "mp_36k.npz"

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
HEXAGONAL = np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, 1.6]])


@pytest.mark.parametrize(
    "number, species, frac_coords, lattice",
    [
        (225, [11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 5.6 * FCC),
        (227, [6, 6], [[0, 0, 0], [0.25, 0.25, 0.25]], 3.6 * FCC),
        (216, [30, 16], [[0, 0, 0], [0.25, 0.25, 0.25]], 5.4 * FCC),
        (194, [12, 12], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]], 3.2 * HEXAGONAL),
        (
            221,
            [38, 22, 8, 8, 8],
            [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
            3.9 * np.eye(3),
        ),
        (
            1,
            [1, 2, 3],
            [[0, 0, 0], [0.1, 0.3, 0.4], [0.6, 0.25, 0.81]],
            [[5, 0, 0], [1, 6, 0], [2, 1, 7]],
        ),
    ],
    ids=["rock salt", "diamond", "zinc blende", "hcp", "perovskite", "no symmetry"],
)
@pytest.mark.parametrize("handedness", [1, -1])
def test_textbook_structures(number, species, frac_coords, lattice, handedness):
    mirror = np.diag([1, 1, handedness])
    crystal = Crystal("test", species, frac_coords, np.array(lattice) @ mirror)
    assert space_group_number(crystal, 0.01) == number


def test_tolerance_decides_about_small_distortions():
    coords = [[0, 0, 0], [0.5, 0.5, 0.51]]
    crystal = Crystal("test", [55, 17], coords, 4.1 * np.eye(3))
    assert space_group_number(crystal, 0.001) == 99  # P4mm: chlorine 0.04 Å off the centre
    assert space_group_number(crystal, 0.1) == 221


def caesium_chloride(length, species=(55, 17), shift=0.0):
    return Crystal("test", list(species), [[0, 0, 0], [0.5, 0.5, 0.5 + shift]], length * np.eye(3))


def test_crystals_of_one_prototype_are_searched_once(monkeypatch):
    searched = []
    search = symmetry._search
    monkeypatch.setattr(symmetry, "_known", {})
    monkeypatch.setattr(symmetry, "_search", lambda *of: searched.append(of) or search(*of))
    for length, species in ((4.1, (55, 17)), (3.9, (19, 9)), (4.5, (57, 7)), (3.1, (26, 13))):
        assert space_group_number(caesium_chloride(length, species), 0.01) == 221
    # The second is asked twice: with half of the tolerance and with twice as much.
    assert len(searched) == 3
    assert space_group_number(caesium_chloride(4.0, (55, 55)), 0.01) == 229
    assert len(searched) == 4


def test_a_distortion_near_the_tolerance_is_looked_at_in_each_crystal(monkeypatch):
    monkeypatch.setattr(symmetry, "_known", {})
    small, large = (caesium_chloride(length, shift=0.003) for length in (3.0, 6.0))
    # Chlorine is 0.009 and 0.018 Å off the centre.
    numbers = [space_group_number(crystal, 0.012) for crystal in (small, small, large, small)]
    fresh = [symmetry._search(crystal, 0.012) for crystal in (small, large)]
    assert fresh == [221, 99]
    assert numbers == [221, 221, 99, 221]


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published crystals of ../shared")
def test_what_is_known_of_prototypes_is_what_a_search_finds():
    source = CrystalTable(PUBLISHED)
    for item in source.items(0, 8000):
        crystal = source.decode(item)
        if len(crystal.species) <= symmetry.SMALL:
            assert space_group_number(crystal, 0.01) == symmetry._search(crystal, 0.01), crystal.id


def test_no_space_group():
    crystal = Crystal("test", [1, 1], [[0, 0, 0], [0, 0, 0]], 4.0 * np.eye(3))
    with pytest.raises(InvalidCrystal, match="test: no space group was found within 0.01 Å"):
        space_group_number(crystal, 0.01)


def test_crystal_systems():
    # First and last space group of each system, International Tables A.
    limits = np.array([[1, 2], [3, 15], [16, 74], [75, 142], [143, 167], [168, 194], [195, 230]])
    np.testing.assert_array_equal(crystal_system(limits), np.repeat(np.arange(7), 2).reshape(7, 2))
    assert CRYSTAL_SYSTEMS[crystal_system(225)] == "cubic"
    assert CRYSTAL_SYSTEMS[crystal_system(166)] == "trigonal"


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the table of published crystals")
def test_published_space_groups():
    table = np.load(PUBLISHED)
    offsets = np.concatenate([[0], np.cumsum(table["n_atoms"])])
    species, coords, lattices = table["numbers"], table["frac_coords"], table["lattice"]
    chosen = np.arange(0, len(lattices), len(lattices) // 500)
    found = []
    for k in chosen:
        atoms = slice(offsets[k], offsets[k + 1])
        found.append(
            space_group_number(Crystal(str(k), species[atoms], coords[atoms], lattices[k]), 0.01)
        )
    assert np.mean(np.array(found) == table["space_group"][chosen]) >= 0.995


def test_a_panic_of_the_search_is_about_one_crystal(monkeypatch):
    class PanicException(BaseException):
        """As of Rust: no Exception."""

    def panics(*_, **__):
        raise PanicException("called `Option::unwrap()`")

    monkeypatch.setattr(moyopy, "MoyoDataset", panics)
    monkeypatch.setattr(symmetry, "_known", {})
    with pytest.raises(InvalidCrystal, match="moyo gave up on it"):
        space_group_number(rocksalt(), 0.01)
