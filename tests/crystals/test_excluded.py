"""What is to be kept out of pre-training: crystals by name, or the test crystals of a split."""

import json

import pytest

import crysgnn_jax as cg
from crysgnn_jax.crystals.excluded import excluded
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from toys import collection, fcc, rocksalt


def ids(source):
    return [source.decode(item).id for item in source.items(0, len(source))]


@pytest.fixture
def split(tmp_path):
    """A split of 6 crystals in a table, and the path of its file."""
    write_table(tmp_path / "six.npz", collection(6))
    sides = {"train": ["c0", "c1", "c2"], "validation": ["c3"], "test": ["c5", "c4"]}
    (tmp_path / "splits.json").write_text(json.dumps(sides, indent=2))
    return tmp_path / "splits.json"


def test_crystals_are_read_as_anywhere(tmp_path):
    write_table(tmp_path / "six.npz", collection(6))
    assert len(excluded(tmp_path / "six.npz", read([fcc()]))) == 6
    assert ids(excluded([rocksalt()], read([fcc()]))) == ["NaCl"]


def test_the_test_crystals_of_a_split_are_found_in_the_data(split):
    data = read([*collection(6), rocksalt()])
    assert ids(excluded(str(split), data)) == ["c4", "c5"]


def test_the_data_of_the_run_beside_it_come_first(split):
    config = {"made_with": {"data": str(split.with_name("six.npz"))}}
    (split.with_name("config.json")).write_text(json.dumps(config))
    assert ids(excluded(split, read([fcc()]))) == ["c4", "c5"]


def test_the_data_may_be_named_with_it(split):
    found = excluded(f"{split}={split.with_name('six.npz')}", read([fcc()]))
    assert ids(found) == ["c4", "c5"]


def test_ids_that_are_nowhere_are_told_with_what_to_do(split):
    with pytest.raises(UserError, match="2 of its 2 test crystals, such as 'c5'.*=DATA"):
        excluded(split, read([fcc()]))


def test_a_split_without_test_crystals_is_refused(split):
    split.write_text(json.dumps({"train": ["c0"], "validation": ["c1"]}))
    with pytest.raises(UserError, match="names no test crystals"):
        excluded(split, read([fcc()]))
    with pytest.raises(UserError, match="names no test crystals"):
        excluded(f"{split.with_name('gone.json')}={split.with_name('six.npz')}", read([fcc()]))


def test_json_of_crystals_is_no_split(tmp_path):
    cell = {"lattice_mat": (4 * fcc().lattice).tolist(), "coords": [[0, 0, 0]], "elements": ["Al"]}
    cell["cartesian"] = False
    (tmp_path / "records.json").write_text(json.dumps([{"jid": "J-1", "atoms": cell}]))
    assert len(excluded(tmp_path / "records.json", read([fcc()]))) == 1
    assert cg.read is read
