"""Arrays under torch names: settings read off them, and what does not fit. That the converted
networks compute what the originals do is tested beside each model."""

import jax
import numpy as np
import pytest

from crysgnn_jax.errors import UserError
from crysgnn_jax.interop.torch_names import KINDS, convert
from crysgnn_jax.models.cgcnn import CGCNN, CGCNNClassifier
from crysgnn_jax.models.crysxpp import CrysXPP
from crysgnn_jax.models.gatgnn import GATGNN
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.pretraining.teacher import CrysAE, Teacher
from golden import TWO_ATOMS, graph_of, load, under


def cgcnn_state(width=4, n_convolutions=2, head_width=3, n_more=0, n_outputs=1, n_basis=31):
    """The state dict of a small CGCNN, numbered through, so that no two entries are equal."""
    shapes = {"embedding.weight": (width, 92), "embedding.bias": (width,)}
    for layer in range(n_convolutions):
        prefix = f"convs.{layer}"
        shapes[f"{prefix}.fc_full.weight"] = (2 * width, 2 * width + n_basis)
        shapes[f"{prefix}.fc_full.bias"] = (2 * width,)
        for norm, size in (("bn1", 2 * width), ("bn2", width)):
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}.{norm}.{name}"] = (size,)
            shapes[f"{prefix}.{norm}.num_batches_tracked"] = ()
    shapes |= {"conv_to_fc.weight": (head_width, width), "conv_to_fc.bias": (head_width,)}
    for layer in range(n_more):
        shapes[f"fcs.{layer}.weight"] = (head_width, head_width)
        shapes[f"fcs.{layer}.bias"] = (head_width,)
    shapes |= {"fc_out.weight": (n_outputs, head_width), "fc_out.bias": (n_outputs,)}
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    return {
        name: np.arange(end - np.prod(shape), end, dtype=np.float32).reshape(shape)
        for (name, shape), end in zip(shapes.items(), ends)
    }


def same_shapes(module, variables):
    graph = graph_of(TWO_ATOMS)
    expected = jax.eval_shape(lambda: module.init(jax.random.key(0), graph, True))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda x: x.shape, dict(expected))


def test_settings_of_a_small_cgcnn():
    found = convert("cgcnn", cgcnn_state(n_more=2))
    assert found.settings == {
        "width": 4,
        "n_convolutions": 2,
        "head_width": 3,
        "n_hidden": 3,
        "embedding_bias": True,
        "cutoff": 6.0,
    }
    assert (found.mean, found.std, found.property, found.network) == (None,) * 3 + ("cgcnn",)
    same_shapes(CGCNN(**found.settings), found.variables)


def test_bare_names_and_names_below_params_are_the_same():
    state = cgcnn_state(n_outputs=2)
    file = {f"params/{name}": array for name, array in state.items()}
    file |= {
        "normalizer/mean": np.float64(2.0),
        "normalizer/std": np.array([3.0], np.float32),
        "args/target_column": np.array("band_gap"),
        "args/lr_milestones": np.array([100]),
        "epoch": np.array(7),
    }
    bare, full = convert("cgcnn", {**state, "epoch": np.array(7)}), convert("cgcnn", file)
    jax.tree.map(np.testing.assert_array_equal, bare.variables, full.variables)
    assert (full.mean, full.std, full.property) == (2.0, 3.0, "band_gap")
    assert full.network == "cgcnn-classifier"
    same_shapes(CGCNNClassifier(**full.settings), full.variables)


def test_gate_and_core_are_taken_apart():
    state = cgcnn_state()
    layer = convert("cgcnn", state).variables["params"]["encoder"]["convolution_0"]
    np.testing.assert_array_equal(layer["gate_kernel"], state["convs.0.fc_full.weight"][:4].T)
    np.testing.assert_array_equal(layer["core_kernel"], state["convs.0.fc_full.weight"][4:].T)
    np.testing.assert_array_equal(layer["core_norm"]["bias"], state["convs.0.bn1.bias"][4:])


def test_encoder_without_bias():
    state = cgcnn_state()
    del state["embedding.bias"]
    found = convert("cgcnn", state)
    assert not found.settings["embedding_bias"]
    same_shapes(CGCNN(**found.settings), found.variables)


@pytest.mark.parametrize(
    ("kind", "module"),
    [("crysgnn", Teacher), ("crysae", CrysAE), ("crysxpp", CrysXPP), ("gatgnn", GATGNN)],
)
def test_kinds(kind, module):
    found = convert(kind, under(load(kind), "params"))
    assert found.network == kind
    # The defaults are the released settings, and all of them are read off.
    assert module(**found.settings) == module()
    heads = {"objectives": tuple(x for x, _ in RELEASED[kind])} if kind in RELEASED else {}
    same_shapes(module(**heads), found.variables)


def test_weights_of_another_network():
    with pytest.raises(UserError, match="^m.pt does not fit `kind` alignn: atom_emb.*missing"):
        convert("alignn", cgcnn_state(), source="m.pt")


def _without(name):
    return {k: v for k, v in cgcnn_state().items() if k != name}


MISFITS = {
    "missing": (_without("convs.1.bn2.bias"), "convs.1.bn2.bias is missing"),
    "missing head": (_without("fc_out.weight"), "fc_out.weight is missing"),
    "empty": ({}, "embedding.weight is missing"),
    "unexpected": ({**cgcnn_state(), "mask": np.ones(92)}, "it has no use for mask"),
    "shape": (
        {**cgcnn_state(), "conv_to_fc.weight": np.ones((3, 5))},
        r"conv_to_fc.weight is \(3, 5\) and should be \(3, 4\)",
    ),
    "features": (
        {**cgcnn_state(), "embedding.weight": np.ones((4, 91))},
        r"embedding.weight is \(4, 91\) and should be \(4, 92\)",
    ),
    "axes": (
        {**cgcnn_state(), "embedding.weight": np.ones(4)},
        r"embedding.weight is \(4,\), not of 2 axes",
    ),
    "outputs": (
        cgcnn_state(n_outputs=3),
        r"fc_out.weight is \(3, 3\) and should be \(1, 3\)",
    ),
    "text": (
        {**cgcnn_state(), "embedding.bias": np.array(["a"] * 4)},
        "embedding.bias holds <U1, not numbers",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named(case):
    arrays, message = MISFITS[case]
    with pytest.raises(UserError, match=f"^m.npz does not fit `kind` cgcnn: {message}$"):
        convert("cgcnn", arrays, source="m.npz")


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"cgcnn"}))
def test_another_kind_is_refused(kind):
    with pytest.raises(UserError, match=f"does not fit `kind` {kind}: "):
        convert(kind, cgcnn_state())


def test_unknown_kind():
    with pytest.raises(UserError, match="`kind` schnet: there is cgcnn, crysgnn"):
        convert("schnet", {})
