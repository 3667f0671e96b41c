"""CGCNN against the numbers of the original implementation."""

import jax
import numpy as np
import pytest

from crysgnn_jax.interop.checkpoints import read_checkpoint
from crysgnn_jax.interop.torch_names import convert
from crysgnn_jax.models.cgcnn import CGCNN, CGCNNClassifier, FineTuned
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.pretraining.teacher import Teacher
from golden import (
    TWO_ATOMS,
    assert_close,
    assert_gradients_close,
    cgcnn_variables,
    graph_of,
    load,
    published,
    under,
    with_statistics,
)


def _golden(name):
    arrays = load(name)
    targets = arrays.get("train/target", np.zeros(len(arrays["crystals/n_atoms"])))[:, None]
    graph = graph_of(
        arrays,
        globals_={"labels": targets.astype(np.float32), "label_mask": np.ones(targets.shape)},
    )
    return arrays, graph, cgcnn_variables(under(arrays, "params"))


@pytest.fixture(scope="module")
def golden():
    return _golden("cgcnn")


def test_parameter_count(golden):
    variables = CGCNN().init(jax.random.key(0), golden[1], True)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 80_833


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(golden, mode):
    arrays, graph, variables = golden
    outputs, _ = CGCNN().apply(variables, graph, mode == "train", mutable=["batch_stats"])
    n_node, n_graph = len(arrays["crystals/numbers"]), len(arrays["crystals/n_atoms"])
    assert_close(outputs.embeddings[:n_node], arrays[f"{mode}/conv3"])
    assert_close(outputs.prediction[:n_graph], arrays[f"{mode}/prediction_normed"])


def test_loss_gradients_and_statistics(golden):
    arrays, graph, variables = golden
    loss_function = property_loss(
        Standardiser(float(arrays["train/target_mean"]), float(arrays["train/target_std"]))
    )

    def loss(params):
        outputs, updated = CGCNN().apply(
            {**variables, "params": params}, graph, True, mutable=["batch_stats"]
        )
        return loss_function(outputs, graph)[0], updated

    (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    assert_close(value, arrays["train/loss"])
    parameters = under(arrays, "params")
    expected = cgcnn_variables(with_statistics(under(arrays, "train/grad"), parameters))
    assert_gradients_close(gradients, expected["params"])
    after = cgcnn_variables({**parameters, **under(arrays, "train/stats_after")})
    jax.tree.map(assert_close, updated["batch_stats"], after["batch_stats"])


def test_published_weights():
    arrays, graph, variables = _golden("cgcnn_published")
    model = CGCNN(n_convolutions=4, head_width=32)
    outputs = model.apply(variables, graph, False)
    n_graph = len(arrays["crystals/n_atoms"])
    normaliser = Standardiser(float(arrays["normalizer/mean"]), float(arrays["normalizer/std"]))
    assert_close(normaliser.invert(outputs.prediction[:n_graph]), arrays["eval/prediction"])


@pytest.mark.parametrize(
    "name",
    [
        "band-gap",
        "bulk-moduli",
        "efermi",
        "final-energy-per-atom",
        "formation-energy-per-atom",
        "poisson-ratio",
        "shear-moduli",
    ],
)
def test_published_checkpoints(golden, name):
    found = convert("cgcnn", read_checkpoint(published(f"cgcnn_{name}")))
    assert found.property == name.replace("-", "_") and found.network == "cgcnn"
    outputs = CGCNN(**found.settings).apply(found.variables, golden[1], False)
    expected = load("checkpoints_eval")[f"prediction/cgcnn_{name}"]
    assert_close(found.std * outputs.prediction[: len(expected)] + found.mean, expected)


def test_published_classifier(golden):
    found = convert("cgcnn", read_checkpoint(published("cgcnn_semi-metal-classification")))
    assert found.network == "cgcnn-classifier"
    outputs = CGCNNClassifier(**found.settings).apply(found.variables, golden[1], False)
    expected = load("checkpoints_eval")["prediction/cgcnn_semi-metal-classification"]
    assert_close(outputs.prediction[: len(expected)], np.exp(expected[:, 1]))


def test_encoder_without_bias_is_the_teachers():
    graph = graph_of(TWO_ATOMS)
    student, key = CGCNN(n_convolutions=5, embedding_bias=False), jax.random.key(0)
    ours = jax.eval_shape(lambda: student.init(key, graph, True))
    theirs = jax.eval_shape(lambda: Teacher().init(key, graph, True))
    for kind in ("params", "batch_stats"):
        assert ours[kind]["encoder"] == theirs[kind]["encoder"]


def test_frozen_encoder_stays_as_it_is():
    graph = graph_of(TWO_ATOMS)
    module = FineTuned(n_convolutions=1, freeze_encoder=True)
    variables = module.init(jax.random.key(0), graph, True)

    def total(params):
        outputs, updated = module.apply(
            {**variables, "params": params}, graph, True, mutable=["batch_stats"]
        )
        return outputs.prediction.sum(), (outputs, updated)

    (_, (outputs, updated)), gradients = jax.value_and_grad(total, has_aux=True)(
        variables["params"]
    )
    assert not any(x.any() for x in jax.tree.leaves(gradients["encoder"]))
    assert gradients["hidden_0"]["kernel"].any()
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    for thawed in (FineTuned(n_convolutions=1), CGCNN(n_convolutions=1)):
        prediction = thawed.apply(variables, graph, False).prediction
        np.testing.assert_array_equal(outputs.prediction, prediction)
