"""Packing, padding and assembly of batches."""

import jraph
import numpy as np
import pytest

from crysgnn_jax.batches.budget import Budget, Sizes, choose_budget, pack
from crysgnn_jax.batches.loader import Batcher, group, prefetch
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.neighbours import neighbour_list
from crysgnn_jax.graphs.settings import FeaturiserSettings
from toys import caesium_chloride, collection, fcc, rocksalt


@pytest.fixture(scope="module")
def crystals():
    return [*collection(20), rocksalt(), fcc(labels={"energy": -1.5}), caesium_chloride()]


@pytest.fixture(scope="module")
def store(crystals, tmp_path_factory):
    return build_store(
        crystal_list(crystals), FeaturiserSettings(), cache_dir=tmp_path_factory.mktemp("cache")
    )


def _sizes(n=3000, seed=0):
    nodes = np.maximum(1, np.random.default_rng(seed).lognormal(2.8, 0.8, n).astype(int))
    return Sizes(nodes, 12 * nodes, {"squares": nodes**2})


@pytest.mark.parametrize("batch_size", [16, 64, 256])
def test_budget_wastes_under_a_tenth(batch_size):
    sizes = _sizes()
    budget = choose_budget(sizes, batch_size)
    order = np.random.default_rng(7).permutation(3000)
    batches = pack(sizes.table, budget.limits, order)
    assert sorted(np.concatenate(batches)) == list(range(3000))
    for batch in batches:
        assert (sizes.table[batch].sum(axis=0) <= budget.limits).all()
    assert sizes.edges.sum() / (len(batches) * budget.edges) > 0.9


def test_what_costs_most_is_padded_least():
    # Crystals of as many edges have up to four times as many triplets.
    sizes = _sizes()
    factor = np.random.default_rng(3).uniform(5.0, 20.0, 3000)
    sizes = Sizes(sizes.nodes, sizes.edges, {"triplets": (sizes.edges * factor).astype(int)})
    order = np.random.default_rng(7).permutation(3000)
    waste = {}
    for tight in (("nodes", "edges"), ("nodes", "edges", "triplets"), ("triplets",)):
        budget = choose_budget(sizes, 16, tight=tight)
        batches = pack(sizes.table, budget.limits, order)
        assert len(batches) <= 1.02 * np.ceil(3000 / 16)
        total = sizes.extra["triplets"].sum()
        waste[tight] = 1 - total / (len(batches) * budget.extra["triplets"])
    assert waste["triplets",] < waste["nodes", "edges", "triplets"] < 0.1
    assert waste["nodes", "edges"] > 0.15


def test_budget_of_few_crystals_is_balanced():
    # 100 crystals in batches of 64 are two batches of 50, not one of 64 and one half empty.
    sizes = Sizes(np.full(100, 4), np.full(100, 48))
    budget = choose_budget(sizes, 64)
    assert 50 * 48 <= budget.edges < 50 * 48 + 64
    assert len(pack(sizes.table, budget.limits, np.arange(100))) == 2


def test_large_crystal_fits_alone():
    sizes = Sizes(np.array([200, 1, 1, 1]), np.array([2400, 12, 12, 12]))
    budget = choose_budget(sizes, 1)
    assert budget.nodes > 200 and budget.edges >= 2400
    with pytest.raises(ValueError, match="takes"):
        pack(sizes.table, np.array([100, 1200, 4]), np.arange(4))


def test_every_crystal_fits_whatever_is_tight():
    table = np.array([[4, 48, 30]] * 50 + [[200, 2400, 90], [8, 96, 4000]])
    sizes = Sizes(table[:, 0], table[:, 1], {"triplets": table[:, 2]})
    for tight in ((), ("nodes", "edges"), ("triplets",), ("nodes", "edges", "triplets")):
        for batch_size in (1, 4, 100):
            budget = choose_budget(sizes, batch_size, tight=tight)
            assert (sizes.table <= budget.limits).all()


