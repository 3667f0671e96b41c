"""Checksums of files, and what is remembered of them."""

import json
import os

import pytest

from crysgnn_jax import checksums as module
from crysgnn_jax.checksums import VERIFIED, checksums, first_damaged


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "sub" / "b").write_bytes(bytes(range(200)))
    for name in ("a", "sub/b"):
        os.utime(tmp_path / name, (1e9, 1e9))
    return tmp_path


def _change(file, at, stamp):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    os.utime(file, (stamp, stamp))


def test_any_byte_counts(folder, monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 64)
    known = json.loads(json.dumps(checksums(folder, ["a", "sub/b"])))
    assert known["sub/b"]["bytes"] == 200 and len(known["sub/b"]["crc32"]) == 4
    assert first_damaged(folder, known) is None
    for at in range(200):
        _change(folder / "sub" / "b", at, 1e9 + 10 * at + 1)
        assert first_damaged(folder, known) == "sub/b holds other bytes than were written"
        _change(folder / "sub" / "b", at, 1e9 + 10 * at + 5)
    assert first_damaged(folder, known) is None


def test_size_and_absence(folder):
    known = checksums(folder, ["a", "sub/b"])
    (folder / "sub" / "b").write_bytes(b"12")
    assert first_damaged(folder, known) == "sub/b has 2 bytes, not 200"
    (folder / "sub" / "b").unlink()
    assert first_damaged(folder, known) == "sub/b is missing"


def test_a_file_is_read_once_for_each_change_and_again_after_a_while(folder, monkeypatch):
    known = checksums(folder, ["a", "sub/b"])
    read = []

    def note(folder, names):
        read.append(sorted(names))
        return checksums(folder, names)

    monkeypatch.setattr(module, "checksums", note)
    for _ in range(3):
        assert first_damaged(folder, known) is None
    assert read == [["a", "sub/b"]]
    os.utime(folder / "a", (1e9 + 1, 1e9 + 1))
    assert first_damaged(folder, known) is None
    assert read[1:] == [["a"]]
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.0)
    # What rots keeps its time.
    _change(folder / "sub" / "b", 7, 1e9)
    assert first_damaged(folder, known) == "sub/b holds other bytes than were written"


def test_what_changed_a_moment_ago_is_not_remembered(folder):
    known = checksums(folder, ["a", "sub/b"])
    os.utime(folder / "a")
    assert first_damaged(folder, known) is None
    assert json.loads((folder / VERIFIED).read_text()).keys() == {"sub/b"}


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": [1, 2, 3, "x"]}', "\x00"])
def test_a_damaged_memory_is_none(folder, text):
    known = checksums(folder, ["a", "sub/b"])
    (folder / VERIFIED).write_text(text)
    assert first_damaged(folder, known) is None
    _change(folder / "sub" / "b", 7, 1e9 + 1)
    assert first_damaged(folder, known) is not None
