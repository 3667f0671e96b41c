"""The folder format of CGCNN: ``id_prop.csv`` beside one CIF file for each id."""

import csv
import io
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from crysgnn_jax.crystals.contents import as_text
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.cif import read_cif
from crysgnn_jax.crystals.readers.indexed import Catalogue, Catalogued, Texts, add_file, digest_of
from crysgnn_jax.crystals.readers.items import Problem, decode_item, one_line
from crysgnn_jax.errors import UserError

ID_PROP = "id_prop.csv"
_ID_NAMES = {"id", "ids", "material_id", "cif_id"}


class Row(NamedTuple):
    """One line of the table whose file is there."""

    id: str
    path: Path
    labels: dict[str, float]

    def crystal(self) -> Crystal:
        """
        Raises:
          InvalidCrystal: as `cif.read_cif`.
        """
        return read_cif(self.path, self.id, self.labels)


class Table:
    """The rows of an ``id_prop.csv``: ``id,value[,value…]``.

    The properties are called ``target``, or ``target_1``, ``target_2`` … if there are several,
    unless a first line ``id,name[,name…]`` names them. A row that cannot be used, because its file
    is missing or outside the folder, a value is no number or its id occurs before, is a bad
    crystal.

    Args:
      content: of the table.
      name: of the table, for messages.
      is_there: whether the folder has a file, by its name.

    Attributes:
      names: of the properties.
      catalogue: of the rows.
      ids: of the rows, as they are in the table.

    Raises:
      UserError: the table is empty, no text, or names a property twice.
    """

    def __init__(self, content: bytes, name: str, is_there: Callable[[str], bool]):
        try:
            rows = csv.reader(io.StringIO(as_text(content), newline=""))
            lines = [(number, line) for number, line in enumerate(rows, 1) if line]
        except (ValueError, csv.Error) as error:
            raise UserError(f"{name}: cannot be read as a table ({error})") from None
        names = None
        if lines and lines[0][1][0].strip().lower() in _ID_NAMES:
            names = [name.strip() for name in lines.pop(0)[1][1:]]
        if not lines:
            raise UserError(f"{name}: the table has no rows; give lines such as  mp-1,-0.53")
        if names is None:
            n_values = Counter(len(line) for _, line in lines).most_common(1)[0][0] - 1
            several = [f"target_{i}" for i in range(1, n_values + 1)]
            names = ["target"] if n_values == 1 else several
        if not names:
            raise UserError(f"{name}: the rows have no values; give lines such as  mp-1,-0.53")
        if repeated := [name for name, n in Counter(names).items() if n > 1]:
            raise UserError(f"{name}: the first line names the property {repeated[0]!r} twice")
        self.names, self.catalogue, self.ids = names, Catalogue(), Texts()
        self._values = array("d")
        seen: set[str] = set()
        for number, line in lines:
            self._add(f"{ID_PROP} row {number}", line, seen, is_there)

    def labels(self, number: int) -> dict[str, float]:
        """The values of a row that can be used."""
        start = number * len(self.names)
        return dict(zip(self.names, self._values[start : start + len(self.names)]))

    def _add(
        self, where: str, line: list[str], seen: set[str], is_there: Callable[[str], bool]
    ) -> None:
        id = line[0].strip()
        values = [math.nan] * len(self.names)
        if len(line) != len(self.names) + 1:
            problem: str | None = f"{where} has {len(line) - 1} values, not {len(self.names)}"
        elif id in seen:
            problem = f"{where}: the id {id!r} occurs before"
        else:
            seen.add(id)
            problem = _problem_of_values(where, line, self.names, values) or _problem_of_file(
                id, where, is_there
            )
        self.ids.append(id)
        self._values.extend(values)
        if problem is None:
            self.catalogue.add(id, self.names)
        else:
            self.catalogue.add_problem(Problem(id, problem))


class CgcnnFolder(Catalogued):
    """The crystals of ``id_prop.csv`` and ``<id>.cif`` for each, as a `sources.Source`.

    Raises:
      UserError: as of `Table`, or a file cannot be read.
    """

    decode = staticmethod(decode_item)

    def __init__(self, folder: Path):
        with os.scandir(folder) as content:
            names = {entry.name for entry in content}
        is_there = lambda name: name in names or (folder / name).is_file()
        path = folder / ID_PROP
        try:
            text = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read as a table ({error})") from None
        self._table = Table(text, str(path), is_there)
        self._folder = str(folder)
        self.name = str(folder)
        self.places = (str(folder),)
        self.catalogue = self._table.catalogue
        ids = [self._table.ids[k] for k in range(len(self))]
        without = sum(name.endswith(".cif") for name in names.difference(f"{i}.cif" for i in ids))
        if without:
            self.notes = [f"{without} CIF files have no row in {ID_PROP} and are not read"]
        problems = self.catalogue.problems
        files = [f"{id}.cif" for k, id in enumerate(ids) if k not in problems]
        digest = digest_of("cgcnn folder")
        for name in sorted([ID_PROP, *files], key=lambda name: name.split("/")):
            add_file(digest, folder / name)
        self.digest = digest.hexdigest()

    @property
    def label_names(self) -> list[str]:
        """All of the table, also those of which no row is good."""
        return self._table.names

    def items(self, start: int, stop: int) -> list[Row | Problem]:
        """The items ``start … stop − 1``, whose files the workers read."""
        return [
            self.catalogue.problems.get(number)
            or Row(
                self._table.ids[number],
                Path(self._folder, f"{self._table.ids[number]}.cif"),
                self._table.labels(number),
            )
            for number in range(start, min(stop, len(self)))
        ]


def _problem_of_values(
    where: str, line: list[str], names: list[str], values: list[float]
) -> str | None:
    """Why the values of a row cannot be used; where they can, they are put into ``values``."""
    for k, (name, text) in enumerate(zip(names, line[1:])):
        try:
            values[k] = float(text)
        except ValueError:
            return f"{where}: {name}={text.strip()!r} is not a number"
        if not math.isfinite(values[k]):
            return f"{where}: {name} is {values[k]}"
    return None


def _problem_of_file(id: str, where: str, is_there: Callable[[str], bool]) -> str | None:
    """Why the file of a row cannot be used."""
    inside = PurePosixPath(id.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts:
        return f"{where}: the id leads out of the folder; ids are names of files in it"
    try:
        missing = not is_there(f"{id}.cif")
    except (OSError, ValueError) as error:  # too long a name, or one with a zero
        return f"{where}: no file can have this id as its name ({one_line(error)})"
    if missing:
        hint = "; ids go without .cif" if id.lower().endswith(".cif") else ""
        return f"{where}: the file {PurePosixPath(id).name}.cif is missing{hint}"
    return None
