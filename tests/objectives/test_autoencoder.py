"""The auto-encoder's loss, crystal by crystal; its golden numbers are in test_crysae."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher, stack
from crysgnn_jax.crystals.elements import element_features
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.crysae import AutoencoderOutputs, CrysAE
from crysgnn_jax.models.pairs import TILE, count_blocks
from crysgnn_jax.objectives.autoencoder import (
    AutoencoderWeights,
    autoencoder_loss,
    connection_by_crystal,
)
from crysgnn_jax.objectives.pretraining import CONNECTION_CLASS_WEIGHTS
from golden import pairs_in_order
from toys import random_crystal


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    # Less than a tile of pairs, several, and a single atom.
    crystals = [random_crystal(n, seed=n, id=f"c{n}") for n in (3, 40, 1, 17)]
    directory = tmp_path_factory.mktemp("store")
    return build_store(crystal_list(crystals), FeaturiserSettings(), cache_dir=directory)


def _n_block(store):
    return int(count_blocks(store.n_nodes.astype(int)).sum()) + 2


def test_each_crystal_has_its_own_weighted_mean(store):
    graph = Batcher(store, Budget(nodes=72, edges=800, graphs=6))(np.arange(len(store)))
    n_block = _n_block(store)
    logits = jax.random.normal(jax.random.key(0), (n_block, 6, TILE, TILE))
    found = connection_by_crystal(logits, graph)
    log_probabilities = pairs_in_order(jax.nn.log_softmax(logits, axis=1), graph, n_block)
    pair = 0
    for row, n in enumerate(store.n_nodes.astype(int)):
        first = int(store.n_nodes[:row].sum())
        mine = (graph.receivers >= first) & (graph.receivers < first + n)
        counts = np.zeros((n, n), int)
        np.add.at(counts, (graph.receivers[mine] - first, graph.senders[mine] - first), 1)
        target = np.minimum(counts, 5).ravel()
        nll = -log_probabilities[pair : pair + n * n][np.arange(n * n), target]
        weights = np.take(CONNECTION_CLASS_WEIGHTS, target)
        assert float(found[row]) == pytest.approx(np.average(nll, weights=weights), rel=1e-5)
        pair += n * n
    assert not np.asarray(found[len(store) :]).any()


def test_total_by_hand(store):
    graph = Batcher(store, Budget(nodes=72, edges=800, graphs=6))(np.arange(len(store)))
    # Six equally likely classes; all features even but in the crystal of one atom, where they
    # are known for sure: a quarter of the crystals, whatever the number of its atoms.
    atom = int(store.n_nodes[:2].sum())
    features = np.zeros((72, 92), np.float32)
    features[atom] = 100.0 * (2.0 * element_features()[graph.nodes["species"][atom]] - 1.0)
    outputs = AutoencoderOutputs(
        embeddings=jnp.zeros((72, 64)),
        connection_logits=jnp.zeros((_n_block(store), 6, TILE, TILE)),
        feature_logits=jnp.asarray(features),
    )
    value, parts = autoencoder_loss()(outputs, graph)
    assert float(parts["connection"]) == pytest.approx(np.log(6), rel=1e-6)
    assert float(parts["feature"]) == pytest.approx(0.75 * np.log(2), rel=1e-5)
    assert float(value) == pytest.approx(0.9 * np.log(6) + 0.1 * 0.75 * np.log(2), rel=1e-6)
    only_features = autoencoder_loss(AutoencoderWeights(connection=0.0, feature=1.0))
    assert float(only_features(outputs, graph)[0]) == pytest.approx(0.75 * np.log(2), rel=1e-5)


def test_shares_of_devices_add_up(store):
    batcher, n_block = Batcher(store, Budget(nodes=72, edges=800, graphs=6)), _n_block(store)
    rows = np.arange(len(store))
    module = CrysAE(n_convolutions=1)
    init = lambda key, graph: module.init(key, graph, True, n_block=n_block)
    variables = jax.jit(init)(jax.random.key(0), batcher(rows))

    def loss(graph, axis_name=None):
        outputs = module.apply(variables, graph, False, n_block=n_block)
        return autoencoder_loss(axis_name=axis_name)(outputs, graph)

    whole, parts = jax.jit(loss)(batcher(rows))
    # Three crystals, one, and none.
    graphs = stack([batcher(rows[:3]), batcher(rows[3:]), batcher(rows[:0])])
    on_devices = jax.vmap(lambda graph: loss(graph, "device"), axis_name="device")
    shares, part_shares = jax.jit(on_devices)(graphs)
    assert float(shares.sum()) == pytest.approx(float(whole), rel=1e-5)
    for name, value in parts.items():
        assert float(part_shares[name].sum()) == pytest.approx(float(value), rel=1e-5)
