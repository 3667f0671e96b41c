"""Formulas as chemists write them."""

import functools
import re

from ase.formula import Formula


@functools.lru_cache(maxsize=100_000)
def readable(reduced_formula: str) -> str:
    """The formula without ones, metals first: ``Cl1Na1`` → ``NaCl``.

    Args:
      reduced_formula: as of `Crystal.reduced_formula`.

    Example:
      >>> readable("O3Sr1Ti1")
      'SrTiO3'
    """
    return Formula(reduced_formula).format("metal")


def in_picture(formula: str) -> str:
    """A readable formula with its numbers set low, for matplotlib: ``BaTiO$_{3}$``."""
    return re.sub(r"(\d+)", r"$_{\1}$", formula)
