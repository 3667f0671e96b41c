"""Databases of ASE, row by row: SQLite (``.db``) and LMDB (``.aselmdb``)."""

import contextlib
import dataclasses
import sqlite3
import urllib.parse
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.frames import Frame, frame_of, numbers_in
from crysgnn_jax.crystals.readers.indexed import Catalogue, Catalogued
from crysgnn_jax.crystals.readers.items import Problem, decode_item, one_line
from crysgnn_jax.errors import InvalidCrystal, UserError
from crysgnn_jax.extras import require

SAMPLE = 100
"""Rows of an LMDB database that tell which properties it has: a row is known only when it is
decoded, and the large open sets have a hundred million."""

_KNOWN = ["id", "key_value_pairs", "energy", "free_energy", "magmom"]
"""Columns of the table of structures that hold what a row's numbers are."""


@dataclasses.dataclass(frozen=True)
class SqliteDatabase(Catalogued):
    """The rows of a SQLite database of ASE's, as a `sources.Source`; see `sqlite_database`."""

    name: str
    path: Path
    rows: Sequence[int]
    catalogue: Catalogue
    digest: str
    notes: Sequence[str] = ()
    decode: Callable[[Any], Crystal] = decode_item

    def items(self, start: int, stop: int) -> list[Frame | Problem]:
        """The items ``start … stop − 1``, whose rows are read now."""
        numbers = range(start, min(stop, len(self)))
        if self.catalogue.problems:
            return [self.catalogue.problems[number] for number in numbers]
        rows = self.rows[start:stop]
        found: dict[int, Any] = {}
        with _sqlite(self.path) as database:
            # What is wrong with a row is told row by row, below.
            with contextlib.suppress(Exception):
                span = f"id>={rows[0]},id<={rows[-1]}"
                found = {row.id: row for row in database.select(span, include_data=False)}
            return [
                _frame_of_row(database, found.get(row), row, self.catalogue.id_of(number))
                for row, number in zip(rows, numbers)
            ]


def sqlite_database(path: Path, id: str, digest: str) -> SqliteDatabase:
    """The rows of a ``.db`` file.

    Key-value pairs that are numbers, and results of a calculator, are labels. A file that is no
    database of ASE's is one unusable crystal.

    Args:
      path: the file.
      id: of its only row; with the number of the row where there are several.
      digest: hex digest of the content.
    """
    rows, catalogue = array("Q"), Catalogue()
    try:
        _require_ase_database(path)
        with _sqlite(path) as database:
            for row in database.select(columns=_KNOWN, include_data=False):
                known = {name: row.get(name) for name in _KNOWN[2:]} | row.key_value_pairs
                catalogue.add_numbers(f"{id}-{len(rows)}", numbers_in(known))
                rows.append(row.id)
        if not rows:
            raise ValueError("it holds no structure")
        if len(rows) == 1:
            catalogue = catalogue.renamed(id)
    except Exception as error:  # of SQLite, and of ASE on what it holds
        rows, catalogue = array("Q", [0]), Catalogue()
        catalogue.add_problem(Problem(id, f"{path.name} cannot be read by ASE: {one_line(error)}"))
    return SqliteDatabase(str(path), path, rows, catalogue, digest)


@contextlib.contextmanager
def _sqlite(path: Path) -> Iterator[Any]:
    """A database of ASE's, opened."""
    import ase.db

    with ase.db.connect(str(path), type="db", use_lock_file=False) as database:
        yield database


def _frame_of_row(database: Any, row: Any, number: int, id: str) -> Frame | Problem:
    try:
        row = database.get(id=number) if row is None else row
        return frame_of(row.toatoms(add_additional_information=True), id)
    except Exception as error:  # each damage has its own
        return Problem(id, f"row {number} cannot be read by ASE: {one_line(error)}")


def _require_ase_database(path: Path) -> None:
    """Look whether a file is a database of ASE's, which would else be made one.

    Raises:
      ValueError: it is another program's, or none.
    """
    address = f"file:{urllib.parse.quote(str(path.resolve()))}?mode=ro"
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            tables = {name for (name,) in database.execute(query)}
    except sqlite3.Error as error:
        raise ValueError(f"it is no SQLite database ({error})") from None
    if not {"systems", "information"} <= tables:
        listed = ", ".join(sorted(tables)[:5]) or "no tables"
        raise ValueError(f"it is no database of ASE's: it has {listed}")


