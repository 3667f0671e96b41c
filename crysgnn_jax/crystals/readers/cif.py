"""Reading CIF files with gemmi."""

import re
from collections import Counter
from math import gcd
from pathlib import Path

import gemmi
import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.items import one_line
from crysgnn_jax.errors import InvalidCrystal

MERGE_DISTANCE = 0.05
"""Å. Images of a site closer than this are one atom on a special position: coordinates such as
0.3333 put them a little apart."""


def read_cif(path: Path, id: str, labels: dict[str, float] | None = None) -> Crystal:
    """The first structure of a CIF file, its symmetry expanded to the whole unit cell.

    Atoms come in the order of the file, each followed by its images.

    Raises:
      InvalidCrystal: the file is missing, cut short or no CIF, or it holds a disordered
        structure, an unknown element, or no cell or atoms.
    """
    try:
        # gemmi raises these for broken files, cells and symmetry operations alike.
        return _read(gemmi.cif.read(str(path)), path.name, id, labels or {})
    except (OSError, ValueError, RuntimeError) as error:
        reason = one_line(error).removeprefix(f"{path}:")
        raise InvalidCrystal(
            id, f"{path.name} is not a valid CIF, or cut short: {reason}"
        ) from None


def _read(document: gemmi.cif.Document, name: str, id: str, labels: dict[str, float]) -> Crystal:
    block = next((b for b in document if b.find_loop("_atom_site_fract_x")), None)
    if block is None:
        raise InvalidCrystal(id, f"{name} has no atoms with fractional coordinates")
    loop = block.find_loop("_atom_site_fract_x").get_loop()
    if "_atom_site_label" not in loop.tags and "_atom_site_type_symbol" in loop.tags:
        # gemmi passes over sites without a label; the element is all that matters here.
        loop.add_columns(["_atom_site_label"], value="?")
    structure = gemmi.make_small_structure_from_block(block)
    if not structure.cell.is_crystal():
        raise InvalidCrystal(id, f"{name} has no unit cell, or one without volume")
    numbers, coords = _sites(structure, name, id)
    lattice = np.array(structure.cell.orth.mat.tolist()).T
    species, positions = _expand(numbers, coords, _operations(structure, name, id), lattice)
    _check_formula(block, species, name, id)
    return Crystal(id, species, positions, lattice, labels)


def _sites(structure: gemmi.SmallStructure, name: str, id: str) -> tuple[list[int], np.ndarray]:
    numbers, coords = [], []
    for site in structure.sites:
        if abs(site.occ - 1.0) > 1e-3:
            raise InvalidCrystal(
                id,
                f"{name}: site {site.label} is occupied to {site.occ:g}; give an ordered structure",
            )
        number = site.element.atomic_number
        if number == 0:
            raise InvalidCrystal(
                id, f"{name}: site {site.label} has the unknown element {site.type_symbol!r}"
            )
        numbers.append(number)
        # One flat list: NumPy takes twice as long over a list of lists.
        coords += site.fract.tolist()
    if not numbers:
        raise InvalidCrystal(id, f"{name} has no atoms")
    return numbers, np.array(coords).reshape(-1, 3)


def _operations(structure: gemmi.SmallStructure, name: str, id: str) -> list[gemmi.Op]:
    """The file's own list of operations; else those of the space group it names."""
    if structure.symops:
        return [gemmi.Op(text) for text in structure.symops]
    group = None
    if structure.spacegroup_hm:
        group = gemmi.find_spacegroup_by_name(
            structure.spacegroup_hm, structure.cell.alpha, structure.cell.gamma
        )
    elif structure.spacegroup_number:
        group = gemmi.find_spacegroup_by_number(structure.spacegroup_number)
    else:
        return [gemmi.Op("x,y,z")]
    if group is None:
        raise InvalidCrystal(
            id, f"{name}: unknown space group {structure.spacegroup_hm!r} and no list of operations"
        )
    return list(group.operations())


def _expand(
    numbers: list[int], coords: np.ndarray, operations: list[gemmi.Op], lattice: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if len(operations) == 1:
        return np.array(numbers), coords
    rotations = np.array([op.rot for op in operations]) / gemmi.Op.DEN
    shifts = np.array([op.tran for op in operations]) / gemmi.Op.DEN
    species, positions = [], []
    for number, site in zip(numbers, coords):
        images = rotations @ site + shifts
        difference = images[:, None] - images[None]
        difference -= np.round(difference)
        near = np.linalg.norm(difference @ lattice, axis=-1) < MERGE_DISTANCE
        # An image is kept if no earlier one is in its place.
        kept = images[~np.tril(near, -1).any(axis=1)]
        species.append(np.full(len(kept), number))
        positions.append(kept)
    return np.concatenate(species), np.concatenate(positions)


def _check_formula(block: gemmi.cif.Block, species: np.ndarray, name: str, id: str) -> None:
    """Compare with the formula of the file: a file cut between two atoms parses without error."""
    text = block.find_value("_chemical_formula_sum")
    if text is None:
        return
    stated: Counter[int] = Counter()
    for symbol, count in re.findall(r"([A-Z][a-z]?)\s*(\d+(?:\.\d+)?)?", gemmi.cif.as_string(text)):
        amount = float(count or 1)
        number = gemmi.Element(symbol).atomic_number
        if amount != int(amount) or number == 0:
            return
        stated[number] += int(amount)
    found = Counter(species.tolist())
    if stated and _reduced(stated) != _reduced(found):
        formula = " ".join(f"{gemmi.Element(z).name}{n}" for z, n in sorted(found.items()))
        raise InvalidCrystal(
            id,
            f"{name} states the formula {gemmi.cif.as_string(text)} but has the atoms {formula}: "
            "is it cut short?",
        )


def _reduced(counts: Counter[int]) -> dict[int, int]:
    divisor = gcd(*counts.values()) or 1
    return {z: n // divisor for z, n in counts.items()}
