"""N devices with a batch each are one device with all of them."""

import contextlib

import jax
import numpy as np
import optax
import pytest

import crysgnn_jax.training.devices as devices_module
from crysgnn_jax.batches.loader import stack
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.objectives.distillation import distil
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.pretraining.teacher import CrysAE, Teacher
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.run import as_begun
from crysgnn_jax.training.step import create_state, make_train_step
from golden import double_precision
from toys import batcher_for_all, collection

ROWS = np.arange(11)
SHARES = {
    1: [ROWS],
    # Unequal numbers of crystals, and one device with none.
    2: [ROWS[:3], ROWS[3:]],
    4: [ROWS[:1], ROWS[1:6], ROWS[6:], ROWS[:0]],
}


@pytest.fixture(scope="module")
def batcher(tmp_path_factory):
    store = build_store(
        crystal_list(collection(11)), FeaturiserSettings(), cache_dir=tmp_path_factory.mktemp("c")
    )
    teacher = np.random.default_rng(0).normal(size=(int(store.n_nodes.sum()), 64))
    return batcher_for_all(
        store,
        lists=("pairs",),
        more=5,
        label=store.labels("energy"),
        node_columns={"teacher_embeddings": teacher.astype(np.float32)},
    )


def _as(dtype, tree):
    """The tree with all its float32 arrays in another precision."""
    arrays = jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float32 else x, arrays)


def _step(batcher, module, loss, n_devices, dtype):
    # Plain gradient descent with rate 1: the change of the parameters is the gradient.
    optimiser = optax.sgd(1.0)
    state = create_state(module, optimiser, jax.random.key(0), batcher(ROWS))
    graphs = stack([batcher(rows) for rows in SHARES[n_devices]])
    devices = Devices(n_devices)
    with double_precision() if dtype == np.float64 else contextlib.nullcontext():
        step = devices.compile(make_train_step(module, loss, optimiser))
        batch = devices.put(_as(dtype, graphs))
        after, metrics = step(devices.replicate(_as(dtype, state)), batch)
    assert {x.dtype for x in jax.tree.leaves(after.params)} == {np.dtype(dtype)}
    for leaf in map(np.asarray, jax.tree.leaves(after.params)):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[0], leaf.shape))
    assert step.compilations == 1
    return devices.first(after), devices.first(metrics)


@pytest.mark.parametrize(
    "kind",
    [
        "crysgnn",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("crysae", "property", "distilled")),
    ],
)
def test_devices_agree(batcher, kind):
    # The auto-encoder's gradients are so large that rounding alone reaches the bounds in float32.
    dtype = np.float64 if kind == "crysae" else np.float32
    if kind == "property":
        # Some crystals have no label, and of four devices two have no crystal with one.
        label = np.where(ROWS % 3, batcher.store.labels("energy"), np.nan)
        batcher = batcher_for_all(batcher.store, more=5, label=label)
        module = CGCNN(width=8, n_convolutions=1, head_width=8)
        loss = property_loss(Standardiser(1.0, 0.5))
    elif kind == "distilled":
        module = CGCNN(n_convolutions=2)
        loss = distil(property_loss(Standardiser(1.0, 0.5)), weight=0.5)
    else:
        network = {"crysgnn": Teacher, "crysae": CrysAE}[kind]
        module = network(
            width=16,
            n_convolutions=2,
            objectives=tuple(objective for objective, _ in RELEASED[kind]),
        )
        loss = pretraining_loss(RELEASED[kind])
    one, metrics_of_one = _step(batcher, module, loss, 1, dtype)
    for n_devices in (2, 4):
        several, metrics = _step(batcher, module, loss, n_devices, dtype)
        for name, value in metrics_of_one.items():
            assert metrics[name] == pytest.approx(value, rel=2e-5), name
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
            (several.params, several.batch_stats),
            (one.params, one.batch_stats),
        )


def test_too_many_devices():
    with pytest.raises(UserError, match="`devices` 64: this machine has 4 .*XLA_FLAGS"):
        Devices(64)


def test_a_run_goes_on_with_the_batches_that_its_steps_have(tmp_path):
    devices = Devices(2)
    assert len(as_begun(devices, tmp_path)) == 2
    (tmp_path / "config.json").write_text('{"made_with": {"network": "cgcnn", "devices": 4}}')
    found = as_begun(devices, tmp_path)
    assert (len(found), found.rounds) == (4, 2)
    assert str(found).endswith("2 × cpu (cpu), 4 batches a step")
    assert len(as_begun(devices, tmp_path, anew=True)) == 2
    # More than are needed are not used.
    assert str(as_begun(Devices(), tmp_path)) == "4 × cpu (cpu)"
    assert str(Devices().taking(3)) == "3 × cpu (cpu)"
    # The k-th of a round is the k-th device's.
    rows = [np.array([k]) for k in range(4)]
    assert [x.tolist() for x in found.own(rows)] == [[0], [2], [1], [3]]
    assert [x.tolist() for x in Devices(3).taking(4).own(rows)][-2:] == [[2], []]


def test_a_second_compilation_is_refused():
    devices = Devices(1)
    double = devices.compile(lambda x: 2 * x)
    assert devices.first(double(devices.replicate(np.ones(3)))).tolist() == [2, 2, 2]
    double(devices.replicate(np.zeros(3)))
    assert double.compilations == 1
    with pytest.raises(RuntimeError, match=r"compiled again: .*float32\[4\]"):
        double(devices.replicate(np.ones(4, np.float32)))


def test_of_many_programs_those_of_before_are_let_go_and_made_again(monkeypatch):
    """A process that trained some sixty times had no memory maps left."""
    monkeypatch.setattr(devices_module, "KEPT", 3)
    monkeypatch.setattr(devices_module, "_programs", devices_module._Programs())
    devices = Devices(1)
    x = devices.replicate(np.ones(3))
    programs = []
    for k in range(6):
        programs.append(devices.compile(lambda x, k=k: k * x))
        programs[-1](x)
    assert devices_module._programs.times == 1
    for k, program in enumerate(programs):
        assert devices.first(program(x)).tolist() == [k] * 3
        assert program.compilations == 1
    with pytest.raises(RuntimeError, match="compiled again"):
        programs[0](devices.replicate(np.ones(4)))


def test_programs_for_any_shape_are_compiled_once_for_each():
    devices = Devices(1)
    double = devices.compile(lambda x: 2 * x, any_shape=True)
    for n in (3, 4, 3, 4):
        assert devices.first(double(devices.replicate(np.ones(n)))).tolist() == [2] * n
    assert double.compilations == 2


def test_each_device_by_itself():
    singles = Devices(3).each()
    assert [len(single) for single in singles] == [1, 1, 1]
    used = [single.replicate(np.ones(2)).devices().pop() for single in singles]
    assert used == jax.local_devices()[:3]
