"""Objectives that hide or disturb: what they hide, what they ask, and what must not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.pretraining.hidden_distances import NOWHERE, HiddenDistances
from crysgnn_jax.pretraining.hidden_scale import HiddenScale
from crysgnn_jax.pretraining.masked_elements import MaskedElements
from crysgnn_jax.pretraining.objective import (
    pretraining_loss,
    pretraining_metrics,
    with_trivial_losses,
)
from crysgnn_jax.pretraining.oxidation_states import OxidationStates
from crysgnn_jax.pretraining.registry import objectives_of
from crysgnn_jax.pretraining.teacher import Teacher
from toys import caesium_chloride, collection, one_batch, perovskite, rocksalt

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    crystals = [rocksalt(), perovskite(), caesium_chloride(), *collection(5)]
    return build_store(
        crystal_list(crystals), FeaturiserSettings(), cache_dir=tmp_path_factory.mktemp("c")
    )


def on_device(graph):
    return jax.tree.map(jnp.asarray, graph)


@pytest.fixture(scope="module")
def batch(store):
    columns = OxidationStates().columns(store)
    return Batch(on_device(one_batch(store, graphs=store.reduced, more=3, node_columns=columns)))


def losses(objectives, module, variables, graph):
    """Losses of a module in evaluation mode, the corruption always the same."""
    outputs = module.apply(variables, graph, False, rngs={"corruption": KEY})
    value, parts = pretraining_loss(objectives)(outputs, graph)
    more = pretraining_metrics(objectives, outputs, graph)
    return with_trivial_losses(objectives, {"loss": value, **parts, **more})


# Where all is hidden or nothing is drawn by atom, whole and reduced graphs see the same.
ALL_HIDDEN = {
    "masked_elements": MaskedElements(fraction=1.0),
    "hidden_scale": HiddenScale(),
    "hidden_distances": HiddenDistances(fraction=1.0),
}


@pytest.mark.parametrize("name", ALL_HIDDEN)
def test_reduced_graphs_and_padding_change_no_loss(store, name):
    objectives = ((ALL_HIDDEN[name], 1.0),)
    module = Teacher(width=16, n_convolutions=2, unit_length=False, objectives=(ALL_HIDDEN[name],))
    full = on_device(one_batch(store))
    # Within a crystal nothing may depend on how many rows there are; between crystals the draw
    # is by their number, so that is kept.
    reduced = on_device(one_batch(store, graphs=store.reduced))
    padded = full._replace(
        nodes={name: jnp.pad(x, [(0, 5)] + [(0, 0)] * (x.ndim - 1)) for name, x in
               full.nodes.items()},
        n_node=full.n_node.at[-1].add(5),
    )  # fmt: skip
    variables = module.init({"params": KEY, "corruption": KEY}, full, True)
    expected = losses(objectives, module, variables, full)
    for graph in (reduced, padded):
        found = losses(objectives, module, variables, graph)
        assert found == {key: pytest.approx(float(x), rel=2e-5) for key, x in expected.items()}


@pytest.mark.parametrize("objective", [MaskedElements(), HiddenScale(), HiddenDistances()])
def test_corruption_is_a_function_of_the_key(batch, objective):
    ours, again, other = (
        jax.tree.leaves(objective.corrupt(batch, key).graph)
        for key in (KEY, KEY, jax.random.key(4))
    )
    assert all(np.array_equal(a, b) for a, b in zip(ours, again))
    assert not all(np.array_equal(a, b) for a, b in zip(ours, other))


def test_masked_elements_by_hand(batch):
    objective = MaskedElements(fraction=0.5)
    seen = objective.corrupt(batch, KEY)
    hidden = np.asarray(seen.species != batch.species)
    assert 0 < hidden.sum() < (np.asarray(batch.species) > 0).sum()
    counts = np.asarray(batch.graph.nodes["count"])
    # Always iron, three to one against all others together.
    outputs = jnp.zeros((len(hidden), 101)).at[:, 26].set(np.log(300.0))
    is_iron = np.asarray(batch.species) == 26
    nll = np.where(is_iron, np.log(400.0 / 300.0), np.log(400.0))
    expected = np.sum((nll * counts)[hidden]) / counts[hidden].sum()
    assert objective.loss(outputs, batch, seen) == pytest.approx(expected, rel=1e-5)
    right = objective.metrics(outputs, batch, seen)["masked_elements_accuracy"]
    assert right == pytest.approx((is_iron * counts)[hidden].sum() / counts[hidden].sum(), abs=1e-6)


def test_hidden_scale_stretches_each_crystal_as_a_whole(batch):
    objective = HiddenScale(range=0.2)
    seen = objective.corrupt(batch, KEY)
    real = np.asarray(batch.graph.edges["count"]) > 0
    stretch = np.log(np.asarray(seen.distances / batch.distances)[real])
    crystal = np.asarray(batch.crystal_of_node[batch.edges.receivers])[real]
    share = np.asarray(seen.graph.globals["hidden_scale"])
    np.testing.assert_allclose(stretch, 0.2 * share[crystal], atol=1e-6)
    crystals = np.asarray(batch.crystals.weights) > 0
    assert np.ptp(share[crystals]) > 0.3 and np.abs(share).max() <= 1
    assert objective.loss(jnp.asarray(share), batch, seen) == 0.0
    always_nothing = objective.loss(jnp.zeros_like(share), batch, seen)
    assert always_nothing == pytest.approx(np.mean(share[crystals] ** 2), rel=1e-5)


def test_hidden_distances_are_told_as_they_would_have_been_seen(batch):
    stretched = HiddenScale().corrupt(batch, KEY)
    objective = HiddenDistances(fraction=0.5)
    seen = objective.corrupt(stretched, KEY)
    real = np.asarray(batch.graph.edges["count"]) > 0
    hidden = np.asarray(seen.distances == NOWHERE) & real
    assert 0.3 < hidden.sum() / real.sum() < 0.7
    shown = real & ~hidden
    np.testing.assert_array_equal(
        np.asarray(seen.distances)[shown], np.asarray(stretched.distances)[shown]
    )
    right = (stretched.distances - 3.0) / objective.unit
    assert objective.loss(right, batch, seen) == 0.0
    # What was shown may be answered at will.
    anything = jnp.where(jnp.asarray(hidden), right, 99.0)
    assert objective.loss(anything, batch, seen) == 0.0
    assert objective.loss(right + 2.0, batch, seen) == pytest.approx(4.0, rel=1e-5)


def test_an_edge_of_hidden_distance_has_no_feature(batch):
    from crysgnn_jax.models.layers import gaussian_basis

    assert float(jnp.max(gaussian_basis(jnp.array([NOWHERE])))) == 0.0


def test_trivial_losses_are_those_of_the_best_constant_answer(store, batch):
    objectives = objectives_of("chemistry")
    module = Teacher(
        width=8, n_convolutions=1, unit_length=False, objectives=tuple(x for x, _ in objectives)
    )
    variables = module.init({"params": KEY, "corruption": KEY}, batch.graph, True)
    found = losses(objectives, module, variables, batch.graph)
    species, counts = (np.asarray(batch.graph.nodes[name]) for name in ("species", "count"))
    shares = np.bincount(species, counts)
    shares = shares[shares > 0] / counts.sum()
    assert found["masked_elements_trivial"] == pytest.approx(-np.sum(shares * np.log(shares)))
    assert found["hidden_scale_trivial"] == pytest.approx(1 / 3)
    # Of all edges, stretched as they were in this batch.
    edges = batch.edges.rows
    outputs = module.apply(variables, batch.graph, False, rngs={"corruption": KEY})
    there = outputs.seen.edges["hidden_distances"]
    weights = np.asarray(edges.weights)
    mean = np.average(there, weights=weights)
    variance = np.average(np.square(there - mean), weights=weights) / 0.7**2
    assert found["hidden_distances_trivial"] == pytest.approx(variance, rel=1e-3)
    released = objectives_of("crysgnn")
    assert released[2][0].trivial_loss(np.array([0.5, 0.5, 0.0])) == pytest.approx(np.log(2))
