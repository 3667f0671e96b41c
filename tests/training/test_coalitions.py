"""Dividing a value among players: what is known of the games, and worked out by hand."""

import itertools

import numpy as np
import pytest

from crysgnn_jax.training import coalitions
from crysgnn_jax.training.coalitions import game, n_sets


def divided(groups, value):
    found = game(tuple(groups))
    values = [value({k for k in range(len(groups)) if row[k]}) for row in found.sets]
    return found.weights @ np.array(values, dtype=float)


def test_the_glove_game_is_divided_as_in_the_books():
    """Player 0 has a left glove, 1 and 2 a right one each; a pair is worth 1."""
    gloves = lambda players: float(0 in players and len(players) > 1)

    np.testing.assert_allclose(divided([0, 0, 0], gloves), [2 / 3, 1 / 6, 1 / 6])
    # With both right gloves in one group there are two orders of the groups, and in the first the
    # left glove comes last; in the second the first of the right ones makes the pair.
    np.testing.assert_allclose(divided([0, 1, 1], gloves), [1 / 2, 1 / 4, 1 / 4])


@pytest.mark.parametrize("groups", [(3,), (0, 0, 1), (0, 1, 2, 2, 2), (0,) * 9 + (1,) * 5 + (7,)])
def test_the_parts_add_up_to_the_whole_whatever_the_game(groups):
    worth = lambda players: np.sin(sum(3.0 * k + 1 for k in players)) + len(players)

    parts = divided(groups, worth)

    everyone = set(range(len(groups)))
    assert parts.sum() == pytest.approx(worth(everyone) - worth(set()))


@pytest.mark.parametrize("n", [3, 4, 7])
def test_where_players_act_in_pairs_the_values_are_exact_for_any_number_of_them(n):
    generator = np.random.default_rng(n)
    alone, pairs = generator.normal(size=n), np.triu(generator.normal(size=(n, n)), 1)

    def worth(players):
        chosen = sorted(players)
        return alone[chosen].sum() + sum(pairs[i, j] for i, j in itertools.combinations(chosen, 2))

    # Of what a pair adds, each has half.
    np.testing.assert_allclose(divided([0] * n, worth), alone + (pairs + pairs.T).sum(1) / 2)


def test_a_group_gets_what_it_gets_in_the_game_of_the_groups():
    worth = lambda players: float(len(players)) ** 2.5
    of_groups = divided([0, 1, 2], lambda chosen: worth(range(sum([3, 6, 1][g] for g in chosen))))

    parts = divided([0, 0, 0, 1, 1, 1, 1, 1, 1, 2], worth)

    sums = [parts[:3].sum(), parts[3:9].sum(), parts[9]]
    np.testing.assert_allclose(sums, of_groups)


def test_a_game_says_how_many_values_it_needs_and_whether_it_is_exact():
    small, large = (0, 0, 1), (0,) * (coalitions.EXACT + 1) + (1,)

    assert game(small).exact and not game(large).exact
    assert len(game(small).sets) <= n_sets(small) and len(game(large).sets) <= n_sets(large)
