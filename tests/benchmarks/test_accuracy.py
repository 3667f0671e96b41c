"""The benchmark of accuracy: what it trains on, and what it writes."""

import json

import numpy as np
import pytest

from benchmarks import accuracy
from crysgnn_jax.commands import cli
from crysgnn_jax.crystals.named import load_named
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    cache = tmp_path_factory.mktemp("stores")
    return build_store(load_named("dielectric"), FeaturiserSettings(), cache_dir=cache, workers=1)


def test_splits_are_disjoint_and_of_the_sizes_asked_for(store):
    split = accuracy.draw_split(store, "band_gap", [40, 20, 10], seed=3)
    parts = [rows for _, rows in split.items()]
    assert [len(rows) for rows in parts] == [40, 20, 10]
    assert len(np.unique(np.concatenate(parts))) == 70
    again = accuracy.draw_split(store, "band_gap", [40, 20, 10], seed=3)
    np.testing.assert_array_equal(split.test, again.test)


def test_more_crystals_than_there_are(store):
    with pytest.raises(UserError, match="--sizes asks for 5000 crystals; .* can be used"):
        accuracy.draw_split(store, "band_gap", [4000, 500, 500], seed=0)


def test_summary_by_hand():
    runs = [{"test": x, "validation": 2 * x, "seconds": 1.0} for x in (1.0, 3.0)]
    found = accuracy.summary(runs)
    assert found["test_mae"] == {"mean": 2.0, "std": 1.41421}
    assert found["validation_mae"]["mean"] == 4.0


def test_both_sides_are_written(tmp_path):
    pytest.importorskip("torch", reason="the peer needs torch")
    output = tmp_path / "accuracy.json"
    flags = "--data dielectric --property band_gap --sizes 64,16,16 --seeds 0 --epochs 2"
    cli.call(accuracy, [*flags.split(), "--batch-size", "16", "--output", str(output)])
    written = json.loads(output.read_text())
    assert set(written["sides"]) == {accuracy.PROJECT, accuracy.PEER}
    for side in written["sides"].values():
        assert 0.1 < side["test_mae"]["mean"] < 10.0


@pytest.mark.parametrize("sizes", ["10,5", "10,0,5"])
def test_sizes_are_three(sizes):
    with pytest.raises(UserError, match="--sizes takes three numbers of crystals"):
        cli.call(accuracy, ["--sizes", sizes, "--no-peer"])


@pytest.mark.parametrize("sizes", ["ten,5,5", "10,-5,5"])
def test_sizes_are_numbers(sizes, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.call(accuracy, ["--sizes", sizes, "--no-peer"])
    assert stopped.value.code == 2
    assert f"'{sizes}' is no list of whole numbers" in capsys.readouterr().err
