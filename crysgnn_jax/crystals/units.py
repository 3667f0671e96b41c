"""What the unit of a label may be, by its name and its values: a guess, for data say it nowhere."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crysgnn_jax.crystals.named import PROPERTY_UNITS

UNKNOWN = "?"


class Guess(NamedTuple):
    """A guessed unit.

    Attributes:
      unit: "" for a pure number, `UNKNOWN` where nothing fits.
      why: what it rests on, or what speaks against it.
    """

    unit: str
    why: str

    def __str__(self) -> str:
        return f"{self.unit or 'none'}{'' if self.unit == UNKNOWN else '?'}"


class _Kind(NamedTuple):
    """Words of a name, and a unit with the values that are usual in it."""

    words: Sequence[str]
    unit: str
    low: float
    high: float


_INFINITE = float("inf")

_KINDS = (
    # Of several units of one property, the first whose usual values hold nearly all of the label's.
    _Kind(("log", "modul"), "log10(GPa)", -2, 3.5),
    _Kind(("log", "(k|g)?vrh"), "log10(GPa)", -2, 3.5),
    _Kind(("modul",), "log10(GPa)", -2, 3.5),
    _Kind(("modul",), "GPa", 0, 1500),
    _Kind(("hull",), "eV/atom", -0.5, 10),
    _Kind(("hull",), "meV/atom", -500, 10_000),
    _Kind(("(e?form|formation)", "(energy|enthalpy|heat|e|peratom|atom)"), "eV/atom", -7, 7),
    _Kind(("(e?form|formation)", "(energy|enthalpy|heat|e)"), "kJ/mol", -5000, 1000),
    _Kind(("(cohesive|exfoliation)",), "eV/atom", -15, 15),
    _Kind(("exfoliation",), "meV/atom", 0, 1000),
    _Kind(("gap",), "eV", 0, 20),
    _Kind(("(fermi|efermi|work)",), "eV", -30, 30),
    _Kind(("total", "energy"), "eV/atom", -50, 5),
    _Kind(("energy", "(per)?atom"), "eV/atom", -50, 20),
    _Kind(("energy",), "eV", -_INFINITE, _INFINITE),
    _Kind(
        ("(refractive|poisson|anisotropy|dielectric|permittivity|spillage|index)",), "", -100, 1e4
    ),
    _Kind(("(phonon|frequency|phdos)",), "THz", 0, 60),
    _Kind(("(phonon|frequency|phdos)",), "cm⁻¹", 0, 4500),
    _Kind(("(magnetisation|magnetization|magmom|moment)",), "µB", -500, 500),
    _Kind(("density",), "g/cm³", 0.01, 30),
    _Kind(("volume",), "Å³", 1, 1e5),
    _Kind(("(tc|temperature|debye)",), "K", 0, 10_000),
    _Kind(("seebeck",), "µV/K", -5000, 5000),
    _Kind(("(piezo\\w*|eij|dij)",), "C/m²", -50, 50),
)
"""Kinds of properties, the more particular first."""

_USUAL = {kind.unit: (kind.low, kind.high) for kind in reversed(_KINDS)}
_USUAL |= {"eV/atom": (-50.0, 50.0), "": (-_INFINITE, _INFINITE), "eV": (-_INFINITE, _INFINITE)}


def guess_unit(name: str, values: np.ndarray) -> Guess:
    """The unit that a label may have.

    Args:
      name: of the label.
      values: ``[n]``, those that are not missing.

    Example:
      >>> guess_unit("Eform (formation energy)", np.array([-1.2, 0.1])).unit
      'eV/atom'
    """
    if name in PROPERTY_UNITS:
        unit = PROPERTY_UNITS[name]
        low, high = _USUAL.get(unit, (-_INFINITE, _INFINITE))
        if _mostly_within(values, low, high):
            return Guess(unit, "a name that the package knows")
        return Guess(UNKNOWN, f"the name is of {unit or 'a pure number'}, the values are not")
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    fitting = [kind for kind in _KINDS if all(_has(words, word) for word in kind.words)]
    for kind in fitting:
        if _mostly_within(values, kind.low, kind.high):
            return Guess(kind.unit, "by name and range")
    if fitting:
        return Guess(UNKNOWN, f"the name is like one in {fitting[0].unit}, the values are not")
    return Guess(UNKNOWN, "nothing in the name tells")


def _has(words: Sequence[str], pattern: str) -> bool:
    """Whether a word is, or where the pattern is plain begins with or ends in, the pattern."""
    if pattern.isalpha():
        return any(word.startswith(pattern) or word.endswith(pattern) for word in words)
    return any(re.fullmatch(pattern, word) for word in words)


def _mostly_within(values: np.ndarray, low: float, high: float) -> bool:
    return bool(np.mean((values >= low) & (values <= high)) >= 0.98)
