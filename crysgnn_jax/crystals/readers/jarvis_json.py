"""Files of JSON records: of the JARVIS data sets, OPTIMADE responses, structures of pymatgen.

Records are found in one pass and decoded by the workers: a file of any size takes but the memory of
the places of its records.
"""

import functools
import json
import zipfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import records
from crysgnn_jax.crystals.readers.indexed import (
    Catalogue,
    Hashed,
    SpanSource,
    begin,
    digest_of,
)
from crysgnn_jax.crystals.readers.items import Problem, one_line
from crysgnn_jax.crystals.readers.json_scan import MAX_RECORD, Scanner, Value
from crysgnn_jax.crystals.readers.kept import (
    COMPRESSED,
    DAMAGE,
    copy,
    kept,
    removed_if_damaged,
    unpack,
)
from crysgnn_jax.errors import InvalidCrystal, UserError

MARKS = (
    *(b'"atoms"', b'"lattice_mat"', b'"lattice_vectors"', b'"cartesian_site_positions"'),
    b"pymatgen.core",
)
"""What the beginning of an object has one of, where it is no database of ASE's."""

_DAMAGE = (
    *(*DAMAGE, zipfile.BadZipFile, RecursionError),
    *(RuntimeError, NotImplementedError),  # encrypted, or compressed in an unknown way
)


class Record(NamedTuple):
    """One record, undecoded, and the id that it goes by."""

    id: str
    content: bytes


def is_jarvis_json(path: Path) -> bool:
    """Whether to read a file as records: an ASE database in JSON is an object of other rows."""
    name = path.name.lower()
    plain = name.removesuffix(path.suffix.lower()) if path.suffix.lower() in COMPRESSED else ""
    if name.endswith((".zip", ".jsonl")) or plain.endswith((".json", ".jsonl")):
        return True
    if not name.endswith(".json"):
        return False
    with open(path, "rb") as file:
        head = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head[:1] != b"{" or any(mark in head for mark in MARKS)


def jarvis_json(path: Path, name: str | None = None) -> SpanSource:
    """The records of a ``.json`` or ``.jsonl`` file, also compressed, or of a ``.zip`` file of one
    ``.json``.

    A record has an id (``jid``, ``id`` or ``material_id``), ``atoms`` with ``lattice_mat`` (Å),
    ``coords``, ``elements`` and ``cartesian``, and properties: numbers, also as text, are labels;
    ``"na"``, null and NaN are missing. Instead of a list there may be an object of records, whose
    keys are the ids of those that have none, or a single record. A record may be of OPTIMADE or
    pymatgen as well, see `records`; an OPTIMADE response holds them under ``data``.

    What is compressed is unpacked once, into the cache.

    Args:
      path: the file.
      name: of the source; the path where it is not given.

    Raises:
      UserError: the file is damaged, holds no records, or unpacks to over
        `contents.MAX_EXPANSION` times its size.
    """
    digest = digest_of("jarvis json")
    try:
        begin(digest, path.name, path.stat().st_size)
        with open(path, "rb") as file:
            source = Hashed(file, digest)
            head = file.read(4)
            file.seek(0)
            if path.suffix.lower() in (".zip", *COMPRESSED) or _is_wide(head):
                source.rest()
                plain = _plain(path, digest.hexdigest())
                with removed_if_damaged(plain), open(plain, "rb") as content:
                    found = _index(Hashed(content, digest.copy()), path)
            else:
                plain, found = path, _index(source, path)
                source.rest()
        if found.whole is not None:
            found.add_whole(plain, path.stem)
    except _DAMAGE as error:
        raise UserError(
            f"{path}: damaged or incomplete ({one_line(error)}); download it again"
        ) from None
    if not found.catalogue:
        raise UserError(f"{path}: not a list of records with jid, atoms and properties")
    return SpanSource(
        name=name or str(path),
        path=plain,
        starts=found.starts,
        sizes=found.sizes,
        catalogue=found.catalogue,
        digest=digest.hexdigest(),
        as_item=_as_record,
        decode=decode,
        places=(str(path),),
    )


def decode(item: Record | Problem) -> Crystal:
    """Make a crystal of one record.

    Raises:
      InvalidCrystal: its structure cannot be used.
    """
    if isinstance(item, Problem):
        return item.crystal()
    try:
        entry = records.entry_of(json.loads(item.content), item.id)
    except ValueError as error:
        raise InvalidCrystal(item.id, f"its record is damaged ({one_line(error)})") from None
    return records.decode(entry if isinstance(entry, Problem) else {**entry, "id": item.id})


def _as_record(number: int, id: str, content: bytes) -> Record:
    return Record(id, content)


