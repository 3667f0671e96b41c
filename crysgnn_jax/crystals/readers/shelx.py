"""SHELX files (``.res``) as AIRSS writes them: all atoms of the cell, each of them there."""

import contextlib
from collections.abc import Iterator

_FULL = (1.0, 11.0)
"""Occupancies of a site that is full: 10 more says that it is not refined."""


def problem_of_res(text: str) -> str | None:
    """Why the atoms that a ``.res`` file lists are not the crystal; None where they are.

    A refinement (Sheldrick, Acta Cryst. C71, 3, 2015) lists the atoms of the asymmetric unit, with
    a lattice type (``LATT``, negative without an inversion centre, 1 for primitive), operations
    (``SYMM``) and occupancies, of which ASE's reader takes no notice.

    Args:
      text: of the file.

    Example:
      >>> problem_of_res("CELL 1 3 3 3 90 90 90\\nLATT 4\\nSFAC Cu\\nCu 1 0 0 0 11\\nEND\\n")
      'has symmetry (LATT 4), which is not read from this format; write it as CIF'
    """
    for words in map(str.split, text.splitlines()):
        word = words[0].upper() if words else ""
        if word == "SYMM" or (word == "LATT" and words[1:2] != ["-1"]):
            shown = " ".join(words)
            return f"has symmetry ({shown}), which is not read from this format; write it as CIF"
    for label, occupancy in _atoms(text):
        if not any(abs(occupancy - full) < 1e-6 for full in _FULL):
            return f"has the occupancy {occupancy:g} at {label}: only ordered crystals can be used"
    return None


def _atoms(text: str) -> Iterator[tuple[str, float]]:
    """Label and occupancy of each atom: ``label, number of the element, x, y, z, occupancy``."""
    listed = False
    for words in map(str.split, text.splitlines()):
        word = words[0].upper() if words else ""
        if word == "END":
            return
        if listed and len(words) > 5 and words[1].isdigit() and word not in ("UNIT", "ZERR"):
            with contextlib.suppress(ValueError):
                yield words[0], [float(x) for x in words[2:6]][3]
        listed = listed or word == "SFAC"
