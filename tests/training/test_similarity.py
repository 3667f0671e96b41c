"""Distances between embeddings: their unit, and that the nearest are found."""

import numpy as np
import pytest

from crysgnn_jax.errors import UserError
from crysgnn_jax.training import similarity
from crysgnn_jax.training.similarity import nearest, standardised


def test_a_distance_is_in_standard_deviations_and_worked_out_by_hand():
    # Means 1 and 10, standard deviations 1 and 10.
    among = np.array([[0.0, 0.0], [2.0, 20.0]])

    indices, distances = nearest(np.array([[0.0, 10.0]]), among, 2)

    # (0, 10) is (−1, 0) / √2; the others are (−1, −1) / √2 and (1, 1) / √2.
    assert indices.tolist() == [[0, 1]]
    np.testing.assert_allclose(distances, [[np.sqrt(0.5), np.sqrt(2.5)]])


def test_every_component_counts_the_same_whatever_its_scale(rng):
    among, scale = rng.normal(size=(40, 6)), 10.0 ** np.arange(6)
    queries = rng.normal(size=(5, 6))

    indices, distances = nearest(queries, among, 4)
    of_scaled = nearest(queries * scale + 3.0, among * scale + 3.0, 4)

    np.testing.assert_array_equal(indices, of_scaled[0])
    np.testing.assert_allclose(distances, of_scaled[1], rtol=1e-6)


def test_two_crystals_drawn_at_random_are_about_the_root_of_two_apart(rng):
    vectors = standardised(x := rng.normal(3.0, 5.0, size=(2000, 32)), x)

    gaps = np.linalg.norm(vectors[:1000] - vectors[1000:], axis=1)

    np.testing.assert_allclose(np.sqrt(np.mean(gaps**2)), np.sqrt(2), rtol=0.02)


@pytest.mark.parametrize("block", [1, 60, 2**22])
def test_the_nearest_are_those_of_all_distances_in_blocks_of_any_size(rng, monkeypatch, block):
    monkeypatch.setattr(similarity, "_BLOCK", block)
    among, queries = rng.normal(size=(30, 8)), rng.normal(size=(7, 8))

    indices, distances = nearest(queries, among, 5)

    a, b = standardised(queries, among), standardised(among, among)
    every = np.linalg.norm(a[:, None] - b[None], axis=2)
    np.testing.assert_array_equal(indices, np.argsort(every, axis=1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :5])


def test_a_crystal_is_at_distance_0_from_itself(rng):
    among = rng.normal(1e4, 1.0, size=(50, 64)).astype(np.float32)

    indices, distances = nearest(among, among, 1)

    assert indices[:, 0].tolist() == list(range(50)) and not distances.any()


def test_equal_crystals_come_in_their_order_and_no_more_than_there_are():
    indices, distances = nearest(np.ones((1, 2)), np.ones((3, 2)), 10)

    assert indices.tolist() == [[0, 1, 2]] and not distances.any()


def test_a_component_that_never_varies_is_left_out():
    among = np.array([[0.0, 5.0], [2.0, 5.0]])

    assert nearest(np.array([[1.0, 7.0]]), among, 1)[1].item() == 1.0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="same model"):
        nearest(np.ones((1, 3)), np.ones((2, 4)), 1)
    with pytest.raises(UserError, match="no crystals"):
        nearest(np.ones((1, 3)), np.ones((0, 3)), 1)
    with pytest.raises(UserError, match="not finite"):
        nearest(np.full((1, 3), np.nan), np.ones((2, 3)), 1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
