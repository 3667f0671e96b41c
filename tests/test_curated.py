"""The table of contents of a curated set."""

import json

import numpy as np
import pytest

from crysgnn_jax.curated import CURATED, is_curated, open_curated, write_curated
from crysgnn_jax.errors import UserError
from crysgnn_jax.shards import write_shard


def make(path, n_shards=3, value=0.0):
    """A set of 0, 1, … crystals a shard."""
    entries = []
    for k in range(n_shards):
        file = f"shards/{k:05d}.safetensors"
        columns = {"x": np.full(k, value)}
        entries.append(
            {"file": file, **write_shard(f"{path}/{file}", columns, {"ids": ["a"] * k}, {})}
        )
    return write_curated(
        path, entries, content=3, settings={"cutoff": 8.0}, label_names=["gap"], about={"who": "me"}
    )  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    for path in (tmp_path / "mine", f"memory://{tmp_path.name}/mine"):
        assert not is_curated(path)
        written = make(path)
        assert is_curated(path)
        found = open_curated(path)
        assert found == written
        assert len(found) == 3 and found.label_names == ("gap",)
        assert found.shard_path(2) == f"{path}/shards/00002.safetensors"


def test_a_moved_set_is_the_same(tmp_path):
    before = make(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    found = open_curated(f"{tmp_path}/b/")
    assert found.fingerprint == before.fingerprint


def test_the_fingerprint_is_of_the_content(tmp_path):
    one = make(tmp_path / "a").fingerprint
    assert make(tmp_path / "b").fingerprint == one
    assert make(tmp_path / "c", value=1.0).fingerprint != one


def test_a_folder_without_one_is_told(tmp_path):
    with pytest.raises(UserError, match=f"no curated set: it has no {CURATED}"):
        open_curated(tmp_path)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda text: text[:-40], "cannot be read"),
        (lambda text: text.replace('"cutoff": 8.0', '"cutoff": 6.0'), "not as written"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: "{}", "cannot be read"),
    ],
)
def test_a_damaged_one_is_told(tmp_path, harm, told):
    make(tmp_path)
    file = tmp_path / CURATED
    file.write_text(harm(file.read_text()))
    with pytest.raises(UserError, match=told) as raised:
        open_curated(tmp_path)
    assert CURATED in str(raised.value)


def test_one_of_another_format_is_refused(tmp_path):
    make(tmp_path)
    content = json.loads((tmp_path / CURATED).read_text())
    (tmp_path / CURATED).write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(UserError, match="format 99, not 1; curate it again"):
        open_curated(tmp_path)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "bytes, not"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"!"), "other bytes than"),
    ],
)
def test_damage_to_a_shard_is_told_by_its_name(tmp_path, harm, told):
    make(tmp_path)
    harm(tmp_path / "shards" / "00002.safetensors")
    with pytest.raises(UserError, match=f"00002.safetensors.*{told}"):
        open_curated(tmp_path)
