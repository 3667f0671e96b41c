"""Files that are there whole or not at all."""

import pytest

from crysgnn_jax.files import whole, write_csv


def test_what_fails_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ["id", "reason"], [("a, b", "it has no atoms")])
    assert path.read_text(encoding="utf-8") == 'id,reason\n"a, b",it has no atoms\n'

    def rows():
        yield "c", "one"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_csv(path, ["id", "reason"], rows())
    assert path.read_text(encoding="utf-8").endswith("it has no atoms\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_bytes_are_written_likewise(tmp_path):
    with whole(tmp_path / "file", "wb") as file:
        file.write(b"\r\n")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"\r\n"
