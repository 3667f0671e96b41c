"""The teacher against the numbers of the original implementation."""

import jax
import pytest

from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED, objectives_of
from crysgnn_jax.pretraining.teacher import Teacher
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
    return arrays, graph, teacher_variables(under(arrays, "params"))


TEACHER = Teacher(objectives=tuple(objective for objective, _ in RELEASED["crysgnn"]))


def _apply(variables, graph, train):
    return TEACHER.apply(variables, graph, train, mutable=["batch_stats"])


def test_parameter_count(golden):
    variables = TEACHER.init(jax.random.key(0), golden[1], True)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 162_162


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(golden, mode):
    arrays, graph, variables = golden
    outputs, _ = _apply(variables, graph, mode == "train")
    heads = outputs.heads
    n_node, n_graph = len(arrays["crystals/numbers"]), len(arrays["crystals/n_atoms"])
    assert_close(outputs.embeddings[:n_node], arrays[f"{mode}/atom_emb_l2"])
    assert_close(outputs.crystals[:n_graph], arrays[f"{mode}/graph_vector"])
    assert_close(heads["feature"][:n_node], arrays[f"{mode}/atom_feature_logits"])
    space_group = jax.nn.log_softmax(heads["space_group"][:n_graph])
    assert_close(space_group, arrays[f"{mode}/space_group_log_prob"])
    connection = jax.nn.log_softmax(heads["connection"], axis=1)
    assert_close(pairs_in_order(connection, graph), arrays[f"{mode}/edge_log_prob"])


def test_losses_and_statistics(golden):
    arrays, graph, variables = golden
    outputs, updated = _apply(variables, graph, True)
    total, parts = pretraining_loss(RELEASED["crysgnn"])(outputs, graph)
    assert_close(total, arrays["train/loss"])
    for ours, theirs in PARTS.items():
        assert_close(parts[ours], arrays[f"train/loss_{theirs}"])
    after = {**under(arrays, "params"), **under(arrays, "train/stats_after")}
    jax.tree.map(assert_close, updated["batch_stats"], teacher_variables(after)["batch_stats"])


def _gradient(golden, objectives):
    _, graph, variables = golden

    def loss(params):
        outputs, _ = _apply({**variables, "params": params}, graph, True)
        return pretraining_loss(objectives)(outputs, graph)[0]

    return jax.grad(loss)(variables["params"])


def test_gradients(golden):
    arrays = golden[0]
    gradients = _gradient(golden, RELEASED["crysgnn"])
    parameters = under(arrays, "params")
    expected = teacher_variables(with_statistics(under(arrays, "train/grad"), parameters))
    assert_gradients_close(gradients, expected["params"])


@pytest.mark.parametrize("part", PARTS)
def test_gradient_of_each_loss(golden, part):
    arrays = golden[0]
    objectives = objectives_of("crysgnn", {name: float(name == part) for name in PARTS})
    gradient = _gradient(golden, objectives)["encoder"]["embedding"]["kernel"]
    key = f"train/grad_of_loss_{PARTS[part]}/embedding.weight"
    assert_close(gradient.T, arrays[key])
