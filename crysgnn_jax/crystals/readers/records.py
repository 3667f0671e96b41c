"""Structures as plain objects of JSON: of JARVIS, of OPTIMADE and of pymatgen."""

import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.readers.items import Problem, one_line
from crysgnn_jax.errors import InvalidCrystal, printable

ID_KEYS = ("jid", "id", "material_id")
MAX_LABEL = 1e300
"""JSON knows integers that no float can hold; NaN and infinity are above it as well."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")

_PARTS = ("atoms", "structure", "attributes")
"""Where the structure of a record stands: of JARVIS, around one of pymatgen, of OPTIMADE."""

_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number > 0}


def records_in(content: Any) -> Any:
    """The records of an object that holds several, as an OPTIMADE response does under ``data``, or
    others under their ids; of one that is a record, itself alone."""
    if not isinstance(content, Mapping):
        return content
    if is_structure(content):
        return [content]
    if isinstance(content.get("data"), list):
        return content["data"]
    if all(isinstance(record, Mapping) for record in content.values()):
        return [
            record if any(key in record for key in ID_KEYS) else {"id": key, **record}
            for key, record in content.items()
        ]
    return content


TELLING = {
    *(*_PARTS, "lattice_mat", "elements", "coords"),
    *("cartesian_site_positions", "lattice_vectors", "sites", "lattice"),
}
"""The names by which `is_structure` tells."""


def is_structure(record: Mapping) -> bool:
    """Whether an object looks like one record with a structure, and not like several."""
    return _kind(record) is not None or any(
        isinstance(record.get(name), Mapping) for name in _PARTS
    )


def entry_of(record: Any, fallback: str, *, needs_id: bool = False) -> dict[str, Any] | Problem:
    """A record as an item of an `ItemSource`, which `decode` makes a crystal of.

    A record of JARVIS has ``atoms``, one of OPTIMADE ``attributes``, and one around a pymatgen
    structure ``structure``; or it is one of these itself. Beside the structure stand an id
    (``jid``, ``id`` or ``material_id``) and labels: numbers, also as text. Of OPTIMADE these are
    the numbers under a provider's prefix, such as ``_oqmd_delta_e``.

    Args:
      record: of JSON.
      fallback: its id where it has none.
      needs_id: whether it must have one.
    """
    if not isinstance(record, Mapping):
        return Problem(fallback, f"{fallback} is no object")
    id = next((str(record[key]) for key in ID_KEYS if key in record), None)
    if id is None and isinstance(properties := record.get("properties"), Mapping):
        id = str(properties["id"]) if "id" in properties else None
    if id is None and needs_id:
        return Problem(fallback, f"{fallback} has none of {', '.join(ID_KEYS)}")
    id = fallback if id is None else id
    parts = (record.get(name) for name in _PARTS)
    inner = next((part for part in parts if isinstance(part, Mapping)), record)
    kind = _kind(inner)
    if kind is None and inner is record:
        return Problem(id, f"{fallback} has no atoms, structure or attributes")
    labelled = record if "attributes" not in record else inner
    labels = {
        printable(name): value
        for name, text in labelled.items()
        if name not in ID_KEYS and (value := _number(text)) is not None
    }
    if kind == "optimade":
        labels = {name: value for name, value in labels.items() if name.startswith("_")}
    elif inner is record:  # its numbers, such as a charge, are of the structure
        labels = {}
    return {"id": id, "kind": kind or "jarvis", "structure": inner, "labels": labels}


def _kind(structure: Mapping) -> str | None:
    if "lattice_mat" in structure or "elements" in structure and "coords" in structure:
        return "jarvis"
    if "cartesian_site_positions" in structure or "lattice_vectors" in structure:
        return "optimade"
    return "pymatgen" if "sites" in structure and "lattice" in structure else None


def _number(value: Any) -> float | None:
    """A label, as a number or as the text of one; None for anything else."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < MAX_LABEL else None


def decode(item: dict[str, Any] | Problem) -> Crystal:
    """Make a crystal of one record.

    Raises:
      InvalidCrystal: its structure cannot be used.
    """
    if isinstance(item, Problem):
        return item.crystal()
    make = {"jarvis": _of_jarvis, "optimade": _of_optimade, "pymatgen": _of_pymatgen}[item["kind"]]
    try:
        return make(item["id"], item["structure"], item["labels"])
    except InvalidCrystal:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        # Whatever is of another kind, at any depth, than it should be.
        raise InvalidCrystal(
            item["id"], f"its structure is not as it should be ({type(error).__name__}: "
            f"{one_line(error)})"
        ) from None  # fmt: skip


