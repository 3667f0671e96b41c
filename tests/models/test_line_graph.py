"""The line graph: worked by hand, against brute force, and harmless where it is padding."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.line_graph import angle_cosines, count_triplets, line_graph
from toys import caesium_chloride, collection, fcc, perovskite, rocksalt


def _graph(n_node, senders, receivers, vectors, padding=(2, 3)):
    """One crystal, and (nodes, edges) of padding."""
    more_nodes, more_edges = padding
    ends = np.full(more_edges, n_node)
    return jraph.GraphsTuple(
        nodes={"species": np.ones(n_node + more_nodes, np.int32)},
        edges={"vectors": np.concatenate([vectors, np.zeros((more_edges, 3))], dtype=np.float32)},
        senders=np.concatenate([senders, ends]).astype(np.int32),
        receivers=np.concatenate([receivers, ends]).astype(np.int32),
        globals={},
        n_node=np.array([n_node, more_nodes], np.int32),
        n_edge=np.array([len(senders), more_edges], np.int32),
    )


CORNER = _graph(
    # Atoms 0, 1, 2 at (0, 0), (1, 0), (1, 2): two bonds of 1 and 2 Å at right angles.
    n_node=3,
    senders=[1, 0, 2, 1],
    receivers=[0, 1, 1, 2],
    vectors=[[1, 0, 0], [-1, 0, 0], [0, 2, 0], [0, -2, 0]],
)


def _triplets(graph, n_triplet):
    """``(first edge, second edge, cosine)`` of every real triplet, in order."""
    line = line_graph(graph, n_triplet)
    real = np.asarray(line.mask) == 1
    cosines = angle_cosines(line, graph.edges["vectors"])
    assert real.sum() == min(int(line.total), n_triplet)
    return [
        (int(first), int(second), round(float(cosine), 5))
        for first, second, cosine in np.stack([line.senders, line.receivers, cosines], 1)[real]
    ]


@pytest.mark.parametrize("n_triplet", [6, 10])
def test_corner_by_hand(n_triplet):
    back, right_angle = 1.0, 0.0
    assert _triplets(CORNER, n_triplet) == [
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
    chain = _graph(1, [0, 0], [0, 0], [[1, 0, 0], [-1, 0, 0]])
    assert _triplets(chain, 4) == [(1, 0, 1.0), (0, 1, 1.0)]
    # With a second row at right angles.
    square = _graph(1, [0] * 4, [0] * 4, [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert [(first, second) for first, second, _ in _triplets(square, 20)] == [
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


def _brute_force(graph):
    """All pairs of real edges, by the definition."""
    n = int(graph.n_edge[:-1].sum())
    meets = graph.receivers[:n, None] == graph.senders[None, :n]
    first, second = np.nonzero(meets & ~np.eye(n, dtype=bool))
    unit = graph.edges["vectors"][:n] / np.linalg.norm(graph.edges["vectors"][:n], axis=1)[:, None]
    return {(a, b): -unit[a] @ unit[b] for a, b in zip(first, second)}


def test_matches_brute_force(store):
    n = len(store)
    budget = Budget(int(store.n_nodes.sum()) + 3, int(store.n_edges.sum()) + 40, n + 1)
    graph = Batcher(store, budget, edge_columns=("distances", "vectors"))(np.arange(n))
    expected = _brute_force(graph)
    n_triplet = int(count_triplets(store).sum())
    assert n_triplet == len(expected)
    line = line_graph(graph, n_triplet + 17)
    assert int(line.total) == n_triplet
    np.testing.assert_array_equal(line.mask, np.arange(n_triplet + 17) < n_triplet)
    assert (np.diff(line.receivers) >= 0).all()
    assert 0 <= np.min(line.senders) and np.max(line.senders) < budget.edges
    cosines = np.asarray(angle_cosines(line, graph.edges["vectors"]))[:n_triplet]
    found = dict(zip(zip(*np.asarray(line[:2])[:, :n_triplet].tolist()), cosines))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[k] for k in expected], list(expected.values()), atol=1e-6)
    assert np.abs(cosines).max() <= 1.0


def test_triplets_are_counted_for_each_crystal(store, monkeypatch):
    # More chunks than one.
    monkeypatch.setattr("crysgnn_jax.models.line_graph._CHUNK", 4)
    counts = count_triplets(store)
    assert counts.dtype == np.int64
    batcher = Batcher(store, Budget(int(store.n_nodes.max()) + 1, int(store.n_edges.max()), 2))
    for row in range(len(store)):
        assert counts[row] == int(line_graph(batcher(np.array([row])), 0).total)


def test_padding_edges_have_no_triplets():
    # 1,000 edges around one padding node would be a million.
    padded = CORNER._replace(
        senders=np.concatenate([CORNER.senders, np.full(1000, 3, np.int32)]),
        receivers=np.concatenate([CORNER.receivers, np.full(1000, 3, np.int32)]),
        n_edge=np.array([4, 1003], np.int32),
    )
    assert int(line_graph(padded, 6).total) == 6
    empty = CORNER._replace(n_node=np.array([0, 5], np.int32), n_edge=np.array([0, 7], np.int32))
    assert int(line_graph(empty, 6).total) == 0
    assert not np.asarray(line_graph(empty, 6).mask).any()


def test_gradient_of_zero_vectors_is_finite():
    def loss(vectors):
        line = line_graph(CORNER, 10)
        return jnp.sum(angle_cosines(line, vectors) * line.mask)

    gradient = jax.grad(loss)(jnp.asarray(CORNER.edges["vectors"]))
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[4:].any()
