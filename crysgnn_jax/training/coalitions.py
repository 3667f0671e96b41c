"""Dividing a value among players fairly, where the players belong to groups.

A game gives every set of players a value. Its *Owen values* (Owen 1977) are what each player adds
to the value when players come in a random order, on average over all orders in which those of a
group come one after the other. Without groups they are the Shapley values (Shapley 1953). They add
up to the value of all players less that of none, players that add the same to every set get the
same, and those of a group add up to what the group gets in the game of the groups.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

EXACT = 6
"""Players of a group up to which every set of them is looked at. Of more, each is looked at alone,
and missing alone, see `game`."""


class Game(NamedTuple):
    """The sets whose values are needed, and how to divide them: ``weights @ values``.

    Attributes:
      sets: ``[n_set, n_player]`` bool: who is in each.
      weights: ``[n_player, n_set]`` float64.
      exact: whether the result is the Owen values, and not near them.
    """

    sets: np.ndarray
    weights: np.ndarray
    exact: bool


@functools.lru_cache(maxsize=512)
def game(groups: tuple[int, ...]) -> Game:
    """How to divide a value among players.

    The order of a group's players, where they are more than `EXACT`, is looked at from both ends: a
    player gets the mean of what it adds to none and to all others of its group. Where players of a
    group act at most in pairs these are the Owen values; what is left for them to add up is shared
    equally among the group.

    Args:
      groups: ``[n_player]``, the group of each.

    Example:
      >>> found = game((0, 0))
      >>> found.sets.astype(int).tolist()
      [[0, 0], [1, 0], [0, 1], [1, 1]]
      >>> found.weights @ [0.0, 1.0, 2.0, 5.0]
      array([2., 3.])
    """
    members = [[i for i, g in enumerate(groups) if g == group] for group in sorted(set(groups))]
    numbers: dict[int, int] = {}
    parts = []
    for own in members:
        subsets, shares = _within(own)
        others = [_set_of(group) for group in members if group is not own]
        for n_chosen in range(len(members)):
            factor = 1.0 / (len(members) * math.comb(len(others), n_chosen))
            for chosen in itertools.combinations(others, n_chosen):
                present = sum(chosen)
                columns = [numbers.setdefault(present | s, len(numbers)) for s in subsets]
                parts.append((own, columns, factor * shares))
    weights = np.zeros((len(groups), len(numbers)))
    for own, columns, shares in parts:
        weights[np.ix_(own, columns)] += shares
    sets = np.array([[found >> i & 1 for i in range(len(groups))] for found in numbers], dtype=bool)
    return Game(sets, weights, max(map(len, members)) <= EXACT)


def n_sets(groups: Sequence[int]) -> int:
    """At most how many sets `game` needs."""
    sizes = np.bincount(np.unique(groups, return_inverse=True)[1]).tolist()
    within = sum(2**size if size <= EXACT else 2 * size + 2 for size in sizes)
    return int(within * 2 ** (len(sizes) - 1))


def _set_of(players: Sequence[int]) -> int:
    """A set of players as an integer, a bit for each."""
    return sum(1 << player for player in players)


def _within(players: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """Sets of the players of one group, and the weight of each for each of them, ``[n, n_set]``."""
    n = len(players)
    if n <= EXACT:
        chosen = [set(c) for size in range(n + 1) for c in itertools.combinations(players, size)]
        shares = np.array(
            [
                [
                    1.0 / (n * math.comb(n - 1, len(c) - 1))
                    if player in c
                    else -1.0 / (n * math.comb(n - 1, len(c)))
                    for c in chosen
                ]
                for player in players
            ]
        )
        return [_set_of(sorted(c)) for c in chosen], shares
    every = _set_of(players)
    sets = [0, every, *(1 << p for p in players), *(every & ~(1 << p) for p in players)]
    from_both_ends = 0.5 * np.concatenate(
        [-np.ones((n, 1)), np.ones((n, 1)), np.eye(n), -np.eye(n)], axis=1
    )
    to_divide = np.zeros(len(sets))
    to_divide[:2] = -1.0, 1.0
    left = to_divide - from_both_ends.sum(axis=0)
    return sets, from_both_ends + left / n