def test_batch_holds_the_graphs_of_its_crystals(store, crystals):
    budget = Budget(nodes=64, edges=1024, graphs=6)
    rows = np.array([21, 20, 22])
    energy = store.labels("energy")
    graph = Batcher(store, budget, label=energy)(rows)
    start = 0
    for slot, row in enumerate(rows):
        crystal = crystals[row]
        expected = neighbour_list(crystal, FeaturiserSettings())
        n = len(crystal.species)
        nodes = slice(start, start + n)
        assert graph.nodes["species"][nodes].tolist() == crystal.species.tolist()
        edges = (graph.receivers >= start) & (graph.receivers < start + n)
        np.testing.assert_array_equal(graph.receivers[edges] - start, expected.receivers)
        np.testing.assert_array_equal(graph.senders[edges] - start, expected.senders)
        np.testing.assert_array_equal(graph.edges["distances"][edges], expected.distances)
        assert graph.n_node[slot] == n and graph.n_edge[slot] == edges.sum()
        start += n
    assert graph.globals["row"].tolist() == [21, 20, 22, -1, -1, -1]
    assert graph.globals["labels"][0, 0] == np.float32(-1.5)
    assert graph.globals["label_mask"][:, 0].tolist() == [1, 0, 0, 0, 0, 0]
    assert graph.globals["space_group"][:3].tolist() == [225, 225, 221]
    assert graph.globals["crystal_system"][:3].tolist() == [6, 6, 6]


def test_edge_columns(store, crystals):
    batcher = Batcher(store, Budget(64, 1024, 6), edge_columns=("vectors", "distances"))
    graph = batcher(np.array([20, 21]))
    parts = [neighbour_list(crystals[row], FeaturiserSettings()) for row in (20, 21)]
    vectors = np.concatenate([part.vectors for part in parts])
    np.testing.assert_array_equal(graph.edges["vectors"][: len(vectors)], vectors)
    assert graph.edges["vectors"].shape == (1024, 3)
    assert not graph.edges["vectors"][len(vectors) :].any()
    assert set(graph.edges) == {"vectors", "distances", "count"}
    graph = Batcher(store, Budget(64, 1024, 6))(np.array([20]))
    assert set(graph.edges) == {"distances", "count"}


def test_padding_follows_jraph(store):
    graph = Batcher(store, Budget(nodes=64, edges=1024, graphs=6))(np.array([0, 20]))
    assert graph.n_node.sum() == 64 and graph.n_edge.sum() == 1024
    assert jraph.get_graph_padding_mask(graph).tolist() == [True, True] + [False] * 4
    real = int(graph.n_node[:2].sum())
    assert jraph.get_node_padding_mask(graph).tolist() == [i < real for i in range(64)]
    assert graph.nodes["count"].tolist() == [float(i < real) for i in range(64)]
    padding = ~np.asarray(jraph.get_edge_padding_mask(graph))
    np.testing.assert_array_equal(graph.edges["count"] == 0, padding)
    assert (graph.receivers[padding] >= real).all() and (graph.senders[padding] >= real).all()
    assert (np.diff(graph.receivers) >= 0).all()


def test_empty_batch_is_all_padding(store):
    graph = Batcher(store, Budget(nodes=8, edges=64, graphs=3))(np.empty(0, dtype=int))
    assert not np.asarray(jraph.get_graph_padding_mask(graph)).any()
    assert not np.asarray(jraph.get_node_padding_mask(graph)).any()


def test_groups_are_filled_up_with_empty_batches():
    batches = [np.array([i]) for i in range(5)]
    steps = group(batches, 4)
    assert [[len(rows) for rows in step] for step in steps] == [[1, 1, 1, 1], [1, 0, 0, 0]]


def test_prefetch_keeps_order_and_raises(store):
    batcher = Batcher(store, Budget(nodes=64, edges=1024, graphs=6))
    plan = [[np.array([i])] for i in range(10)]
    seen = [int(graph.globals["row"][0, 0]) for _, graph in prefetch(batcher, plan)]
    assert seen == list(range(10))
    with pytest.raises(IndexError):
        list(prefetch(batcher, [[np.array([10**6])]]))
