"""Crystal tables: what is written is read, and damage is named."""

import pickle

import numpy as np
import pytest

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.table import CrystalTable, write_table
from crysgnn_jax.errors import InvalidCrystal, UserError
from golden_files import SHARED


def three_crystals():
    """Iron (1 atom), rock salt (2) and a made-up cell of 3 atoms, each with other labels."""
    return [
        Crystal("Fe", [26], [[0, 0, 0]], 2.5 * np.eye(3), {"gap": 0.0}, {"split": "train"}),
        Crystal("NaCl", [11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.0 * np.eye(3), {"gap": 5.0}),
        Crystal(
            "ABC",
            [22, 22, 8],
            [[0, 0, 0], [0.25, 0.5, 0.5], [0.75, 0.125, 0]],
            [[4, 0, 0], [1, 5, 0], [0, -1, 6]],
            {"energy": -1.5},
            {"split": "test", "note": "made up"},
        ),
    ]


def arrays_of_two(**changes):
    """The arrays of a table of two crystals with one and two atoms, with some changed."""
    arrays = {
        "ids": np.array(["a", "b"]),
        "n_atoms": np.array([1, 2]),
        "numbers": np.array([26, 11, 17], np.uint8),
        "frac_coords": np.array([[0, 0, 0], [0, 0, 0], [0.5, 0.5, 0.5]], np.float32),
        "lattice": np.stack([3 * np.eye(3), 4 * np.eye(3)]),
    }
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.npz"


def save(path, **changes):
    np.savez(path, **arrays_of_two(**changes))
    return path


def decoded(table):
    return [table.decode(item) for item in table.items(0, len(table))]


def test_what_is_written_is_read(path):
    crystals = three_crystals()
    write_table(path, crystals)
    table = CrystalTable(path)
    assert table.name == str(path)
    assert table.ids().tolist() == ["Fe", "NaCl", "ABC"]
    assert sorted(table.label_names) == ["energy", "gap"]
    assert table.labelled("gap").tolist() == [True, True, False]
    assert table.labelled("energy").tolist() == [False, False, True]
    assert table.labelled("colour").tolist() == [False, False, False]
    for read, written in zip(decoded(table), crystals, strict=True):
        assert read.id == written.id
        assert read.labels == written.labels
        assert read.tags == written.tags
        np.testing.assert_array_equal(read.species, written.species)
        np.testing.assert_array_equal(read.frac_coords, written.frac_coords)
        np.testing.assert_array_equal(read.lattice, written.lattice)


def test_items_of_a_range_survive_pickling(path):
    write_table(path, three_crystals())
    table = CrystalTable(path)
    items, decode = pickle.loads(pickle.dumps((table.items(1, 3), table.decode)))
    assert [decode(item).reduced_formula for item in items] == ["Cl1Na1", "O1Ti2"]


def test_same_crystals_give_the_same_bytes_and_other_labels_another_fingerprint(tmp_path):
    crystals = three_crystals()
    for name in "xy":
        write_table(tmp_path / f"{name}.npz", crystals)
    write_table(tmp_path / "z.npz", [*crystals[:2], Crystal("ABC", [8], [[0, 0, 0]], np.eye(3))])
    x, y, z = (CrystalTable(tmp_path / f"{name}.npz").fingerprint() for name in "xyz")
    assert x == y != z


def test_other_arrays_are_labels_or_tags_by_their_type(path):
    save(
        path,
        gap=np.array([1.5, np.nan], np.float32),
        split=np.array(["", "val"]),
        group=np.array([7, 8]),
        conflict=np.array([True, False]),
        space_group=np.array([229, 225]),
    )
    first, second = decoded(CrystalTable(path, "mine"))
    assert dict(first.labels) == {"gap": 1.5}
    assert dict(first.tags) == {"group": "7", "conflict": "True"}
    assert dict(second.labels) == {}
    assert dict(second.tags) == {"split": "val", "group": "8", "conflict": "False"}


def test_only_the_second_crystal_of_an_id_is_invalid(path):
    save(path, ids=np.array(["a", "a"]))
    table = CrystalTable(path)
    first, second = table.items(0, 2)
    assert table.decode(first).id == "a"
    with pytest.raises(InvalidCrystal, match="a: duplicate id 'a'"):
        table.decode(second)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"gap": np.array([1.0, -np.inf])}, "b: its gap is infinite"),
        ({"numbers": np.array([26, 11, 300])}, "b: atomic number 300"),
        ({"n_atoms": np.array([3, 0])}, "b: it has no atoms"),
    ],
)
def test_a_bad_row_leaves_the_others_usable(path, changes, reason):
    table = CrystalTable(save(path, **changes))
    first, second = table.items(0, 2)
    assert table.decode(first).id == "a"
    with pytest.raises(InvalidCrystal, match=reason):
        table.decode(second)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lattice": None}, "array 'lattice' is missing"),
        ({"n_atoms": np.array([1, 3])}, "array 'numbers' has shape .3., but 2 ids and 4 atoms"),
        ({"n_atoms": np.array([4, -1])}, "array 'n_atoms' has a negative count"),
        ({"n_atoms": np.array([2**64 - 2, 5], np.uint64)}, "array 'n_atoms' has a count of 1844"),
        ({"n_atoms": np.array([1.0, 2.0])}, "array 'n_atoms' has the wrong type float64"),
        ({"ids": np.array(["a", "b", "c"])}, "array 'n_atoms' has shape .2., but 3 ids"),
        ({"frac_coords": np.zeros((3, 2))}, "array 'frac_coords' has shape .3, 2."),
        ({"lattice": np.zeros((2, 3))}, "array 'lattice' has shape .2, 3."),
        ({"gap": np.zeros(3)}, "array 'gap' has shape .3.; a label or tag has one value"),
        ({"gap": np.zeros(2, complex)}, "array 'gap' has type complex128"),
        ({"gap": np.array([None, 1.0])}, "array 'gap' is unreadable"),
    ],
)
def test_arrays_that_do_not_fit_are_named(path, changes, message):
    save(path, **changes)
    with pytest.raises(UserError, match=f"table.npz: {message}"):
        CrystalTable(path)


