"""CrysXPP against the numbers of the original implementation, and what it explains."""

import jax
import numpy as np
import pytest

from crysgnn_jax.crystals.elements import PROPERTY_BINS
from crysgnn_jax.interop.checkpoints import read_checkpoint
from crysgnn_jax.interop.torch_names import convert
from crysgnn_jax.models.crysxpp import CrysXPP, element_property_weights
from crysgnn_jax.objectives.property import Standardiser, property_loss
from golden import (
    assert_close,
    assert_gradients_close,
    graph_of,
    load,
    published,
    under,
    variables_of,
    with_statistics,
)


@pytest.fixture(scope="module")
def golden():
    arrays = load("crysxpp")
    targets = arrays["train/target"][:, None]
    graph = graph_of(arrays, globals_={"labels": targets, "label_mask": np.ones_like(targets)})
    return arrays, graph, variables_of("crysxpp", under(arrays, "params"))


def test_parameter_count(golden):
    params = CrysXPP().init(jax.random.key(0), golden[1], True)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == 80_925
    np.testing.assert_array_equal(params["selector"], np.ones(92))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(golden, mode):
    arrays, graph, variables = golden
    outputs, _ = CrysXPP().apply(variables, graph, mode == "train", mutable=["batch_stats"])
    n_node, n_graph = len(arrays["crystals/numbers"]), len(arrays["crystals/n_atoms"])
    assert_close(outputs.embeddings[:n_node], arrays[f"{mode}/conv3"])
    assert_close(outputs.prediction[:n_graph], arrays[f"{mode}/prediction_normed"])


def _loss_and_gradients(golden, selector_l1):
    arrays, graph, variables = golden
    loss_function = property_loss(
        Standardiser(float(arrays["train/target_mean"]), float(arrays["train/target_std"]))
    )

    def loss(params):
        outputs, updated = CrysXPP(selector_l1=selector_l1).apply(
            {**variables, "params": params}, graph, True, mutable=["batch_stats"]
        )
        value, parts = loss_function(outputs, graph)
        return value, (parts, updated)

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


def test_loss_gradients_and_statistics(golden):
    arrays = golden[0]
    # As released: without the penalty.
    (value, (parts, updated)), gradients = _loss_and_gradients(golden, 0.0)
    assert "penalty" not in parts
    assert_close(value, arrays["train/loss"])
    parameters = under(arrays, "params")
    expected = with_statistics(under(arrays, "train/grad"), parameters)
    assert_gradients_close(gradients, variables_of("crysxpp", expected)["params"])
    after = variables_of("crysxpp", {**parameters, **under(arrays, "train/stats_after")})
    jax.tree.map(assert_close, updated["batch_stats"], after["batch_stats"])


def test_penalty(golden):
    arrays = golden[0]
    (value, (parts, _)), gradients = _loss_and_gradients(golden, 0.01)
    assert_close(parts["penalty"], 0.01 * arrays["train/mean_abs_mask"])
    assert_close(value, arrays["train/loss"] + 0.01 * arrays["train/mean_abs_mask"])
    slope = 0.01 * np.sign(arrays["params/mask"]) / 92
    assert_close(gradients["selector"], arrays["train/grad/mask"] + slope)


def test_published_weights():
    arrays = load("cgcnn")  # the graphs of the same crystals
    found = convert("crysxpp", read_checkpoint(published("crysxpp_best")))
    outputs = CrysXPP(**found.settings).apply(found.variables, graph_of(arrays), False)
    expected = load("checkpoints_eval")["prediction/crysxpp_best"]
    assert_close(found.std * outputs.prediction[: len(expected)] + found.mean, expected)


def test_element_property_weights():
    # Two bins of the period and all of the block count; the sign does not.
    selector = np.zeros(92)
    selector[[19, 20]] = -0.7, 1.4
    selector[78:82] = -0.5
    ranked = element_property_weights(selector)
    assert [name for name, _ in ranked[:2]] == ["block", "period"]
    assert ranked[0][1] == pytest.approx(0.5)
    assert ranked[1][1] == pytest.approx(2.1 / 7)
    assert {name for name, _ in ranked} == set(PROPERTY_BINS)
    assert all(weight == 0 for _, weight in ranked[2:])