class _Found:
    """The records of a file as they are found.

    Attributes:
      whole: the bytes ``start … stop − 1`` of an object that is a record itself.
    """

    def __init__(self, whole: tuple[int, int] | None = None):
        self.starts, self.sizes, self.catalogue = array("Q"), array("Q"), Catalogue()
        self.whole = whole

    def add(self, value: Value, fallback: str, *, needs_id: bool) -> None:
        """One more record; arguments as of `records.entry_of`."""
        entry = records.entry_of(value.content, fallback, needs_id=needs_id)
        if isinstance(entry, Problem):
            self.catalogue.add_problem(entry)
        else:
            self.catalogue.add(entry["id"], entry["labels"])
        self.starts.append(value.start)
        self.sizes.append(value.stop - value.start)

    def add_lines(self, file: Hashed) -> None:
        """The records of a text with one a line, of which a damaged one costs only itself; what
        comes before them in OPTIMADE's is no record."""
        at = 0
        while lines := file.lines(1):
            start, at = at, at + len(lines[0])
            if not lines[0].strip():
                continue
            number = len(self.starts)
            try:
                value = Value(json.loads(lines[0]), start, at)
            except (ValueError, RecursionError) as error:
                name = f"record {number}"
                self.catalogue.add_problem(Problem(name, f"{name} is damaged: {one_line(error)}"))
                self.starts.append(start)
                self.sizes.append(0)
                continue
            if not (isinstance(value.content, Mapping) and _is_heading(value.content)):
                self.add(value, f"record {number}", needs_id=True)

    def add_list(self, scanner: Scanner, stem: str) -> None:
        """The records of a list."""
        first: Value | None = None
        for number, value in enumerate(scanner.values_of_list()):
            if number == 0:
                first = value  # a structure by itself has no id
                continue
            if first is not None:
                self.add(first, "record 0", needs_id=True)
                first = None
            self.add(value, f"record {number}", needs_id=True)
        if first is not None:
            self.add(first, stem, needs_id=False)

    def add_whole(self, path: Path, stem: str) -> None:
        """The one record that the file is."""
        start, stop = self.whole or (0, 0)
        if stop - start > MAX_RECORD:
            raise ValueError(f"it is one record of {stop - start} bytes")
        with open(path, "rb") as file:
            file.seek(start)
            content = json.loads(file.read(stop - start))
        self.add(Value(content, start, stop), stem, needs_id=False)

    def add_keyed(self, key: str, value: Value) -> None:
        """A record by its key."""
        content = value.content
        if not any(name in content for name in records.ID_KEYS):
            value = value._replace(content={"id": key, **content})
        self.add(value, f"record {len(self.starts)}", needs_id=True)


def _is_heading(line: Mapping) -> bool:
    """Whether a line of OPTIMADE's format of lines says something of the whole."""
    return "x-optimade" in line or line.get("type") in ("info", "references")


def _index(file: Hashed, path: Path) -> _Found:
    """The places of the records of a file.

    Raises:
      ValueError: it is damaged or cut short.
      RecursionError: it is nested too deeply.
    """
    found = _Found()
    if ".jsonl" in path.name.lower():
        found.add_lines(file)
        return found
    scanner = Scanner(file)
    first = scanner.peek()
    if first == "[":
        found.add_list(scanner, path.stem)
    elif first == "{":
        found = _of_object(scanner, path.stem)
    else:
        scanner.value()
    scanner.end()
    return found


def _of_object(scanner: Scanner, stem: str) -> _Found:
    """The records of an object: those under ``data``, or under their keys, or itself, as
    `records.records_in` has it."""
    listed, keyed = None, _Found()
    telling: dict[str, Any] = {}
    start, only_records = scanner.place(), True
    for key in scanner.keys_of_object():
        if key == "data" and scanner.peek() == "[":
            listed = _Found()
            listed.add_list(scanner, stem)
            only_records = False
            continue
        value = scanner.value()
        if key in records.TELLING:
            telling[key] = value.content
        if isinstance(value.content, Mapping) and only_records:
            keyed.add_keyed(key, value)
        else:
            only_records = False
    if records.is_structure(telling):
        return _Found(whole=(start, scanner.stop()))
    return listed or (keyed if only_records else _Found())


def _is_wide(head: bytes) -> bool:
    """Whether characters take two or four bytes."""
    return json.detect_encoding(head) not in ("utf-8", "utf-8-sig")


def _plain(path: Path, digest: str) -> Path:
    """What is in a compressed file, in the cache.

    Raises:
      UserError: it is an archive of several files, or the cache cannot be written.
      Exception: of `_DAMAGE`, where it is damaged.
    """
    return kept(f"{digest}.json", functools.partial(_unpack, path))


def _unpack(path: Path, draft: Path) -> None:
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(json_member(archive, path)) as content:
            copy(content, draft, path.stat().st_size)  # type: ignore[arg-type]
    elif suffix in COMPRESSED:
        unpack(path, draft)
    else:
        text = path.read_bytes()
        draft.write_bytes(text.decode(json.detect_encoding(text[:4])).encode())


def json_member(archive: zipfile.ZipFile, path: Path) -> str:
    """The name of the one ``.json`` file of an archive.

    Raises:
      UserError: it has none, or several.
    """
    names = [
        name
        for name in archive.namelist()
        if name.endswith(".json") and not name.startswith("__MACOSX/")
    ]
    if len(names) != 1:
        raise UserError(f"{path}: the archive holds {len(names)} .json files, not one")
    return names[0]