def test_damaged_files_are_named(path):
    write_table(path, three_crystals())
    whole = path.read_bytes()
    middle = len(whole) // 3
    damaged = [
        b"",
        b"id,value\n1,2\n",
        whole[:100],
        whole[:-30],
        whole[:middle] + bytes(20) + whole[middle + 20 :],
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match="table.npz: .* is (not a readable|unreadable)"):
            CrystalTable(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="table.npz: it is not a readable .npz file"):
        CrystalTable(path)


def test_a_table_of_far_more_than_its_size_is_refused(path):
    with open(path, "wb") as file:
        np.savez_compressed(file, numbers=np.zeros(30_000_000, np.uint8))
    with pytest.raises(UserError, match="its arrays are over 200 times its size"):
        CrystalTable(path)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.npz: no such file"):
        CrystalTable(tmp_path / "nowhere.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match="folder.npz: it is not a readable"):
        CrystalTable(tmp_path / "folder.npz")


def test_a_label_cannot_take_the_name_of_another_array(path):
    for labels, tags in [({"lattice": 1.0}, {}), ({"x": 1.0}, {"x": "y"})]:
        crystal = Crystal("a", [1], [[0, 0, 0]], np.eye(3), labels, tags)
        with pytest.raises(UserError, match="names two arrays"):
            write_table(path, [crystal])
    with pytest.raises(UserError, match="no crystals"):
        write_table(path, [])


def test_large_table_of_others():
    path = SHARED / "data" / "mp_36k.npz"
    if not path.exists():
        pytest.skip("the Materials Project tables are not here")
    table = CrystalTable(path)
    with np.load(path) as arrays:
        ends, ids = np.cumsum(arrays["n_atoms"]), arrays["ids"]
        numbers, gap = arrays["numbers"], arrays["band_gap"]
    assert len(table) == len(ids)
    assert table.labelled("band_gap").sum() == np.isfinite(gap).sum()
    for k in (1, 20_000, len(ids) - 1):
        (item,) = table.items(k, k + 1)
        crystal = table.decode(item)
        assert crystal.id == ids[k]
        assert crystal.labels.get("band_gap", np.nan) == pytest.approx(gap[k], nan_ok=True)
        np.testing.assert_array_equal(crystal.species, numbers[ends[k - 1] : ends[k]])
