"""What is to be kept out of pre-training: crystals by name, or the test crystals of a split."""

import json

import pytest
from ase.build import bulk
from ase.io import write

import crysgnn_jax as cg
from crysgnn_jax.crystals.excluded import _test_ids, excluded, formulas_excluded
from crysgnn_jax.crystals.readers import json_scan, read
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


def test_ids_of_data_that_are_not_in_a_file_are_not_looked_up_elsewhere(split):
    config = {"made_with": {"data": "crystals"}}
    split.with_name("config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="crystals of its run cannot be read .*=DATA"):
        excluded(split, read(collection(6)))
    table = split.with_name("six.npz")
    assert ids(excluded(f"{split}={table}", read(collection(6)))) == ["c4", "c5"]


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


@pytest.mark.parametrize(
    "content",
    [
        {"seed": 1, "test": ["c5", "c4"]},
        {"val": ["c0"], "test": ["c5", "c4"]},
        {"folds": [1, 2], "train": ["c0"], "test": ["c5", "c4"]},
        {"about": {"seed": 1}, "folds": [{"train": ["c0"]}], "test": ["c5", "c4"], "n": None},
        ["c5", "c4"],
    ],
)
def test_ids_are_found_wherever_they_stand(split, content):
    split.write_text(json.dumps(content))
    assert ids(excluded(split, read(collection(6)))) == ["c4", "c5"]


def test_numbers_may_be_ids(split):
    split.write_text("[1, 3]")
    data = read([fcc(id=str(k)) for k in range(4)])
    assert ids(excluded(split, data)) == ["1", "3"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "names no test crystals; give crystals, the splits.json"),
        ('{"test": []}', "names no test crystals; give"),
        ('{"test": null}', "names no test crystals; give"),
        ('{"seed": 1, "val": ["c0"]}', "names no test crystals; give"),
        ('{"train": ["c0"], "test": ["c1", "c', "names no test crystals .*byte"),
        ('{"test": ["c1", {"a": 1}]}', '{"a": 1} among its test crystals is no id'),
        ("[true]", "true among its test crystals is no id"),
    ],
)
def test_a_file_without_ids_is_refused_in_one_line(split, text, message):
    split.write_text(text)
    with pytest.raises(UserError, match=f"`exclude`.*{message}") as caught:
        excluded(split, read(collection(6)))
    assert len(str(caught.value).splitlines()) == 1


def test_of_a_file_of_crystals_no_more_is_read_than_the_first(tmp_path, monkeypatch):
    cell = {"lattice_mat": (4 * fcc().lattice).tolist(), "coords": [[0, 0, 0]], "elements": ["Al"]}
    record = {"jid": "J", "atoms": {**cell, "cartesian": False}}
    count = []
    values = json_scan.Scanner.value
    monkeypatch.setattr(json_scan.Scanner, "value", lambda self: count.append(1) or values(self))
    for content in ([record] * 9, {"meta": 1, "data": [record] * 9}, {"a": record, "test": []}):
        (tmp_path / "records.json").write_text(json.dumps(content))
        count.clear()
        assert _test_ids(tmp_path / "records.json", required=False) is None
        assert len(count) <= 4


def test_what_cannot_be_used_is_told_with_the_first_reasons(tmp_path, caplog):
    write(tmp_path / "good.cif", bulk("Cu"))
    for k in range(5):
        (tmp_path / f"bad{k}.cif").write_text("data_bad\n")
    assert formulas_excluded([excluded(tmp_path, read([fcc()]))]) == {"Cu1"}
    (line,) = caplog.messages
    assert line.startswith("5 of the 6 crystals of ") and "cannot be used, and keep nothing" in line
    assert "bad0: " in line and "bad2: " in line and "bad3" not in line and "and 2 more" in line


def test_where_nothing_can_be_used_it_is_an_error(tmp_path):
    (tmp_path / "bad.cif").write_text("data_bad\n")
    (tmp_path / "other.json").write_text('{"a": 1}')
    for name in ("bad.cif", "other.json"):
        found = excluded(tmp_path / name, read([fcc()]))
        with pytest.raises(UserError, match="`exclude` .*nothing in it can be used.*list of ids"):
            formulas_excluded([read([fcc()]), found])


def test_what_is_not_there_is_told_by_the_name_of_the_parameter():
    with pytest.raises(UserError, match="`exclude` nowhere: no such file"):
        excluded("nowhere", read([fcc()]))


def test_json_of_crystals_is_no_split(tmp_path):
    cell = {"lattice_mat": (4 * fcc().lattice).tolist(), "coords": [[0, 0, 0]], "elements": ["Al"]}
    cell["cartesian"] = False
    (tmp_path / "records.json").write_text(json.dumps([{"jid": "J-1", "atoms": cell}]))
    assert len(excluded(tmp_path / "records.json", read([fcc()]))) == 1
    assert cg.read is read