def _of_jarvis(id: str, atoms: Mapping[str, Any], labels: Mapping[str, float]) -> Crystal:
    missing = [name for name in ("lattice_mat", "coords", "elements") if name not in atoms]
    if missing:
        raise InvalidCrystal(id, f"its atoms have no {missing[0]}")
    if not isinstance(atoms["elements"], (list, tuple, np.ndarray)):
        raise InvalidCrystal(id, "its elements are no list")
    species = _atomic_numbers(atoms["elements"], id)
    try:
        lattice = np.array(atoms["lattice_mat"], dtype=float)
        coords = np.array(atoms["coords"], dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidCrystal(id, f"its atoms are no arrays of numbers: {one_line(error)}") from None
    if lattice.size == 9:
        lattice = lattice.reshape(3, 3)  # some list the nine numbers
    if _is_true(atoms.get("cartesian"), id) and coords.shape == (len(species), 3):
        coords = _fractional(coords, lattice, "lattice_mat", id)
    return Crystal(id, species, coords, lattice, labels)


def _of_optimade(id: str, attributes: Mapping[str, Any], labels: Mapping[str, float]) -> Crystal:
    """The specification's section "Structures Entries" says what the properties mean."""
    names = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")
    missing = [name for name in names if attributes.get(name) is None]
    if missing:
        raise InvalidCrystal(
            id, f"it has no {missing[0]}; ask for it in the query, as one of the response fields"
        )
    if not all(attributes.get("dimension_types") or (1, 1, 1)):
        raise InvalidCrystal(id, "it is not periodic in three directions (dimension_types)")
    symbols = {}
    for species in attributes.get("species") or ():
        kinds, shares = species["chemical_symbols"], species.get("concentration") or [1.0]
        if len(kinds) != 1 or abs(shares[0] - 1.0) > 1e-3:
            raise InvalidCrystal(
                id,
                f"a site is partially occupied ({dict(zip(kinds, shares))}); give an ordered "
                "structure",
            )
        if species.get("attached"):
            raise InvalidCrystal(id, f"atoms without a place are attached to {species['name']}")
        symbols[species["name"]] = kinds[0]
    at_sites = attributes["species_at_sites"]
    elements = _atomic_numbers([symbols.get(name, name) for name in at_sites], id)
    lattice = np.array(attributes["lattice_vectors"], dtype=float)
    positions = np.array(attributes["cartesian_site_positions"], dtype=float)
    coords = _fractional(positions, lattice, "lattice_vectors", id)
    return Crystal(id, elements, coords, lattice, labels)


def _of_pymatgen(id: str, structure: Mapping[str, Any], labels: Mapping[str, float]) -> Crystal:
    """Of ``Structure.as_dict()``."""
    if not all(structure["lattice"].get("pbc") or (1, 1, 1)):
        raise InvalidCrystal(id, "it is not periodic in three directions (lattice.pbc)")
    symbols, coords = [], []
    for site in structure["sites"]:
        species = site["species"]
        if len(species) != 1 or abs(species[0].get("occu", 1) - 1.0) > 1e-3:
            shares = {one["element"]: one.get("occu", 1) for one in species}
            raise InvalidCrystal(
                id, f"a site is partially occupied ({shares}); give an ordered structure"
            )
        symbols.append(species[0]["element"])
        coords.append(site["abc"])
    lattice = np.array(structure["lattice"]["matrix"], dtype=float)
    return Crystal(id, _atomic_numbers(symbols, id), np.array(coords, dtype=float), lattice, labels)


def _atomic_numbers(symbols: Iterable[Any], id: str) -> np.ndarray:
    found = []
    for symbol in symbols:
        if str(symbol).strip() not in _NUMBERS:
            raise InvalidCrystal(id, f"unknown element {symbol!r}")
        found.append(_NUMBERS[str(symbol).strip()])
    return np.array(found)


def _fractional(positions: np.ndarray, lattice: np.ndarray, name: str, id: str) -> np.ndarray:
    if lattice.shape != (3, 3) or not np.isfinite(lattice).all():
        raise InvalidCrystal(id, f"its {name} is no 3 by 3 numbers")
    if abs(np.linalg.det(lattice)) < 1e-6:
        raise InvalidCrystal(id, "the cell has no volume; check the lattice")
    return np.linalg.solve(lattice.T, positions.T).T


def _is_true(value: Any, id: str) -> bool:
    """Whether coordinates are Cartesian, also where text says so.

    Raises:
      InvalidCrystal: the value is neither true nor false.
    """
    text = str(value).strip().lower()
    if text in ("true", "1", "1.0", "yes"):
        return True
    if text in ("false", "0", "0.0", "no", "none", ""):
        return False
    raise InvalidCrystal(id, f"its cartesian is {value!r}, neither true nor false")
