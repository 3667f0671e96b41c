"""GATGNN against the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.batches.views import Batch, Links, Rows
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.gatgnn import GATGNN, NETWORK, composition
from crysgnn_jax.objectives.property import Standardiser, property_loss
from golden import (
    assert_close,
    double_precision,
    graph_of,
    load,
    under,
    variables_of,
    with_statistics,
)
from toys import collection, rocksalt

UNUSED = ("embed_comp", "cluster_att", "prelu")


@pytest.fixture(scope="module")
def golden():
    arrays = load("gatgnn")
    targets = arrays["train/target"][:, None]
    graph = graph_of(arrays, globals_={"labels": targets, "label_mask": np.ones_like(targets)})
    return arrays, graph, variables_of("gatgnn", under(arrays, "params"))


def test_parameter_count(golden):
    arrays, graph, _ = golden
    variables = jax.eval_shape(lambda: GATGNN().init(jax.random.key(0), graph, True))
    used = sum(x.size for x in jax.tree.leaves(variables["params"]))
    unused = sum(
        array.size
        for name, array in under(arrays, "params").items()
        if any(part in name for part in UNUSED)
    )
    assert (used, used + unused) == (122_874, 134_154)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(golden, mode):
    arrays, graph, variables = golden
    outputs, _ = GATGNN().apply(variables, graph, mode == "train", mutable=["batch_stats"])
    n_node, n_graph = len(arrays["crystals/numbers"]), len(arrays["crystals/n_atoms"])
    before_softplus = arrays[f"{mode}/agat3_bn"]
    assert_close(outputs.embeddings[:n_node], np.logaddexp(0.0, before_softplus))
    assert_close(outputs.prediction[:n_graph], arrays[f"{mode}/prediction"])


def test_composition(golden):
    arrays, graph, _ = golden
    fractions = composition(Batch(graph))
    assert_close(fractions[: len(arrays["crystals/n_atoms"])], arrays["graph/composition"])


def _loss_gradients_and_statistics(module, graph, variables):
    loss_function = property_loss(Standardiser(0.0, 1.0), kind=NETWORK.recipe.loss)

    def loss(params):
        outputs, updated = module.apply(
            {**variables, "params": params}, graph, True, mutable=["batch_stats"]
        )
        return loss_function(outputs, graph)[0], updated["batch_stats"]

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, updated), gradients = gradient(variables["params"])
    return value, gradients, updated


def _compare(arrays, mode, found, tolerance, noise):
    value, gradients, statistics = found
    assert_close(value, arrays[f"{mode}/loss"], tolerance)
    parameters = under(arrays, "params")
    after = variables_of("gatgnn", {**parameters, **under(arrays, f"{mode}/stats_after")})
    compare = lambda ours, theirs: assert_close(ours, theirs, tolerance)
    jax.tree.map(compare, statistics, after["batch_stats"])
    expected = with_statistics(under(arrays, f"{mode}/grad"), parameters)
    expected = variables_of("gatgnn", expected)["params"]
    # A bias in front of a batch norm or a softmax changes nothing.
    idle = [tree[f"attention_{k}"].pop("bias") for tree in (gradients, expected) for k in range(3)]
    for tree in (gradients, expected):
        idle.append(tree["composition_attention"]["output"].pop("bias"))
    assert max(np.abs(x).max() for x in idle) < noise
    jax.tree.map(compare, gradients, expected)


def test_loss_gradients_and_statistics(golden):
    """In float64, as some gradients nearly cancel: the original's own in float32 are off by up
    to 6e-4 of the largest entry."""
    arrays, graph, variables = golden
    with double_precision():
        distances = np.append(arrays["graph/distance"].ravel(), np.zeros(5))
        found = _loss_gradients_and_statistics(
            GATGNN(),
            graph._replace(edges={**graph.edges, "distances": distances}),
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables),
        )
        _compare(arrays, "train64", found, tolerance=1e-5, noise=1e-10)


def test_loss_gradients_and_statistics_in_single_precision(golden):
    arrays, graph, variables = golden
    found = _loss_gradients_and_statistics(GATGNN(), graph, variables)
    _compare(arrays, "train", found, tolerance=1e-3, noise=1e-3)


def test_softmax_over_links_by_hand():
    # Receiver 1 has none; a huge score does not overflow; padding counts for nothing.
    scores = jnp.array([[1000.0], [1000.0], [0.0], [np.log(3.0)], [50.0]])
    receivers, counts = jnp.array([0, 0, 2, 2, 2]), jnp.array([1.0, 1.0, 1.0, 1.0, 0.0])
    links = Links(receivers, receivers, counts, Rows(jnp.ones(4)))
    weights = links.softmax(scores)[:, 0]
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.25, 0.75, 0.0], rtol=1e-4)
    # Two equal links of one receiver share what they get.
    twice = Links(receivers, receivers, counts.at[2].set(2.0), Rows(jnp.ones(4)))
    np.testing.assert_allclose(twice.softmax(scores)[2:, 0], [0.2, 0.6, 0.0], rtol=1e-4)
    np.testing.assert_allclose(twice.sum(twice.softmax(scores))[:, 0], [1, 0, 1, 0], rtol=1e-4)
    padding = Links(jnp.array([0]), jnp.array([0]), jnp.zeros(1), Rows(jnp.zeros(1)))
    assert float(padding.softmax(scores[:1])[0, 0]) == 0.0


def _toy_store(directory, crystals):
    return build_store(crystal_list(crystals), FeaturiserSettings(), cache_dir=directory)


def _initial(module, graph):
    return jax.jit(lambda key, graph: module.init(key, graph, True))(jax.random.key(0), graph)


@pytest.mark.slow
def test_padding_adds_nothing(tmp_path):
    store = _toy_store(tmp_path, collection(6))
    n_node, n_edge = int(store.n_nodes.sum()), int(store.n_edges.sum())
    # The second as in a last batch that is nearly empty: all its padding edges end at one atom.
    budgets = Budget(n_node + 1, n_edge, 7), Budget(n_node + 150, n_edge + 4_000, 30)
    results, variables, module = [], None, GATGNN(n_layers=2)
    for budget in budgets:
        graph = Batcher(store, budget, label=store.labels("energy"))(np.arange(6))
        if variables is None:
            variables = _initial(module, graph)
        results.append(_loss_gradients_and_statistics(module, graph, variables))
    # Equal but for the order in which sums of other lengths are taken.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=3e-5), *results)


def test_isolated_atom_is_legal(tmp_path):
    lonely = Crystal("He", [2], np.zeros((1, 3)), 30 * np.eye(3), {"energy": 0.0})
    store = _toy_store(tmp_path, [lonely, rocksalt(labels={"energy": 1.0})])
    batcher = Batcher(store, Budget(nodes=16, edges=256, graphs=4), label=store.labels("energy"))
    graph = batcher(np.arange(2))
    assert graph.n_edge[0] == 0
    module = GATGNN(n_layers=1)
    variables = _initial(module, graph)
    for leaf in jax.tree.leaves(_loss_gradients_and_statistics(module, graph, variables)):
        assert np.isfinite(leaf).all()


def test_attention_must_be_known(golden):
    with pytest.raises(ValueError, match="'fixed': there is 'composition'"):
        GATGNN(attention="fixed").init(jax.random.key(0), golden[1], True)
