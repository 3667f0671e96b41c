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
from crysgnn_jax.models.crysxpp import CrysXPP
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.pretraining.teacher import CrysAE
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
from toys import batcher_for_all, collection


@pytest.fixture(scope="module")
def golden():
    arrays = load("crysae")
    return arrays, graph_of(arrays), variables_of("crysae", under(arrays, "params"))


CRYSAE = CrysAE(objectives=tuple(objective for objective, _ in RELEASED["crysae"]))


def _apply(variables, graph, train):
    return CRYSAE.apply(variables, graph, train, mutable=["batch_stats"])


def test_parameter_count(golden):
    variables = jax.eval_shape(lambda: CRYSAE.init(jax.random.key(0), golden[1], True))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 102_924


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(golden, mode):
    arrays, graph, variables = golden
    outputs, _ = _apply(variables, graph, mode == "train")
    n_node = len(arrays["crystals/numbers"])
    assert_close(outputs.heads["feature"][:n_node], arrays[f"{mode}/atom_feature_logits"])
    connection = jax.nn.log_softmax(outputs.heads["connection"], axis=1)
    assert_close(pairs_in_order(connection, graph), arrays[f"{mode}/edge_log_prob"])


def test_embeddings(golden):
    arrays, graph, variables = golden
    embeddings = CrysAE().apply(variables, graph, method=CrysAE.embed)
    assert_close(embeddings[: len(arrays["crystals/numbers"])], arrays["eval/conv3"])


def test_loss_gradients_and_statistics(golden):
    arrays, graph, variables = golden

    def loss(params):
        outputs, updated = _apply({**variables, "params": params}, graph, True)
        value, parts = pretraining_loss(RELEASED["crysae"])(outputs, graph)
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
    jax.tree.map(np.testing.assert_array_equal, found.variables, golden[2])


def test_convolutions_fit_crysxpp(golden):
    _, graph, variables = golden
    target = CrysXPP().init(jax.random.key(0), graph, True)
    shapes = lambda tree: {
        name: jax.tree.map(np.shape, part)
        for name, part in tree["encoder"].items()
        if name.startswith("convolution")
    }
    for collection_name in ("params", "batch_stats"):
        assert shapes(variables[collection_name]) == shapes(target[collection_name])


@pytest.mark.slow
def test_padding_adds_nothing(tmp_path):
    store = build_store(crystal_list(collection(6)), FeaturiserSettings(), cache_dir=tmp_path)
    n_node = int(store.n_nodes.sum())
    tight = batcher_for_all(store, lists=("pairs",))
    more = {name: size + 40 for name, size in tight.budget.extra.items()}
    loose = Budget(n_node + 150, int(store.n_edges.sum()) + 20_000, 30, more)
    results, variables = [], None
    for budget in (tight.budget, loose):
        graph = Batcher(store, budget)(np.arange(6))
        if variables is None:
            init = lambda key, graph: CRYSAE.init(key, graph, True)
            variables = jax.jit(init)(jax.random.key(0), graph)

        def loss(params, graph, variables=variables):
            outputs, updated = _apply({**variables, "params": params}, graph, True)
            value, parts = pretraining_loss(RELEASED["crysae"])(outputs, graph)
            return value, (parts, updated, outputs.embeddings[:n_node])

        results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"], graph))
    # Equal but for the order in which sums of other lengths are taken.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=5e-5, atol=2e-5), *results)
