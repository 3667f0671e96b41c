"""CGCNN against the numbers of the original implementation."""

import jax
import numpy as np
import pytest

from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.objectives.property import Standardiser, property_loss
from golden import (
    assert_close,
    assert_gradients_close,
    cgcnn_variables,
    graph_of,
    load,
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
