"""The space group of a crystal and the crystal system it belongs to."""

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

# moyo warns about symmetry operations that do not fit a supercell; only the number is used here.
logging.getLogger("moyo").setLevel(logging.ERROR)


def space_group_number(crystal: Crystal, symprec: float) -> int:
    """International number 1…230 of the space group, with atoms moved by up to ``symprec`` Å.

    Raises:
      InvalidCrystal: no space group fits, not even with the tighter tolerances that moyo goes on
        to try; such a structure has atoms closer than ``symprec``.
    """
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
