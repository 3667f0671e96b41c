"""Triplets of edges and their angles: worked by hand, and against brute force."""

import numpy as np
import pytest

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs import reduction
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.reduction import reduce_graphs
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import open_store
from oracles import triplets_of
from toys import caesium_chloride, collection, fcc, perovskite, rocksalt


def _triplets(n_node, senders, receivers, vectors):
    """``(first edge, second edge, cosine)`` of every triplet of one crystal, in order."""
    vectors = np.array(vectors, float)
    found = reduce_graphs(
        n_nodes=np.array([n_node]),
        n_edges=np.array([len(senders)]),
        species=np.ones(n_node, np.int32),
        degree=np.bincount(receivers, minlength=n_node),
        senders=np.array(senders, np.int32),
        distances=np.linalg.norm(vectors, axis=1),
        vectors=vectors,
        identity=True,
    )
    assert (found.triplet_multiplicity == 1).all()
    assert found.n_triplets.tolist() == [len(found.triplet_senders)]
    cosines = found.triplet_cosines.astype(float).round(5).tolist()
    return list(zip(found.triplet_senders.tolist(), found.triplet_receivers.tolist(), cosines))


def test_corner_by_hand():
    # Atoms 0, 1, 2 at (0, 0), (1, 0), (1, 2): two bonds of 1 and 2 Å at right angles.
    back, right_angle = 1.0, 0.0
    vectors = [[1, 0, 0], [-1, 0, 0], [0, 2, 0], [0, -2, 0]]
    assert _triplets(3, [1, 0, 2, 1], [0, 1, 1, 2], vectors) == [
        (1, 0, back),
        (2, 0, right_angle),
        (0, 1, back),
        (3, 2, back),
        (1, 3, right_angle),
        (2, 3, back),
    ]


def test_edges_to_own_images_have_no_triplet_with_themselves():
    # One atom in a row: its images at +x and −x. Going on in a straight line along x is the same
    # edge again, so that only the way back is left.
    row = [[1, 0, 0], [-1, 0, 0]]
    assert _triplets(1, [0, 0], [0, 0], row) == [(1, 0, 1.0), (0, 1, 1.0)]
    # With a second row at right angles.
    square = _triplets(1, [0] * 4, [0] * 4, [*row, [0, 1, 0], [0, -1, 0]])
    assert [(first, second) for first, second, _ in square] == [
        (first, second) for second in range(4) for first in range(4) if first != second
    ]


@pytest.fixture(scope="module", params=["bonds", "nearest"])
def store(request, tmp_path_factory):
    lonely = Crystal("He", [2], np.zeros((1, 3)), 30 * np.eye(3))
    crystals = [*collection(6), fcc(), lonely, caesium_chloride(), perovskite(), rocksalt()]
    return build_store(
        crystal_list(crystals),
        FeaturiserSettings(rule=request.param),
        cache_dir=tmp_path_factory.mktemp("cache"),
    )


def _brute_force(graph, n):
    """(first, second) → cosine, of the first ``n`` edges of a batch, which are real."""
    columns = graph.senders, graph.receivers, graph.edges["vectors"]
    found = triplets_of(*(x[:n] for x in columns))
    return {(first, second): cosine for first, second, cosine in found}


def test_batches_hold_those_of_brute_force(store):
    n, n_edge = len(store), int(store.n_edges.sum())
    n_triplet = int(store.full.list("triplets").lengths.sum())
    room = {"triplets": n_triplet + 17}
    budget = Budget(int(store.n_nodes.sum()) + 3, n_edge + 40, n + 1, room)
    graph = Batcher(store, budget, edge_columns=("distances", "vectors"))(np.arange(n))
    expected = _brute_force(graph, n_edge)
    assert n_triplet == len(expected)
    batch = Batch(graph)
    links = batch.triplets
    is_real = np.arange(n_triplet + 17) < n_triplet
    np.testing.assert_array_equal(links.counts, is_real)
    np.testing.assert_array_equal(links.rows.weights, is_real)
    assert (np.diff(links.receivers) >= 0).all()
    assert 0 <= np.min(links.senders) and np.max(links.senders) < budget.edges
    assert np.max(links.receivers) < budget.edges
    cosines = batch.cosines[:n_triplet]
    ends = zip(links.senders[:n_triplet].tolist(), links.receivers[:n_triplet].tolist())
    found = dict(zip(ends, cosines))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[k] for k in expected], list(expected.values()), atol=1e-6)
    assert np.abs(cosines).max() <= 1.0


def test_triplets_are_counted_for_each_crystal(store, monkeypatch):
    monkeypatch.setattr(reduction, "_MAX_TRIPLETS", 1)  # more parts than one
    counts = open_store(store.path).full.list("triplets").lengths
    assert counts.dtype == np.int64
    batcher = Batcher(
        store,
        Budget(int(store.n_nodes.max()) + 1, int(store.n_edges.max()), 2),
        edge_columns=("vectors",),
    )
    for row in range(len(store)):
        graph = batcher(np.array([row]))
        assert counts[row] == len(_brute_force(graph, store.n_edges[row]))


def test_batches_have_room_for_their_triplets_or_are_refused(store):
    sizes = int(store.n_nodes.sum()) + 1, int(store.n_edges.sum()), len(store) + 1
    n_triplet = int(store.full.list("triplets").lengths.sum())
    rows = np.arange(len(store))
    Batcher(store, Budget(*sizes, {"triplets": n_triplet}))(rows)
    with pytest.raises(ValueError):
        Batcher(store, Budget(*sizes, {"triplets": n_triplet - 1}))(rows)


def test_padding_edges_have_no_triplets(store):
    # 1,000 edges around one padding node would be a million.
    batcher = Batcher(store, Budget(nodes=5, edges=1000, graphs=2, extra={"triplets": 6}))
    links = Batch(batcher(np.empty(0, int))).triplets
    assert not np.asarray(links.rows.weights).any()
    assert not np.asarray(links.sum(np.ones((6, 1), np.float32))).any()


def test_reduced_graphs_have_those_of_bonds_alone(store):
    if store.settings.rule == "bonds":
        assert store.reduced.list("triplets").lengths.sum() > 0
    else:
        with pytest.raises(UserError, match="`rule` nearest"):
            store.reduced.list("triplets")
