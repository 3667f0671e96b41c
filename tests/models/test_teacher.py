"""The teacher against the numbers of the original implementation."""

import jax
import pytest

from crysgnn_jax.models.pairs import count_blocks
from crysgnn_jax.models.teacher import Teacher
from crysgnn_jax.objectives.pretraining import PretrainingWeights, pretraining_loss
from golden import (
    assert_close,
    assert_gradients_close,
    graph_of,
    load,
    pairs_in_order,
    teacher_variables,
    under,
    with_statistics,
)

PARTS = {
    "connection": "connection",
    "feature": "atom_feature",
    "space_group": "space_group",
    "contrastive": "contrastive",
}


@pytest.fixture(scope="module")
def golden():
    arrays = load("crysgnn")
    graph = graph_of(
        arrays,
        globals_={
            "space_group": arrays["train/target_space_group"] + 1,
            "crystal_system": arrays["train/target_crystal_system"],
        },
    )
    # Three blocks more than needed: spare blocks must not count.
    n_block = int(count_blocks(arrays["crystals/n_atoms"]).sum()) + 3
    return arrays, graph, n_block, teacher_variables(under(arrays, "params"))


def _apply(variables, graph, n_block, train):
    return Teacher().apply(variables, graph, train, n_block=n_block, mutable=["batch_stats"])


def test_parameter_count(golden):
    _, graph, n_block, _ = golden
    variables = Teacher().init(jax.random.key(0), graph, True, n_block=n_block)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 162_162


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(golden, mode):
    arrays, graph, n_block, variables = golden
    outputs, _ = _apply(variables, graph, n_block, mode == "train")
    n_node, n_graph = len(arrays["crystals/numbers"]), len(arrays["crystals/n_atoms"])
    assert_close(outputs.embeddings[:n_node], arrays[f"{mode}/atom_emb_l2"])
    assert_close(outputs.crystals[:n_graph], arrays[f"{mode}/graph_vector"])
    assert_close(outputs.feature_logits[:n_node], arrays[f"{mode}/atom_feature_logits"])
    space_group = jax.nn.log_softmax(outputs.space_group_logits[:n_graph])
    assert_close(space_group, arrays[f"{mode}/space_group_log_prob"])
    connection = jax.nn.log_softmax(outputs.connection_logits, axis=1)
    assert_close(pairs_in_order(connection, graph, n_block), arrays[f"{mode}/edge_log_prob"])


def test_losses_and_statistics(golden):
    arrays, graph, n_block, variables = golden
    outputs, updated = _apply(variables, graph, n_block, True)
    total, parts = pretraining_loss()(outputs, graph)
    assert_close(total, arrays["train/loss"])
    for ours, theirs in PARTS.items():
        assert_close(parts[ours], arrays[f"train/loss_{theirs}"])
    after = {**under(arrays, "params"), **under(arrays, "train/stats_after")}
    jax.tree.map(assert_close, updated["batch_stats"], teacher_variables(after)["batch_stats"])


def _gradient(golden, weights):
    _, graph, n_block, variables = golden

    def loss(params):
        outputs, _ = _apply({**variables, "params": params}, graph, n_block, True)
        return pretraining_loss(weights)(outputs, graph)[0]

    return jax.grad(loss)(variables["params"])


def test_gradients(golden):
    arrays = golden[0]
    gradients = _gradient(golden, PretrainingWeights())
    parameters = under(arrays, "params")
    expected = teacher_variables(with_statistics(under(arrays, "train/grad"), parameters))
    assert_gradients_close(gradients, expected["params"])


@pytest.mark.parametrize("part", PARTS)
def test_gradient_of_each_loss(golden, part):
    arrays = golden[0]
    weights = PretrainingWeights(**{name: float(name == part) for name in PARTS})
    gradient = _gradient(golden, weights)["encoder"]["embedding"]["kernel"]
    key = f"train/grad_of_loss_{PARTS[part]}/embedding.weight"
    assert_close(gradient.T, arrays[key])
