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
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crysgnn_jax.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS

TABLE_PATH = Path(__file__).with_name("oxidation_states.csv")

CLASSES = ("common", "one rarer", "several rarer", "none")
"""How a formula is made neutral: by common states alone, with one element or several in a rarer
one, or not at all."""

_MOST_CHOICES = 500_000
"""Choices of states that are looked through, some 50 MB; formulas with more have none."""


_STRIDE = MAX_ATOMIC_NUMBER + 1

_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}

_PART = re.compile(r"([A-Z][a-z]?)(\d+)")


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


def balance(numbers: Sequence[int], counts: Sequence[int]) -> Balance:
    """The states that make a formula neutral, with as few rarer ones as can be.

    Of several such choices it is the one whose anions are the most electronegative, then that of
    the smallest states. An element has one state: of mixed valence nothing is known.

    Args:
      numbers: of the elements.
      counts: how many atoms there are of each.

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


class OxidationTable:
    """The states of all crystals of a collection, to be looked up.

    Called with rows ``[n]`` of the collection and atomic numbers ``[n]`` of atoms in them, it gives
    ``[n, 2]`` float32: the state of each atom, and the class of its crystal, an index in `CLASSES`.

    Args:
      formulas: ``[crystals]``, reduced, as of `Crystal.reduced_formula`; each is looked at once,
        0.1 ms.

    Example:
      >>> table = OxidationTable(np.array(["Cl1Na1", "Fe2O3"]))
      >>> table(np.array([0, 1, 1]), np.array([11, 26, 8]))
      array([[ 1.,  0.],
             [ 3.,  0.],
             [-2.,  0.]], dtype=float32)
    """

    def __init__(self, formulas: np.ndarray):
        names, self._formula = np.unique(formulas, return_inverse=True)
        keys: list[int] = []
        states: list[int] = []
        kinds = []
        for place, name in enumerate(names.tolist()):
            parts = sorted((_NUMBERS[x], int(count)) for x, count in _PART.findall(name))
            numbers, counts = zip(*parts)
            found = balance(numbers, counts)
            keys += [place * _STRIDE + number for number in numbers]
            states += found.states
            kinds.append(found.kind)
        self._keys = np.array(keys, np.int64)
        self._states = np.array(states, np.float32)
        self._kinds = np.array(kinds, np.float32)

    def __call__(self, rows: np.ndarray, species: np.ndarray) -> np.ndarray:
        formula = self._formula[rows].astype(np.int64)
        states = self._states[np.searchsorted(self._keys, formula * _STRIDE + species)]
        return np.stack([states, self._kinds[formula]], axis=1)