class LmdbRow(NamedTuple):
    """One row of an LMDB database, undecoded."""

    id: str
    content: bytes

    def crystal(self) -> Crystal:
        """
        Raises:
          InvalidCrystal: the row is damaged, or no periodic crystal.
        """
        try:
            atoms = _atoms_of(self.content)
        except Exception as error:  # of zlib, JSON and ASE
            raise InvalidCrystal(self.id, f"its row is damaged ({one_line(error)})") from None
        return frame_of(atoms, self.id).crystal()


class LmdbDatabase:
    """The rows of an LMDB database of ASE's, as a `sources.Source`.

    Which numbers a row has is only known once it is decoded: those of the first `SAMPLE` rows are
    the properties.

    Args:
      path: an ``.aselmdb`` file.
      id: of its only row; with the number of the row where there are several.
      digest: hex digest of the content.

    Raises:
      UserError: the package that reads it is missing, or the file is damaged.
    """

    decode = staticmethod(decode_item)
    notes: Sequence[str] = ()
    tag_names = ()

    def __init__(self, path: Path, id: str, digest: str):
        require("lmdb", "lmdb", f"{path}:")
        self.name = str(path)
        self._path, self._id, self._digest = path, id, digest
        with self._opened() as rows:
            self._rows = _row_numbers(rows)
            names: dict[str, None] = {}
            for number in self._rows[:SAMPLE]:
                # A damaged row is told when it is decoded.
                with contextlib.suppress(Exception):
                    atoms = _atoms_of(rows.get(str(number).encode()))
                    names |= dict.fromkeys(frame_of(atoms, "").labels)
        if not len(self._rows):
            raise UserError(f"{path}: the database holds no structures")
        self.label_names = list(names)
        if len(self._rows) > SAMPLE:
            listed = ", ".join(names) or "none"
            self.notes = [f"properties are those of the first {SAMPLE} rows: {listed}"]

    def __len__(self) -> int:
        return len(self._rows)

    def fingerprint(self) -> str:
        return self._digest

    def ids(self) -> np.ndarray:
        return np.array([self._id_of(k) for k in range(len(self))], dtype=str)

    def labelled(self, label: str) -> np.ndarray:
        return np.full(len(self), label in self.label_names)

    def items(self, start: int, stop: int) -> list[LmdbRow | Problem]:
        """The items ``start … stop − 1``, whose bytes are read now."""
        found: list[LmdbRow | Problem] = []
        with self._opened() as rows:
            for number in range(start, min(stop, len(self))):
                content, id = rows.get(str(self._rows[number]).encode()), self._id_of(number)
                if content is None:
                    found.append(Problem(id, f"row {self._rows[number]} is missing"))
                else:
                    found.append(LmdbRow(id, bytes(content)))
        return found

    def _id_of(self, number: int) -> str:
        return self._id if len(self._rows) == 1 else f"{self._id}-{number}"

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """What gets the content of a row by its number.

        Raises:
          UserError: the file is damaged.
        """
        import lmdb

        try:
            with (
                lmdb.open(
                    str(self._path), subdir=False, readonly=True, lock=False, readahead=False
                ) as database,
                database.begin() as rows,
            ):
                # Beyond the end of a file that is cut short lies no memory, and who reads there is
                # ended by the system.
                size = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
                if self._path.stat().st_size < size:
                    raise lmdb.Error(f"it should have {size} bytes")
                yield rows
        except (lmdb.Error, OSError) as error:
            raise UserError(
                f"{self._path}: damaged or incomplete ({one_line(error)}); download it again"
            ) from None


def _row_numbers(rows: Any) -> Sequence[int]:
    """The numbers of the rows that are there, ascending."""
    following, deleted = (_decoded(rows.get(name)) for name in (b"nextid", b"deleted_ids"))
    if not isinstance(following, int):
        keys = (key for key, _ in rows.cursor())
        return sorted(int(key) for key in keys if key.isdigit())
    if not deleted:
        return range(1, following)
    left = np.setdiff1d(np.arange(1, following), np.array(deleted, dtype=int))
    return array("Q", left.tolist())


def _decoded(content: bytes | None) -> Any:
    """A value: JSON as ASE writes it, compressed."""
    from ase.io.jsonio import decode

    return None if content is None else decode(zlib.decompress(content).decode())


def _atoms_of(content: bytes | None) -> Any:
    """The ``ase.Atoms`` in a row."""
    from ase.db.row import AtomsRow

    fields = _decoded(content)
    fields.pop("data", None)
    return AtomsRow({**fields, "id": 1}).toatoms(add_additional_information=True)
