"""The JSON of the JARVIS data sets: a list of records, plain or compressed."""

import gzip
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.readers.items import ItemSource, Problem, digest_of_files, one_line
from crysgnn_jax.errors import InvalidCrystal, UserError

ID_KEYS = ("jid", "id", "material_id")
MAX_LABEL = 1e300
"""JSON knows integers that no float can hold; NaN and infinity are above it as well."""

_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number > 0}


def is_jarvis_json(path: Path) -> bool:
    """Whether to read a file as a list of records: an ASE database in JSON is an object."""
    if path.suffix in (".zip", ".gz"):
        return True
    if path.suffix != ".json":
        return False
    with open(path, "rb") as file:
        return file.read(256).lstrip()[:1] != b"{"


def jarvis_json(path: Path) -> ItemSource:
    """The records of a ``.json``, ``.json.gz`` or ``.zip`` file.

    A record has an id (``jid``, ``id`` or ``material_id``), ``atoms`` with ``lattice_mat`` (Å),
    ``coords``, ``elements`` and ``cartesian``, and properties: numbers are labels; ``"na"``, null
    and NaN are missing.

    Raises:
      UserError: the file is damaged, or holds no list of records.
    """
    digest = digest_of_files("jarvis json", [path])
    records = _load(path)
    entries = [_entry(record, number) for number, record in enumerate(records)]
    return ItemSource(
        name=str(path),
        decode=decode,
        entries=entries,
        entry_ids=[entry.id if isinstance(entry, Problem) else entry["id"] for entry in entries],
        entry_labels=[{} if isinstance(entry, Problem) else entry["labels"] for entry in entries],
        digest=digest,
    )


def _load(path: Path) -> list[Any]:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [
                    name
                    for name in archive.namelist()
                    if name.endswith(".json") and not name.startswith("__MACOSX/")
                ]
                if len(names) != 1:
                    raise UserError(f"{path}: the archive holds {len(names)} .json files, not one")
                content = archive.read(names[0])
        elif path.suffix == ".gz":
            content = gzip.decompress(path.read_bytes())
        else:
            content = path.read_bytes()
        records = json.loads(content)
    except (
        *(OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile),
        *(RuntimeError, NotImplementedError),  # encrypted, or compressed in an unknown way
    ) as error:
        raise UserError(
            f"{path}: damaged or incomplete ({one_line(error)}); download it again"
        ) from None
    if not isinstance(records, list) or not records:
        raise UserError(f"{path}: not a list of records with jid, atoms and properties")
    return records


def _entry(record: Any, number: int) -> dict[str, Any] | Problem:
    fallback = f"record {number}"
    if not isinstance(record, dict):
        return Problem(fallback, f"{fallback} is no object")
    id = next((str(record[key]) for key in ID_KEYS if key in record), None)
    if id is None:
        return Problem(fallback, f"{fallback} has none of {', '.join(ID_KEYS)}")
    if not isinstance(record.get("atoms"), dict):
        return Problem(id, f"{fallback} has no atoms")
    labels = {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, (int, float))
        and not isinstance(value, bool)
        and name not in ID_KEYS
        and abs(value) < MAX_LABEL
    }
    return {"id": id, "atoms": record["atoms"], "labels": labels}


def decode(item: dict[str, Any] | Problem) -> Crystal:
    """Make a crystal of one record.

    Raises:
      InvalidCrystal: its atoms cannot be used.
    """
    if isinstance(item, Problem):
        return item.crystal()
    id, atoms = item["id"], item["atoms"]
    missing = [name for name in ("lattice_mat", "coords", "elements") if name not in atoms]
    if missing:
        raise InvalidCrystal(id, f"its atoms have no {missing[0]}")
    if not isinstance(atoms["elements"], list):
        raise InvalidCrystal(id, "its elements are no list")
    unknown = [element for element in atoms["elements"] if str(element).strip() not in _NUMBERS]
    if unknown:
        raise InvalidCrystal(id, f"unknown element {unknown[0]!r}")
    try:
        lattice = np.array(atoms["lattice_mat"], dtype=float).reshape(3, 3)
        coords = np.array(atoms["coords"], dtype=float).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise InvalidCrystal(id, f"its atoms are no arrays of numbers: {one_line(error)}") from None
    numbers = np.array([_NUMBERS[str(element).strip()] for element in atoms["elements"]])
    if atoms.get("cartesian"):
        if abs(np.linalg.det(lattice)) < 1e-6:
            raise InvalidCrystal(id, "the cell has no volume; check the lattice")
        coords = np.linalg.solve(lattice.T, coords.T).T
    return Crystal(id, numbers, coords, lattice, item["labels"])
