"""The space group of a crystal and the crystal system it belongs to."""

import dataclasses
import hashlib
import logging
from typing import Any

import gemmi
import moyopy
import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import InvalidCrystal
from crysgnn_jax.graphs.primitive import Cell, primitive_cell

CRYSTAL_SYSTEMS = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal",
    "hexagonal",
    "cubic",
)

N_SPACE_GROUPS = 230

_LAST_SPACE_GROUPS = np.array([2, 15, 74, 142, 167, 194, N_SPACE_GROUPS])
"""The last space group of each crystal system (International Tables for Crystallography A)."""

LARGE = 500
"""Atoms. In larger cells moyo takes seconds to look at pairs of atoms for translations."""

SMALL = 10
"""Atoms. Many crystals of so few are the same but for their elements and their size, such as those
of rock salt, and being highly symmetric, they take the search longest."""

_MOST_KNOWN = 100_000
"""Prototypes that a process remembers, some 20 MB."""

# moyo warns about symmetry operations that do not fit a supercell; only the number is used here.
logging.getLogger("moyo").setLevel(logging.ERROR)


@dataclasses.dataclass
class _Known:
    """What is known of the crystals of a prototype.

    Attributes:
      number: of their space group.
      length: cube root of the cell's volume, Å, of the crystal that was looked at.
      holds: whether that crystal has the same group with half and with twice the tolerance, so that
        one of half or twice its size has it too; None where nobody has asked yet.
    """

    number: int
    length: float
    holds: bool | None = None


_known: dict[tuple[bytes, float], _Known] = {}
"""Prototype and tolerance → what is known of it."""


def space_group_number(crystal: Crystal, symprec: float) -> int:
    """International number 1…230 of the space group, with atoms moved by up to ``symprec`` Å.

    A small crystal that is another one with other elements and of another size has the same space
    group, and is not searched again.

    Raises:
      InvalidCrystal: no space group fits, not even with the tighter tolerances that moyo goes on
        to try; such a structure has atoms closer than ``symprec``.
    """
    if len(crystal.species) > SMALL:
        return _search(crystal, symprec)
    length = float(abs(np.linalg.det(crystal.lattice)) ** (1 / 3))
    key = _prototype(crystal, length), symprec
    known = _known.get(key)
    if known is None:
        number = _search(crystal, symprec)
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = _Known(number, length)
        return number
    if known.holds is None:
        known.length = length
        known.holds = all(
            _found(crystal, tolerance) == known.number for tolerance in (symprec / 2, 2 * symprec)
        )
    if known.holds and 0.5 <= length / known.length <= 2:
        return known.number
    return _search(crystal, symprec)


def _prototype(crystal: Crystal, length: float) -> bytes:
    """Equal for crystals that are the same, atom by atom, but for their elements and their size;
    differences of a millionth do not count."""
    metric = np.rint(crystal.lattice @ crystal.lattice.T * (1e6 / length**2))
    places = np.rint(crystal.frac_coords * 1e6) % 1e6
    _, first, element = np.unique(crystal.species, return_index=True, return_inverse=True)
    kinds = first[element]  # of each atom, which is the first of its element
    digest = hashlib.blake2b(metric.tobytes(), digest_size=16)
    digest.update(places.tobytes())
    digest.update(kinds.tobytes())
    return digest.digest()


def _found(crystal: Crystal, symprec: float) -> int | None:
    """The number, or None where there is none."""
    try:
        return _search(crystal, symprec)
    except InvalidCrystal:
        return None


def _search(crystal: Crystal, symprec: float) -> int:
    """The number by moyo. See `space_group_number`."""
    found = Cell(crystal.lattice, crystal.frac_coords, crystal.species)
    if len(crystal.species) > LARGE:
        found = primitive_cell(found, symprec)
    cell = moyopy.Cell(*(array.tolist() for array in found))
    try:
        return moyopy.MoyoDataset(cell, symprec=symprec).number
    except ValueError as error:
        raise InvalidCrystal(
            crystal.id, f"no space group was found within {symprec} Å: {error}"
        ) from error
    except BaseException as error:
        # A panic of Rust is no Exception, and its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise InvalidCrystal(crystal.id, "no space group was found: moyo gave up on it") from None


def crystal_system(space_group: Any) -> Any:
    """Index in `CRYSTAL_SYSTEMS` of each space group 1…230; same shape, int64."""
    return np.searchsorted(_LAST_SPACE_GROUPS, space_group)


def space_group_symbol(number: int) -> str:
    """Short Hermann-Mauguin symbol of a space group 1…230: ``Fm-3m`` of 225."""
    group = gemmi.find_spacegroup_by_number(number)
    # On hexagonal axes, an R is written as an H.
    return group.short_name().replace("H", "R", 1) if group.ext == "H" else group.short_name()
