"""The baseline of composition alone."""

import numpy as np
import pytest

from crysgnn_jax.batches.splits import Split
from crysgnn_jax.crystals.elements import element_features
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.training.baseline import (
    composition_features,
    mae_of_composition,
    predict_by_composition,
)
from toys import caesium_chloride, fcc


def split_of(n):
    order = np.random.default_rng(0).permutation(n)
    parts = np.split(order, [int(0.8 * n), int(0.9 * n)])
    return Split(*map(np.sort, parts))


def test_features_are_the_mean_over_the_atoms(tmp_path):
    source = crystal_list([fcc(), caesium_chloride()])
    store = build_store(source, FeaturiserSettings(), cache_dir=tmp_path)
    found = composition_features(store, np.array([1, 0]))
    table = element_features()
    np.testing.assert_allclose(found[0], (table[55] + table[17]) / 2)
    np.testing.assert_allclose(found[1], table[13])


def test_a_property_of_composition_is_told_without_structures(tmp_path):
    pairs = np.random.default_rng(0).integers(1, 90, (150, 2))
    crystals = [caesium_chloride(species=pair, id=str(k)) for k, pair in enumerate(pairs)]
    store = build_store(crystal_list(crystals), FeaturiserSettings(), cache_dir=tmp_path)
    split = split_of(150)
    targets = composition_features(store, np.arange(150)) @ np.linspace(-1, 1, 92)
    of_mean = np.abs(targets[split.test] - targets[split.train].mean()).mean()
    assert mae_of_composition(store, targets, split) < 0.2 * of_mean


def test_noise_is_not_learned():
    """Where features say nothing, the largest penalty leaves little but the mean."""
    generator = np.random.default_rng(0)
    features, targets = generator.random((400, 92)), generator.normal(size=400)
    split = split_of(400)
    found = predict_by_composition(features, targets, split)
    assert np.std(found) < 0.35
    assert found[split.train].mean() == pytest.approx(targets[split.train].mean(), abs=1e-9)


def test_the_test_crystals_are_not_looked_at():
    generator = np.random.default_rng(1)
    features, targets = generator.random((40, 5)), generator.normal(size=40)
    split = split_of(40)
    found = predict_by_composition(features, targets, split)
    changed = targets.copy()
    changed[split.test] = np.nan
    np.testing.assert_array_equal(predict_by_composition(features, changed, split), found)


def test_one_training_crystal_gives_its_value():
    features = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    split = Split(np.array([0]), np.array([1]), np.array([2]))
    found = predict_by_composition(features, np.array([3.0, 1.0, 2.0]), split)
    np.testing.assert_allclose(found, 3.0)
