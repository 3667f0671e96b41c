"""Oxidation states that make a formula neutral: what chemistry says of electrons without a
calculation.

A compound whose elements can all be in common states, anions more electronegative than cations, is
an insulator far more often than one where no choice of states adds up to nothing. Nothing but the
formula is looked at.

Source of states and electronegativities (Pauling's): the periodic table of pymatgen (MIT licence),
written by ``scripts/convert_oxidation_states.py``.
"""

import csv
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

TABLE_PATH = Path(__file__).with_name("oxidation_states.csv")

CLASSES = ("common", "one rarer", "several rarer", "none")
"""How a formula is made neutral: by common states alone, with one element or several in a rarer
one, or not at all."""

_MOST_CHOICES = 500_000
"""Choices of states that are looked through, a few MB; formulas with more take common ones."""


class Balance(NamedTuple):
    """How a formula is made neutral.

    Attributes:
      states: of each element, in the order it was asked for; zeros where there is no choice.
      kind: index in `CLASSES`.
    """

    states: tuple[int, ...]
    kind: int


class _Element(NamedTuple):
    electronegativity: float
    states: tuple[int, ...]
    n_rarer: tuple[int, ...]


@functools.cache
def _elements() -> dict[int, _Element]:
    found = {}
    with open(TABLE_PATH, newline="") as file:
        for row in csv.DictReader(file):
            common, rarer = (tuple(map(int, row[name].split())) for name in ("common", "rarer"))
            # Without a value there are no compounds to speak of.
            found[int(row["number"])] = _Element(
                float(row["electronegativity"] or "nan"),
                common + rarer,
                (0,) * len(common) + (1,) * len(rarer),
            )
    return found


@functools.lru_cache(maxsize=500_000)
def balance(numbers: Sequence[int], counts: Sequence[int]) -> Balance:
    """The states that make a formula neutral, with as few rarer ones as can be.

    Of several such choices it is the one whose anions are the most electronegative, then that of
    the smallest states. An element has one state: of mixed valence nothing is known.

    Args:
      numbers: a tuple of the elements' atomic numbers.
      counts: a tuple of how many atoms there are of each.

    Example:
      >>> balance((8, 26), (3, 2))
      Balance(states=(-2, 3), kind=0)
    """
    nothing = Balance((0,) * len(numbers), CLASSES.index("none"))
    elements = [_elements()[number] for number in numbers]
    n_choices = np.prod([len(element.states) for element in elements], dtype=float)
    if not n_choices or n_choices > _MOST_CHOICES or len(numbers) == 1:
        return nothing
    places = np.indices([len(element.states) for element in elements]).reshape(len(numbers), -1)
    states = np.array([np.array(e.states)[k] for e, k in zip(elements, places)])
    neutral = np.array(counts) @ states == 0
    states, places = states[:, neutral], places[:, neutral]
    values = np.array([element.electronegativity for element in elements])[:, None]
    weakest_anion = np.where(states < 0, values, np.inf).min(axis=0)
    strongest_cation = np.where(states > 0, values, -np.inf).max(axis=0)
    apart = weakest_anion - strongest_cation
    rarer = np.sum([np.array(e.n_rarer)[k] for e, k in zip(elements, places)], axis=0)
    usable = np.flatnonzero(apart > 0)  # not where an electronegativity is unknown
    if not len(usable):
        return nothing
    sizes = np.abs(states).sum(axis=0)
    best = usable[np.lexsort((sizes[usable], -apart[usable], rarer[usable]))[0]]
    return Balance(tuple(states[:, best].tolist()), min(int(rarer[best]), 2))


def oxidation_states(species: np.ndarray) -> tuple[np.ndarray, int]:
    """The states of a crystal's atoms, and how they make it neutral.

    Args:
      species: ``[n]``, atomic numbers.

    Returns:
      ``[n]`` int8, and an index in `CLASSES`.

    Example:
      >>> oxidation_states(np.array([11, 17]))
      (array([ 1, -1], dtype=int8), 0)
    """
    numbers, of_atom, counts = np.unique(species, return_inverse=True, return_counts=True)
    counts //= np.gcd.reduce(counts)
    found = balance(tuple(numbers.tolist()), tuple(counts.tolist()))
    return np.array(found.states, np.int8)[of_atom], found.kind
