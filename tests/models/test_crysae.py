"""The crystal auto-encoder against the numbers of the original implementation."""

import jax
import numpy as np
import pytest

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.interop.checkpoints import read_checkpoint
from crysgnn_jax.interop.torch_names import convert
from crysgnn_jax.models.crysae import CrysAE
from crysgnn_jax.models.crysxpp import CrysXPP
from crysgnn_jax.models.pairs import count_blocks
from crysgnn_jax.objectives.autoencoder import autoencoder_loss
from golden import (
    assert_close,
    assert_gradients_close,
    graph_of,
    load,
    pairs_in_order,
    published,
    under,
    variables_of,
    with_statistics,
)
from toys import collection


@pytest.fixture(scope="module")
def golden():
    arrays = load("crysae")
    # Three blocks more than needed: spare blocks must not count.
    n_block = int(count_blocks(arrays["crystals/n_atoms"]).sum()) + 3
    return arrays, graph_of(arrays), n_block, variables_of("crysae", under(arrays, "params"))


def _apply(variables, graph, n_block, train):
    return CrysAE().apply(variables, graph, train, n_block=n_block, mutable=["batch_stats"])


def test_parameter_count(golden):
    _, graph, n_block, _ = golden
    init = lambda: CrysAE().init(jax.random.key(0), graph, True, n_block=n_block)
    variables = jax.eval_shape(init)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 102_924


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(golden, mode):
    arrays, graph, n_block, variables = golden
    outputs, _ = _apply(variables, graph, n_block, mode == "train")
    n_node = len(arrays["crystals/numbers"])
    assert_close(outputs.feature_logits[:n_node], arrays[f"{mode}/atom_feature_logits"])
    connection = jax.nn.log_softmax(outputs.connection_logits, axis=1)
    assert_close(pairs_in_order(connection, graph, n_block), arrays[f"{mode}/edge_log_prob"])


def test_embeddings(golden):
    arrays, graph, _, variables = golden
    embeddings = CrysAE().apply(variables, graph, method=CrysAE.embed)
    assert_close(embeddings[: len(arrays["crystals/numbers"])], arrays["eval/conv3"])


def test_loss_gradients_and_statistics(golden):
    arrays, graph, n_block, variables = golden

    def loss(params):
        outputs, updated = _apply({**variables, "params": params}, graph, n_block, True)
        value, parts = autoencoder_loss()(outputs, graph)
        return value, (parts, updated)

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (parts, updated)), gradients = gradient(variables["params"])
    assert_close(value, arrays["train/loss"])
    assert_close(parts["connection"], arrays["train/loss_connection"])
    assert_close(parts["feature"], arrays["train/loss_atom_feature"])
    parameters = under(arrays, "params")
    expected = with_statistics(under(arrays, "train/grad"), parameters)
    assert_gradients_close(gradients, variables_of("crysae", expected)["params"])
    after = variables_of("crysae", {**parameters, **under(arrays, "train/stats_after")})
    jax.tree.map(assert_close, updated["batch_stats"], after["batch_stats"])


def test_published_weights(golden):
    found = convert("crysae", read_checkpoint(published("crysae_pretrained")))
    assert found.settings == {"width": 64, "n_convolutions": 3, "cutoff": 8.0}
    jax.tree.map(np.testing.assert_array_equal, found.variables, golden[3])


def test_convolutions_fit_crysxpp(golden):
    _, graph, _, variables = golden
    target = CrysXPP().init(jax.random.key(0), graph, True)
    shapes = lambda tree: {
        name: jax.tree.map(np.shape, part)
        for name, part in tree["encoder"].items()
        if name.startswith("convolution")
    }
    for collection_name in ("params", "batch_stats"):
        assert shapes(variables[collection_name]) == shapes(target[collection_name])


def test_padding_adds_nothing(tmp_path):
    crystals = collection(6)
    store = build_store(crystal_list(crystals), FeaturiserSettings(), cache_dir=tmp_path)
    n_node, n_edge = int(store.n_nodes.sum()), int(store.n_edges.sum())
    n_block = int(count_blocks(store.n_nodes.astype(int)).sum())
    budgets = [
        (Budget(n_node + 1, n_edge, 7), n_block),
        (Budget(n_node + 150, n_edge + 20_000, 30), n_block + 40),
    ]
    results, variables = [], None
    for budget, blocks in budgets:
        graph = Batcher(store, budget)(np.arange(6))
        if variables is None:
            init = lambda key, graph: CrysAE().init(key, graph, True, n_block=n_block)
            variables = jax.jit(init)(jax.random.key(0), graph)

        def loss(params, variables=variables, graph=graph, blocks=blocks):
            outputs, updated = _apply({**variables, "params": params}, graph, blocks, True)
            value, parts = autoencoder_loss()(outputs, graph)
            return value, (parts, updated, outputs.embeddings[:n_node])

        results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"]))
    # Equal but for the order in which sums of other lengths are taken.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=5e-5, atol=1e-5), *results)
