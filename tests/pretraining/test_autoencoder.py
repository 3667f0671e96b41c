"""The auto-encoder's loss, crystal by crystal; its golden numbers are in test_crysae."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.loader import stack
from crysgnn_jax.batches.pairs import TILE
from crysgnn_jax.batches.views import Batch, mark_spread
from crysgnn_jax.crystals.elements import element_features
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.pretraining.connection import CLASS_WEIGHTS, connection_by_crystal
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED, objectives_of
from crysgnn_jax.pretraining.teacher import CrysAE, PretrainedOutputs
from golden import pairs_in_order
from toys import batcher_for_all, one_batch, random_crystal


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    # Less than a tile of pairs, several, and a single atom.
    crystals = [random_crystal(n, seed=n, id=f"c{n}") for n in (3, 40, 1, 17)]
    directory = tmp_path_factory.mktemp("store")
    return build_store(crystal_list(crystals), FeaturiserSettings(), cache_dir=directory)


@pytest.fixture(scope="module")
def graph(store):
    return one_batch(store, lists=("pairs",), more=2)


def _n_block(graph):
    return len(graph.edges["blocks"]["crystals"])


def test_each_crystal_has_its_own_weighted_mean(store, graph):
    logits = jax.random.normal(jax.random.key(0), (_n_block(graph), 6, TILE, TILE))
    found = connection_by_crystal(logits, Batch(graph))
    log_probabilities = pairs_in_order(jax.nn.log_softmax(logits, axis=1), graph)
    pair = 0
    for row, n in enumerate(store.n_nodes.astype(int)):
        first = int(store.n_nodes[:row].sum())
        mine = (graph.receivers >= first) & (graph.receivers < first + n)
        counts = np.zeros((n, n), int)
        np.add.at(counts, (graph.receivers[mine] - first, graph.senders[mine] - first), 1)
        target = np.minimum(counts, 5).ravel()
        nll = -log_probabilities[pair : pair + n * n][np.arange(n * n), target]
        weights = np.take(CLASS_WEIGHTS, target)
        assert float(found[row]) == pytest.approx(np.average(nll, weights=weights), rel=1e-5)
        pair += n * n
    assert not np.asarray(found[len(store) :]).any()


def test_total_by_hand(store, graph):
    # Six equally likely classes; all features even but in the crystal of one atom, where they
    # are known for sure: a quarter of the crystals, whatever the number of its atoms.
    atom = int(store.n_nodes[:2].sum())
    n_node = len(graph.nodes["species"])
    features = np.zeros((n_node, 92), np.float32)
    features[atom] = 100.0 * (2.0 * element_features()[graph.nodes["species"][atom]] - 1.0)
    outputs = PretrainedOutputs(
        embeddings=jnp.zeros((n_node, 64)),
        crystals=jnp.zeros((len(graph.n_node), 64)),
        heads={
            "connection": jnp.zeros((_n_block(graph), 6, TILE, TILE)),
            "feature": jnp.asarray(features),
        },
        seen=graph,
    )
    value, parts = pretraining_loss(RELEASED["crysae"])(outputs, graph)
    assert float(parts["connection"]) == pytest.approx(np.log(6), rel=1e-6)
    assert float(parts["feature"]) == pytest.approx(0.75 * np.log(2), rel=1e-5)
    assert float(value) == pytest.approx(0.9 * np.log(6) + 0.1 * 0.75 * np.log(2), rel=1e-6)
    weights = {"connection": 0.0, "feature": 1.0}
    only_features = pretraining_loss(objectives_of("crysae", weights))
    assert float(only_features(outputs, graph)[0]) == pytest.approx(0.75 * np.log(2), rel=1e-5)


def test_each_device_has_the_mean_over_all(store):
    batcher = batcher_for_all(store, lists=("pairs",), more=2)
    rows = np.arange(len(store))
    module = CrysAE(n_convolutions=1, objectives=tuple(o for o, _ in RELEASED["crysae"]))
    init = lambda key, graph: module.init(key, graph, True)
    variables = jax.jit(init)(jax.random.key(0), batcher(rows))

    def loss(graph):
        return pretraining_loss(RELEASED["crysae"])(module.apply(variables, graph, False), graph)

    whole, parts = jax.jit(loss)(batcher(rows))
    # Three crystals, one, and none.
    graphs = stack([batcher(rows[:3]), batcher(rows[3:]), batcher(rows[:0])])
    on_devices = jax.vmap(lambda graph: loss(mark_spread(graph, "device")), axis_name="device")
    values, part_values = jax.jit(on_devices)(graphs)
    np.testing.assert_allclose(values, [float(whole)] * 3, rtol=1e-5)
    for name, value in parts.items():
        np.testing.assert_allclose(part_values[name], [float(value)] * 3, rtol=1e-5)
