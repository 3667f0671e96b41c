"""The measurement of duplicates, on a few crystals."""

import json

import pytest

from benchmarks import duplicates
from crysgnn_jax.commands import cli
from crysgnn_jax.crystals.table import write_table
from toys import caesium_chloride, collection, perovskite, rocksalt


def test_copies_are_found_and_judged(tmp_path, monkeypatch):
    pytest.importorskip("pymatgen")
    monkeypatch.setenv("CRYSGNN_CACHE", str(tmp_path / "cache"))
    twin = rocksalt(a=5.65, id="twin")
    write_table(
        tmp_path / "few.npz",
        [rocksalt(), caesium_chloride(), perovskite(), twin, *collection(8)],
    )
    out = tmp_path / "out.json"
    cli.call(
        duplicates,
        [
            *("--data", str(tmp_path / "few.npz"), "--copies", "10", "--sizes", "6,12,30"),
            *("--workers", "1", "--output", str(out)),
        ],
    )
    found = json.loads(out.read_text())
    assert found["copies_found"] == 10 and found["copies_joined_with_another"] == 0
    assert found["crystals_joined"] == 1 and found["pairs_not_matched"] == 0
    times = found["times"]
    assert [entry["crystals"] for entry in times] == [6, 12, 30]
    assert [entry["enlarged"] for entry in times] == [False, False, True]
    assert times[2]["joined"] == 3  # the twin in each of the images
