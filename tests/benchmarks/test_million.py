"""A generated set is drawn from, and its size on disk is told."""

import numpy as np
import pytest

from benchmarks import million
from benchmarks.million import Drawing, bytes_of_crystals, generate
from crysgnn_jax.crystals.readers.curated import Curated
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings


@pytest.fixture(scope="module")
def base(source, tmp_path_factory):
    cache = tmp_path_factory.mktemp("base")
    return build_store(source(20), FeaturiserSettings(), cache_dir=cache)


def test_a_set_of_any_size_is_made_of_a_few_crystals(base, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSGNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(million, "CRYSTALS_A_SHARD", 64)
    generate(base, 200, tmp_path / "set")
    source = Curated(tmp_path / "set")
    assert len(source) == 200 and len(source.curated.shards) == 4
    assert len(np.unique(source.ids())) == 200
    found = Drawing(tmp_path / "set").run(3)
    for kind in ("cold", "warm"):
        assert 0 < found[kind]["ms_median"] <= found[kind]["ms_95"]


def test_sizes_add_up(base, tmp_path):
    each, by_column = bytes_of_crystals(base)
    assert len(each) == len(base) and np.corrcoef(each, base.n_nodes)[0, 1] > 0.9
    assert each.mean() == pytest.approx(sum(by_column.values()), rel=0.01)
    assert by_column["frac_coords"] == pytest.approx(24 * base.n_nodes.mean(), abs=0.1)
