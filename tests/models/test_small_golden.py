"""The small golden files: they are what the large ones hold; and CrysAE, whose golden parameters
are published weights and stay outside, against the same formulas in NumPy."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden_files
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.pretraining.teacher import CrysAE
from golden import (
    REFERENCE,
    assert_close,
    double_precision,
    graph_of,
    load,
    under,
    variables_of,
    with_statistics,
)

spec = importlib.util.spec_from_file_location("make_golden", golden_files.SMALL / "make_golden.py")
make_golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_golden)

SOURCES = {name: source for name, (source, _) in make_golden.COMMON.items()}
SOURCES |= {name: name for name in make_golden.FILES}


@pytest.mark.parametrize("name", SOURCES)
def test_small_files_are_parts_of_the_large(name):
    """Parameters that are drawn again included: in every bit."""
    if not (REFERENCE / f"{SOURCES[name]}.npz").exists():
        pytest.skip(f"needs the large golden file {SOURCES[name]}.npz")
    large, small = load(SOURCES[name]), golden_files.read(name)
    assert small
    for key, array in small.items():
        assert (array.dtype, array.shape) == (large[key].dtype, large[key].shape)
        known = array == array  # NaN elsewhere
        assert known.any()
        np.testing.assert_array_equal(array[known], large[key][known])


@pytest.fixture(scope="module")
def original():
    """The numbers of the original auto-encoder."""
    arrays = load("crysae")
    return arrays, under(arrays, "params")


def _norm(direction, gradient):
    """How large the slope along a random direction is, about."""
    return np.sqrt(sum(np.sum((gradient[k] * direction[k]) ** 2.0) for k in direction))


def test_formulas_are_the_originals(original):
    arrays, parameters = original
    parameters = {k: v for k, v in parameters.items() if "num_batches" not in k}
    found = make_golden.crysae_numbers(arrays, parameters)
    expected = {k.replace("64/", "/", 1): v for k, v in arrays.items() if "64/" in k}
    keys = [k for k in found if k in expected]
    assert len(keys) == 3 + 2 + 3 + 12
    for key in keys:
        assert_close(found[key], expected[key], 1e-5)
    gradient = {k: v.astype(float) for k, v in under(expected, "train/grad").items()}
    directions = make_golden.directions(parameters)
    slopes = make_golden.CrysAE(arrays).slopes(make_golden.double(parameters), directions)
    for direction, slope in zip(directions, slopes):
        theirs = sum(np.sum(gradient[k] * direction[k]) for k in direction)
        assert abs(slope - theirs) < 1e-5 * _norm(direction, gradient) + 1e-8


@pytest.fixture(scope="module")
def crysae():
    """Numbers of the formulas, the parameters, and a batch and variables of these."""
    arrays = load("crysgnn")
    parameters = make_golden.crysae_parameters(arrays)
    numbers = golden_files.read("crysae_formulas")
    return numbers, parameters, graph_of(arrays), variables_of("crysae", parameters)


CRYSAE = CrysAE(objectives=tuple(objective for objective, _ in RELEASED["crysae"]))
LOSS = pretraining_loss(RELEASED["crysae"])


def _apply(variables, graph, train):
    return CRYSAE.apply(variables, graph, train, mutable=["batch_stats"])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_crysae(crysae, mode):
    numbers, parameters, graph, variables = crysae
    outputs, updated = _apply(variables, graph, mode == "train")
    value, parts = LOSS(outputs, graph)
    n_node = len(numbers[f"{mode}/conv3"])
    assert_close(outputs.embeddings[:n_node], numbers[f"{mode}/conv3"])
    assert_close(outputs.heads["feature"][:n_node], numbers[f"{mode}/atom_feature_logits"])
    assert_close(value, numbers[f"{mode}/loss"])
    assert_close(parts["connection"], numbers[f"{mode}/loss_connection"])
    assert_close(parts["feature"], numbers[f"{mode}/loss_atom_feature"])
    after = parameters | {k: v for k, v in under(numbers, f"{mode}/stats_after").items()}
    expected = variables_of("crysae", after)["batch_stats"]
    jax.tree.map(assert_close, updated["batch_stats"], expected)


def test_crysae_has_the_teachers_convolutions(crysae):
    """The third convolution's output in the original teacher."""
    _, _, graph, variables = crysae
    expected = load("crysgnn")["eval/conv3"]
    outputs, _ = _apply(variables, graph, False)
    assert_close(outputs.embeddings[: len(expected)], expected)


def test_crysae_slopes(crysae):
    numbers, parameters, graph, variables = crysae

    def loss(params, graph):
        outputs, _ = _apply({**variables, "params": params}, graph, True)
        return LOSS(outputs, graph)[0]

    # In float64, for a bias in front of a batch norm has a gradient of nothing but rounding.
    with double_precision():
        params, double = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float64 if x.dtype.kind == "f" else x.dtype),
            (variables["params"], graph),
        )
        gradient = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params, double))
    zero = {k: np.zeros_like(v) for k, v in parameters.items() if "running" not in k}
    directions = make_golden.directions(parameters)
    assert len(directions) == len(numbers["train/slopes"]) == 2 * (len(zero) + 1)
    for direction, theirs in zip(directions, numbers["train/slopes"]):
        tree = variables_of("crysae", with_statistics({**zero, **direction}, parameters))
        terms = jax.tree.map(
            lambda x, y: np.ravel(np.float64(x) * y), dict(gradient), tree["params"]
        )
        terms = np.concatenate(jax.tree.leaves(terms))
        assert abs(terms.sum() - theirs) < 1e-4 * np.sqrt(np.sum(terms**2)) + 1e-6
