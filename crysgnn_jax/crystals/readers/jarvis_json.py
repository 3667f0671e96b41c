"""The JSON of the JARVIS data sets: a list of records, plain or compressed."""

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.crystals.contents import MAX_EXPANSION, content_of, limit_of
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.readers.items import ItemSource, Problem, digest_of_files, one_line
from crysgnn_jax.errors import InvalidCrystal, UserError, printable

ID_KEYS = ("jid", "id", "material_id")
MAX_LABEL = 1e300
"""JSON knows integers that no float can hold; NaN and infinity are above it as well."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")

_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number > 0}


def is_jarvis_json(path: Path) -> bool:
    """Whether to read a file as records: an ASE database in JSON is an object of other rows."""
    name = path.name.lower()
    if name.endswith((".zip", ".json.gz")):
        return True
    if not name.endswith(".json"):
        return False
    with open(path, "rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head[:1] != b"{" or b'"atoms"' in head or b'"lattice_mat"' in head


def jarvis_json(path: Path) -> ItemSource:
    """The records of a ``.json``, ``.json.gz`` or ``.zip`` file.

    A record has an id (``jid``, ``id`` or ``material_id``), ``atoms`` with ``lattice_mat`` (Å),
    ``coords``, ``elements`` and ``cartesian``, and properties: numbers, also as text, are labels;
    ``"na"``, null and NaN are missing. Instead of a list there may be an object of records, whose
    keys are the ids of those that have none, or a single record.

    Raises:
      UserError: the file is damaged, holds no records, or unpacks to over
        `contents.MAX_EXPANSION` times its size.
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
        records = json.loads(_content(path))
    except (
        *(OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RecursionError),
        *(RuntimeError, NotImplementedError),  # encrypted, or compressed in an unknown way
    ) as error:
        raise UserError(
            f"{path}: damaged or incomplete ({one_line(error)}); download it again"
        ) from None
    if isinstance(records, dict):
        if isinstance(records.get("atoms"), dict):
            records = [records]
        elif all(isinstance(record, dict) for record in records.values()):
            records = [
                record if any(key in record for key in ID_KEYS) else {"id": key, **record}
                for key, record in records.items()
            ]
    if not isinstance(records, list) or not records:
        raise UserError(f"{path}: not a list of records with jid, atoms and properties")
    return records


def _content(path: Path) -> bytes:
    if path.suffix.lower() != ".zip":
        return content_of(path).removeprefix(b"\xef\xbb\xbf")
    with zipfile.ZipFile(path) as archive:
        names = [
            name
            for name in archive.namelist()
            if name.endswith(".json") and not name.startswith("__MACOSX/")
        ]
        if len(names) != 1:
            raise UserError(f"{path}: the archive holds {len(names)} .json files, not one")
        limit = limit_of(path.stat().st_size)
        with archive.open(names[0]) as file:
            content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(
            f"{path}: {names[0]} is over {MAX_EXPANSION} times as large as the archive; unpack it "
            "yourself"
        )
    return content


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
        printable(name): value
        for name, text in record.items()
        if name not in ID_KEYS and (value := _number(text)) is not None
    }
    return {"id": id, "atoms": record["atoms"], "labels": labels}


def _number(value: Any) -> float | None:
    """A label, as a number or as the text of one; None for anything else."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < MAX_LABEL else None


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
        lattice = np.array(atoms["lattice_mat"], dtype=float)
        coords = np.array(atoms["coords"], dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidCrystal(id, f"its atoms are no arrays of numbers: {one_line(error)}") from None
    if lattice.size == 9:
        lattice = lattice.reshape(3, 3)  # some list the nine numbers
    numbers = np.array([_NUMBERS[str(element).strip()] for element in atoms["elements"]])
    if _is_true(atoms.get("cartesian"), id) and coords.shape == (len(numbers), 3):
        if lattice.shape != (3, 3) or not np.isfinite(lattice).all():
            raise InvalidCrystal(id, "its lattice_mat is no 3 by 3 numbers")
        if abs(np.linalg.det(lattice)) < 1e-6:
            raise InvalidCrystal(id, "the cell has no volume; check the lattice")
        coords = np.linalg.solve(lattice.T, coords.T).T
    return Crystal(id, numbers, coords, lattice, item["labels"])


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
