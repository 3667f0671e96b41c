"""The folder format of CGCNN: ``id_prop.csv`` beside one CIF file for each id."""

import csv
import io
import math
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from crysgnn_jax.crystals.contents import as_text
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.cif import read_cif
from crysgnn_jax.crystals.readers.items import ItemSource, Problem, digest_of_files, one_line
from crysgnn_jax.errors import UserError

ID_PROP = "id_prop.csv"
_ID_NAMES = {"id", "ids", "material_id", "cif_id"}


class Row(NamedTuple):
    """One line of the table whose file is there."""

    id: str
    path: Path
    labels: dict[str, float]


def cgcnn_folder(folder: Path) -> ItemSource:
    """The crystals of ``id_prop.csv``: ``id,value[,value…]``, and ``<id>.cif`` for each.

    The properties are called ``target``, or ``target_1``, ``target_2`` … if there are several,
    unless a first line ``id,name[,name…]`` names them. A row that cannot be used, because its file
    is missing or outside the folder, a value is no number or its id occurs before, is a bad
    crystal.

    Raises:
      UserError: the table is empty, no text, or names a property twice.
    """
    table = folder / ID_PROP
    try:
        text = as_text(table.read_bytes())
        rows = csv.reader(io.StringIO(text, newline=""))
        lines = [(number, line) for number, line in enumerate(rows, 1) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read as a table ({error})") from None
    names = None
    if lines and lines[0][1][0].strip().lower() in _ID_NAMES:
        names = [name.strip() for name in lines.pop(0)[1][1:]]
    if not lines:
        raise UserError(f"{table}: the table has no rows; give lines such as  mp-1,-0.53")
    if names is None:
        n_values = Counter(len(line) for _, line in lines).most_common(1)[0][0] - 1
        names = ["target"] if n_values == 1 else [f"target_{i}" for i in range(1, n_values + 1)]
    if not names:
        raise UserError(f"{table}: the rows have no values; give lines such as  mp-1,-0.53")
    if repeated := [name for name, n in Counter(names).items() if n > 1]:
        raise UserError(f"{table}: the first line names the property {repeated[0]!r} twice")
    seen: set[str] = set()
    entries = [_entry(folder, number, line, names, seen) for number, line in lines]
    files = [table, *(entry.path for entry in entries if isinstance(entry, Row))]
    known = {line[0].strip() for _, line in lines}
    without = sum(path.stem not in known for path in folder.glob("*.cif"))
    notes = [f"{without} CIF files have no row in {ID_PROP} and are not read"] if without else []
    return ItemSource(
        name=str(folder),
        decode=decode,
        entries=entries,
        entry_ids=[entry.id for entry in entries],
        entry_labels=[entry.labels if isinstance(entry, Row) else {} for entry in entries],
        digest=digest_of_files("cgcnn folder", files),
        names=names,
        notes=notes,
    )


def _entry(
    folder: Path, number: int, line: list[str], names: list[str], seen: set[str]
) -> Row | Problem:
    id, where = line[0].strip(), f"{ID_PROP} row {number}"
    if len(line) != len(names) + 1:
        return Problem(id, f"{where} has {len(line) - 1} values, not {len(names)}")
    if id in seen:
        return Problem(id, f"{where}: the id {id!r} occurs before")
    seen.add(id)
    labels = {}
    for name, text in zip(names, line[1:]):
        try:
            value = float(text)
        except ValueError:
            return Problem(id, f"{where}: {name}={text.strip()!r} is not a number")
        if not math.isfinite(value):
            return Problem(id, f"{where}: {name} is {value}")
        labels[name] = value
    inside = PurePosixPath(id.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts:
        return Problem(id, f"{where}: the id leads out of the folder; ids are names of files in it")
    path = folder / f"{id}.cif"
    try:
        missing = not path.is_file()
    except (OSError, ValueError) as error:  # too long a name, or one with a zero
        return Problem(id, f"{where}: no file can have this id as its name ({one_line(error)})")
    if missing:
        hint = "; ids go without .cif" if id.lower().endswith(".cif") else ""
        return Problem(id, f"{where}: the file {path.name} is missing{hint}")
    return Row(id, path, labels)


def decode(item: Row | Problem) -> Crystal:
    """Read one row's CIF file.

    Raises:
      InvalidCrystal: as `cif.read_cif`, or the row itself cannot be used.
    """
    if isinstance(item, Problem):
        return item.crystal()
    return read_cif(item.path, item.id, item.labels)
