"""Batches taken one after the other are one large batch, and need less memory."""

import jax
import numpy as np
import optax
import pytest

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher, Loader, lay_out, stack
from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.objectives.distillation import distil, standardised_loss
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.pretraining.teacher import Teacher
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.evaluation import Evaluator, compiled
from crysgnn_jax.training.rounds import one_by_one
from crysgnn_jax.training.step import (
    create_state,
    make_statistics_step,
    make_train_step,
    random_keys,
)
from toys import batcher_for_all, collection

ROWS = np.arange(11)
SHARES = [ROWS[:1], ROWS[1:6], ROWS[6:], ROWS[:0]]
"""Unequal numbers of crystals, and one batch with none."""


@pytest.fixture(scope="module")
def batcher(tmp_path_factory):
    store = build_store(
        crystal_list(collection(11)), FeaturiserSettings(), cache_dir=tmp_path_factory.mktemp("c")
    )
    teacher = np.random.default_rng(0).normal(size=(int(store.n_nodes.sum()), 8))
    # Some crystals have no label, and of four batches two have no crystal with one.
    label = np.where(ROWS % 3, store.labels("energy"), np.nan)
    return batcher_for_all(
        store,
        lists=("pairs",),
        more=5,
        label=label,
        node_columns={"teacher_embeddings": teacher.astype(np.float32)},
    )


class Frozen:
    """A network whose batch norms use the statistics that they have, so that no batch is seen by
    another."""

    def __init__(self, module):
        self.module = module

    def init(self, *arguments):
        return self.module.init(*arguments)

    def apply(self, variables, graph, train, *, mutable, rngs):
        del train, mutable
        outputs = self.module.apply(variables, graph, False, rngs=rngs)
        return outputs, {"batch_stats": variables["batch_stats"]}


def _network(kind):
    labels = property_loss(Standardiser(1.0, 0.5))
    if kind == "property":
        return CGCNN(width=8, n_convolutions=1, head_width=8), labels
    if kind == "distilled":
        return CGCNN(width=8, n_convolutions=1, head_width=8), distil(
            labels, standardised_loss, weight=0.5
        )
    objectives = RELEASED["crysgnn"]
    network = Teacher(8, n_convolutions=1, objectives=tuple(x for x, _ in objectives))
    return network, pretraining_loss(objectives)


def _step(batcher, kind, devices, *, frozen=True):
    """The state and the metrics after a step over `SHARES` in as many batches as there are."""
    module, loss = _network(kind)
    optimiser = optax.sgd(1.0)
    shares = SHARES if len(devices) == 4 else [ROWS]
    state = create_state(module, optimiser, jax.random.key(0), batcher(ROWS))
    used = Frozen(module) if frozen else module
    step = devices.compile(make_train_step(used, loss, optimiser))
    batch = devices.put(stack([batcher(rows) for rows in devices.own(shares)]))
    return devices.first(step(devices.replicate(state), batch))


@pytest.mark.parametrize(
    "kind, n_devices", [("property", 1), ("property", 3), ("distilled", 2), ("crysgnn", 2)]
)
def test_rounds_are_one_large_batch(batcher, kind, n_devices):
    whole, expected = _step(batcher, kind, Devices(1))
    state, metrics = _step(batcher, kind, Devices(n_devices).taking(4))
    assert Devices(n_devices).taking(4).rounds == -(-4 // n_devices)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=2e-5), name
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        state.params,
        whole.params,
    )


def test_batch_norms_see_the_rows_of_a_round(batcher):
    four, expected = _step(batcher, "property", Devices(4), frozen=False)
    two, metrics = _step(batcher, "property", Devices(2).taking(4), frozen=False)
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=0.3)
    assert metrics["loss"] != pytest.approx(expected["loss"], rel=1e-4)
    assert np.isfinite(metrics["gradient_norm"])


@pytest.mark.slow
def test_a_batch_in_parts_needs_less_memory(batcher):
    module, loss = CGCNN(), property_loss(Standardiser(1.0, 0.5))
    optimiser = optax.sgd(1.0)
    state = create_state(module, optimiser, jax.random.key(0), batcher(ROWS))

    def bytes_of(n_rounds, times):
        """Of ``n_rounds`` batches, each as large as ``times`` of the smallest."""
        sizes = batcher.sizes.sum(axis=0) * times
        budget = Budget(int(sizes[0]) + 8, int(sizes[1]) + 64, int(sizes[2]) + 1)
        devices = Devices(1).taking(n_rounds)
        made = Batcher(batcher.store, budget)
        batch = devices.put(stack([made(ROWS)] * n_rounds))
        step = jax.pmap(make_train_step(module, loss, optimiser), AXIS, devices=jax.devices()[:1])
        compiled = step.lower(devices.replicate(state), batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(8, 4) < 0.25 * bytes_of(1, 32)


def test_masks_are_those_of_the_batch_wherever_it_is(batcher):
    """Dropout and hidden elements are a function of a batch's place in its step."""
    keys = lambda _, turn: jax.random.key_data(random_keys(7, AXIS, turn)["corruption"])
    found = []
    for devices in (Devices(4), Devices(2).taking(4)):
        call = devices.compile(lambda graph: one_by_one(keys, graph))
        batch = devices.put(stack([batcher(rows) for rows in devices.own(SHARES)]))
        found.append(devices.of_batches(call(batch)))
    np.testing.assert_array_equal(*found)
    assert len(np.unique(found[0], axis=0)) == 4


def test_statistics_of_norms_are_taken_over_all_rounds(batcher):
    module, _ = _network("property")
    state = create_state(module, optax.sgd(1.0), jax.random.key(0), batcher(ROWS))
    found = []
    # Two steps of a batch each are a step of two rounds.
    for devices, steps in ((Devices(1), SHARES[1:3]), (Devices(1).taking(2), [SHARES[1:3]])):
        step, after = devices.compile(make_statistics_step(module)), devices.replicate(state)
        for n, rows in enumerate(steps, 1):
            rows = [rows] if len(devices) == 1 else rows
            batch = devices.put(stack([batcher(x) for x in devices.own(rows)]))
            after = step(after, batch, devices.replicate(np.float32(n)))
        found.append(devices.first(after.batch_stats))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), *found)


def test_evaluation_does_not_depend_on_the_devices(batcher):
    module, loss = _network("crysgnn")
    state = create_state(module, optax.sgd(1.0), jax.random.key(0), batcher(ROWS))
    names = ("pairs",)
    store = batcher.store
    made, _ = lay_out(store, ROWS, Needs(lists=names), 3)

    def apply(variables, graph):
        return module.apply(variables, graph, False)

    def crystals(variables, graph):
        return {"crystals": apply(variables, graph).crystals}

    def measure(outputs, graph):
        value, parts = loss(outputs, graph)
        return {"loss": value, **parts}

    found = []
    for devices in (Devices(4), Devices(2).taking(4), Devices(3).taking(4)):
        loader = Loader(made, devices)
        assert len(loader.steps(ROWS)[0]) == 4
        variables = devices.replicate(state.variables)
        measured = compiled(devices, apply, measure)
        means = Evaluator(devices, measured, loader).means(variables, ROWS)
        columns = Evaluator(devices, compiled(devices, crystals), loader).columns(variables, ROWS)
        found.append((means, columns))
    for means, columns in found[1:]:
        assert means == pytest.approx(found[0][0], rel=1e-5)
        np.testing.assert_allclose(columns["crystals"], found[0][1]["crystals"], atol=1e-6)
