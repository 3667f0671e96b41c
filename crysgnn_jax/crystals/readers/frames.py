"""Structures with numbers beside them, as ASE has them: what each number is called."""

import io
import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.items import one_line
from crysgnn_jax.errors import InvalidCrystal


class Frame(NamedTuple):
    """One structure of a file with several, as plain data."""

    id: str
    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    labels: dict[str, float]

    def crystal(self) -> Crystal:
        """
        Raises:
          InvalidCrystal: it is no periodic crystal.
        """
        # Imported here: most folders hold CIF files, whose workers can do without.
        from ase import Atoms

        atoms = Atoms(self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        return Crystal.from_ase(atoms, self.id, self.labels)


class XyzFrame(NamedTuple):
    """One structure of an (extended) XYZ file, as its text."""

    id: str
    content: bytes
    name: str

    def crystal(self) -> Crystal:
        """
        Raises:
          InvalidCrystal: it cannot be read, or is no periodic crystal.
        """
        from ase.io.extxyz import read_xyz

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they say nothing about crystals
                atoms = next(read_xyz(io.StringIO(self.content.decode()), 0))
        except Exception as error:  # it fails in many ways
            raise InvalidCrystal(
                self.id, f"{self.name} cannot be read by ASE: {one_line(error)}"
            ) from None
        return Crystal.from_ase(atoms, self.id, labels_of(atoms))


def frame_of(atoms: Any, id: str) -> Frame:
    """An ``ase.Atoms`` as plain data."""
    return Frame(
        *(id, atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc),
        labels_of(atoms),
    )


def labels_of(atoms: Any) -> dict[str, float]:
    """The finite numbers that stand beside an ``ase.Atoms``."""
    return {name: value for name, value in numbers_of(atoms).items() if math.isfinite(value)}


def numbers_of(atoms: Any) -> dict[str, float]:
    """All numbers that stand beside an ``ase.Atoms``."""
    return numbers_in(
        {
            **(atoms.calc.results if atoms.calc is not None else {}),
            **atoms.info,
            **atoms.info.get("key_value_pairs", {}),
        }
    )


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of some values that are numbers, also NaN and infinite ones."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    }
