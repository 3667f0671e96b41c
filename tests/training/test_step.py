"""A training step's first rate, and the statistics that validation sees."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.norms import BatchNorm
from crysgnn_jax.models.recipe import Recipe
from crysgnn_jax.training.settings import TrainingSettings
from crysgnn_jax.training.step import (
    create_optimiser,
    create_state,
    make_statistics_step,
)
from toys import batcher_for_all, caesium_chloride, fcc, rocksalt


@pytest.mark.parametrize("total_steps", [1, 2, 36, 200])
def test_no_step_is_lost_to_the_warm_up(total_steps):
    optimiser = create_optimiser(0.01, total_steps)
    params = {"w": jnp.ones(3)}
    state, moved = optimiser.init(params), []
    for _ in range(total_steps):
        updates, state = optimiser.update({"w": jnp.ones(3)}, state, params)
        moved.append(float(optax.tree.norm(updates)))
    assert all(x > 0 for x in moved)
    # Adam's steps are as long as the rate while the gradient stays the same.
    assert max(moved) <= 0.01 * np.sqrt(3) * 1.001
    rising = max(1, round(0.05 * total_steps))
    np.testing.assert_allclose(moved[0], 0.01 * np.sqrt(3) / (rising + 1), rtol=1e-3)


class Numbers(nn.Module):
    """Batch norm of the atomic numbers."""

    frozen: bool = False

    @nn.compact
    def __call__(self, graph, train):
        batch = Batch(graph)
        numbers = batch.species[:, None].astype(jnp.float32)
        return BatchNorm(name="norm")(numbers, batch.atoms, train and not self.frozen)


@pytest.fixture(scope="module")
def batcher(tmp_path_factory):
    crystals = crystal_list([rocksalt(), caesium_chloride(), fcc()])
    store = build_store(crystals, FeaturiserSettings(), cache_dir=tmp_path_factory.mktemp("c"))
    return batcher_for_all(store)


def _state(module, graph):
    state = create_state(module, create_optimiser(0.01, 10), jax.random.key(0), graph)
    # As if the steps had left them far behind.
    far = jax.tree.map(lambda x: x + 1e3, state.batch_stats)
    return dataclasses.replace(state, batch_stats=far)


def test_statistics_are_those_of_all_the_batches(batcher):
    graphs = [batcher(np.array(rows)) for rows in ([0], [1, 2])]
    state = _state(Numbers(), graphs[0])
    step = jax.jit(make_statistics_step(Numbers()))
    for n, graph in enumerate(graphs, 1):
        state = step(state, graph, jnp.float32(n))
    # Four atoms each of sodium and chlorine; one each of caesium, chlorine and aluminium.
    first, second = np.array([11.0] * 4 + [17.0] * 4), np.array([55.0, 17.0, 13.0])
    found = state.batch_stats["norm"]
    means = np.array([first.mean(), second.mean()])
    np.testing.assert_allclose(found["mean"], [means.mean()], rtol=1e-4)
    variance = (first.var(ddof=1) + second.var(ddof=1)) / 2 + means.var()
    np.testing.assert_allclose(found["var"], [variance], rtol=1e-4)


def test_statistics_of_a_frozen_norm_stay(batcher):
    graph = batcher(np.array([0, 1]))
    state = _state(Numbers(frozen=True), graph)
    after = make_statistics_step(Numbers(frozen=True))(state, graph, jnp.float32(1))
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, state.batch_stats)


@pytest.mark.parametrize(
    "n_train, n_devices, batch_size",
    [(24, 1, 8), (96, 1, 9), (300, 1, 30), (3150, 1, 64), (3150, 8, 39), (2, 1, 8)],
)
def test_a_batch_is_a_tenth_of_the_crystals_at_most(n_train, n_devices, batch_size):
    recipe = Recipe()
    found = TrainingSettings().filled(recipe, n_train, n_devices)
    assert found.batch_size == batch_size
    assert found.learning_rate == pytest.approx(0.005 * np.sqrt(batch_size / 64))
    asked = TrainingSettings(batch_size=50).filled(recipe, n_train, n_devices)
    assert (asked.batch_size, asked.learning_rate) == (50, 0.005)
    asked = TrainingSettings(learning_rate=0.1).filled(recipe, n_train, n_devices)
    assert (asked.batch_size, asked.learning_rate) == (batch_size, 0.1)
    with pytest.raises(UserError, match="`accumulate` 100: a device takes .* crystals in a step"):
        TrainingSettings(accumulate=100).filled(recipe, n_train, n_devices)
    small = dataclasses.replace(recipe, batch_size=2)
    assert TrainingSettings().filled(small, n_train, n_devices).batch_size == 2
