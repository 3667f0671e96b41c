"""Files of JSON records: of the JARVIS data sets, OPTIMADE responses, structures of pymatgen."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from crysgnn_jax.crystals.contents import MAX_EXPANSION, content_of, limit_of
from crysgnn_jax.crystals.readers.items import ItemSource, Problem, digest_of_files, one_line
from crysgnn_jax.crystals.readers.records import decode, entry_of, records_in
from crysgnn_jax.errors import UserError

MARKS = (
    *(b'"atoms"', b'"lattice_mat"', b'"lattice_vectors"', b'"cartesian_site_positions"'),
    b"pymatgen.core",
)
"""What the beginning of an object has one of, where it is no database of ASE's."""


def is_jarvis_json(path: Path) -> bool:
    """Whether to read a file as records: an ASE database in JSON is an object of other rows."""
    name = path.name.lower()
    if name.endswith((".zip", ".json.gz")):
        return True
    if not name.endswith(".json"):
        return False
    with open(path, "rb") as file:
        head = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head[:1] != b"{" or any(mark in head for mark in MARKS)


def jarvis_json(path: Path) -> ItemSource:
    """The records of a ``.json``, ``.json.gz`` or ``.zip`` file.

    A record has an id (``jid``, ``id`` or ``material_id``), ``atoms`` with ``lattice_mat`` (Å),
    ``coords``, ``elements`` and ``cartesian``, and properties: numbers, also as text, are labels;
    ``"na"``, null and NaN are missing. Instead of a list there may be an object of records, whose
    keys are the ids of those that have none, or a single record. A record may be of OPTIMADE or
    pymatgen as well, see `records`; an OPTIMADE response holds them under ``data``.

    Raises:
      UserError: the file is damaged, holds no records, or unpacks to over
        `contents.MAX_EXPANSION` times its size.
    """
    digest = digest_of_files("jarvis json", [path])
    records = _load(path)
    # A structure by itself has no id.
    alone = len(records) == 1
    entries = [
        entry_of(record, path.stem if alone else f"record {k}", needs_id=not alone)
        for k, record in enumerate(records)
    ]
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
    records = records_in(records)
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
