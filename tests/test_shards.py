"""Shards: what is written is read, by others too; what is cut, damaged or not there is told."""

import gc
import json
import os

import numpy as np
import pytest
from safetensors import safe_open

from crysgnn_jax import shards
from crysgnn_jax.errors import UserError
from crysgnn_jax.shards import Shard, is_remote, narrow, write_shard

COLUMNS = {
    "species": np.array([11, 17, 6], np.uint8),
    "lattice": np.arange(18.0).reshape(2, 3, 3),
    "far": np.array([-1, 70_000]),
    "none": np.empty((0, 3), np.float32),
}
TEXTS = {"ids": ["Kochsalz", "Ruß"], "tags/split": ["", "test"]}
ABOUT = {"number": 3, "a": [1.5, None]}


@pytest.fixture(params=["local", "memory"])
def path(request, tmp_path):
    """A file, and an address."""
    if request.param == "local":
        return str(tmp_path / "new" / "00000.safetensors")
    return f"memory://{tmp_path.name}/00000.safetensors"


def test_what_is_written_is_read(path, tmp_path):
    entry = write_shard(path, COLUMNS, TEXTS, ABOUT)
    shard = Shard(path, tmp_path / "cache")
    assert len(shard) == entry["crystals"] == 2 and shard.about == ABOUT
    assert sorted(shard.columns) == sorted(COLUMNS)
    for name, values in COLUMNS.items():
        assert shard.columns[name].dtype == values.dtype
        np.testing.assert_array_equal(shard.columns[name], values)
    assert shard.text_names == ("ids", "tags/split")
    for name, texts in TEXTS.items():
        assert shard.texts(name).tolist() == texts
    with pytest.raises(KeyError):
        shard.columns["ids"]


def test_others_can_read_it(tmp_path):
    write_shard(tmp_path / "a", COLUMNS, TEXTS, ABOUT)
    with safe_open(tmp_path / "a", "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("lattice"), COLUMNS["lattice"])
        assert file.get_tensor("ids.utf8").tobytes().decode() == "KochsalzRuß"
        assert file.get_tensor("ids.ends").tolist() == [8, 12]
        assert json.loads(file.metadata()["about"]) == ABOUT


def test_the_bytes_follow_from_what_it_holds(tmp_path):
    one = write_shard(tmp_path / "a", COLUMNS, TEXTS, ABOUT)
    turned = [dict(reversed(part.items())) for part in (COLUMNS, TEXTS, ABOUT)]
    other = write_shard(tmp_path / "b", *turned)
    assert one == other
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    changed = write_shard(tmp_path / "c", COLUMNS, TEXTS, {**ABOUT, "number": 4})
    assert changed["digest"] != one["digest"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255], np.uint8),
        ([256], np.uint16),
        ([70_000], np.uint32),
        ([-1, 127], np.int8),
        ([-1, 128], np.int16),
        ([], np.uint8),
    ],
)
def test_whole_numbers_take_as_little_as_they_can(values, kind):
    found = narrow(np.array(values, np.int64))
    assert found.dtype == kind and found.tolist() == values


def test_other_numbers_stay_as_they_are():
    values = np.array([1.0, 2.0])
    assert narrow(values) is values


def _cut(content):
    return content[:-1]


def _longer(content):
    return content + b"\0"


def _empty(content):
    return b""


def _no_header(content):
    return b"\xff" * len(content)


def _other_size(content):
    return content.replace(b'"shape":[2,3,3]', b'"shape":[2,3,4]')


def _other_file(content):
    return b"data_NaCl\n_cell_length_a 5.64\n"


@pytest.mark.parametrize("harm", [_cut, _longer, _empty, _no_header, _other_size, _other_file])
def test_a_damaged_one_is_told_by_its_name(tmp_path, harm):
    path = tmp_path / "00007.safetensors"
    write_shard(path, COLUMNS, TEXTS, ABOUT)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(UserError, match="00007.safetensors is damaged, or no shard") as raised:
        Shard(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("path", ["nowhere.safetensors", "memory://nowhere/0.safetensors"])
def test_a_missing_one_is_told_by_its_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{path} is missing"):
        Shard(path, tmp_path)


def test_an_unknown_kind_of_address_is_told(tmp_path):
    with pytest.raises(UserError, match="strange://0.safetensors: "):
        Shard("strange://0.safetensors", tmp_path)


def test_it_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_shard(path, COLUMNS, TEXTS, ABOUT)
    before = path.read_bytes()

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(OSError, match="No space"):
        write_shard(path, {}, TEXTS, ABOUT)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_remote_one_is_fetched_once_and_again_when_it_has_changed(tmp_path):
    path = f"memory://{tmp_path.name}/0.safetensors"
    write_shard(path, COLUMNS, TEXTS, {"n": 1})
    cache = tmp_path / "cache"
    for _ in range(2):
        assert Shard(path, cache).about == {"n": 1}
    assert len(list(cache.rglob("*.safetensors"))) == 1
    write_shard(path, COLUMNS, TEXTS, {"n": 2})
    assert Shard(path, cache).about == {"n": 2}


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("s3://bucket/a", True),
        ("simplecache::s3://bucket/a", True),
        ("runs/a", False),
        ("C:\\a", False),
        ("optimade:https://example.org", False),
    ],
)
def test_addresses_are_told_from_paths(path, remote):
    assert is_remote(path) is remote


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="files are counted on Linux")
def test_its_file_is_closed_with_the_last_array(tmp_path):
    write_shard(tmp_path / "a", COLUMNS, TEXTS, ABOUT)
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        species = Shard(tmp_path / "a").columns["species"]
        assert len(os.listdir("/proc/self/fd")) == before + 1 and species.tolist() == [11, 17, 6]
        del species
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "address, extra",
    [
        ("s3://bucket/set", "s3"),
        ("gs://bucket/set", "gs"),
        ("simplecache::gcs://bucket/set", "gs"),
        ("abfs://bucket/set", None),
    ],
)
def test_a_file_system_that_is_not_installed_names_its_extra(monkeypatch, address, extra):
    import fsspec

    def missing(path):
        raise ImportError("Please install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    remedy = f"; pip install 'crysgnn-jax[{extra}]'" if extra else ""
    with pytest.raises(UserError) as caught:
        shards.file_system(address)
    assert str(caught.value) == f"{address}: Please install it{remedy}"
