"""Structure files of any format, alone or in a folder."""

import contextlib
import sqlite3
import urllib.parse
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.cif import block_names, read_cif
from crysgnn_jax.crystals.readers.items import ItemSource, Problem, digest_of_files, one_line
from crysgnn_jax.crystals.readers.limits import (
    SECONDS,
    require_atoms_that_are_there,
    seconds_for,
    time_limit,
)
from crysgnn_jax.errors import InvalidCrystal, UserError, printable

CIF = {".cif", ".mcif", ".cif.gz", ".mcif.gz"}
SINGLE = {".vasp", ".poscar", ".contcar", ".cell", ".xsf", ".gen", ".res"}
SEVERAL = {".xyz", ".extxyz", ".db", ".traj", ".json"}
"""Formats whose files can hold many structures: read at once, not one by one in workers."""

DATABASES = {".db", ".json"}

SUFFIXES = (CIF | SINGLE | SEVERAL) - {".json"}
"""What is taken from a folder; a ``.json`` there can be anything."""


class StructureFile(NamedTuple):
    """A file with one crystal, or one block of a CIF file with several."""

    id: str
    path: Path
    block: str = ""


class Frame(NamedTuple):
    """One structure of a file with several, as plain data."""

    id: str
    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    labels: dict[str, float]


def structure_files(path: Path) -> ItemSource:
    """A structure file, or the structure files of a folder.

    CIF is read by gemmi, everything else by ASE. A crystal's id is the file's name without
    suffix; with ``#`` and the name of the data block where a CIF file holds several structures,
    and with the number of the frame where another file does. In formats other than CIF that can
    hold several, numeric entries of ``atoms.info``, ASE database key-value pairs and calculator
    results are labels; those that are NaN or infinite are missing, and counted in a note.

    Raises:
      UserError: the folder has no structure files, or a file cannot be opened.
    """
    notes: list[str] = []
    if path.is_dir():
        content = sorted(path.iterdir())
        files = [file for file in content if file.is_file() and _is_structure(file)]
        left = not_read(set(content) - set(files))
        if not files:
            raise UserError(
                f"`data` {path}: the folder has no structure files "
                f"({', '.join(sorted(SUFFIXES))}, POSCAR) and no id_prop.csv"
                + (f", but {left}; name what is to be read" if left else "")
            )
        notes += [f"not read: {left}"] if left else []
    else:
        files = [path]
    digest = digest_of_files("structure files", files)
    stems = Counter(_stem(file) for file in files)
    entries: list[Any] = []
    not_numbers: Counter[str] = Counter()
    for file in files:
        id = _stem(file) if stems[_stem(file)] == 1 else file.name
        if suffix_of(file) in SEVERAL:
            entries += _frames(file, id, not_numbers)
        elif suffix_of(file) in CIF:
            blocks = block_names(file)
            entries += [StructureFile(f"{id}#{b}" if b else id, file, b) for b in blocks]
        else:
            entries.append(StructureFile(id, file))
    for name, n in not_numbers.items():
        of = "label is no number" if n == 1 else "labels are no numbers"
        notes.append(f"{n} {of} ({printable(name)} is NaN or infinite): taken as missing")
    return ItemSource(
        name=str(path),
        decode=decode,
        entries=entries,
        entry_ids=[entry.id for entry in entries],
        entry_labels=[getattr(entry, "labels", {}) for entry in entries],
        digest=digest,
        notes=notes,
    )


def suffix_of(file: Path) -> str:
    """Lower-case suffix, ``.cif.gz`` as one."""
    suffix = file.suffix.lower()
    return Path(file.stem).suffix.lower() + suffix if suffix == ".gz" else suffix


def _stem(file: Path) -> str:
    return Path(file.stem).stem if suffix_of(file) in CIF and file.suffix == ".gz" else file.stem


def not_read(paths: set[Path]) -> str:
    """What lies in a folder and is not read, counted by kind; empty where there is nothing."""
    seen = sorted(path for path in paths if not path.name.startswith("."))
    folders = [path.name for path in seen if path.is_dir()]
    kinds = Counter(path.suffix or path.name for path in seen if not path.is_dir())
    parts = []
    if folders:
        names = ", ".join(folders[:3]) + (", …" if len(folders) > 3 else "")
        parts.append(f"{len(folders)} folder{'s' if len(folders) > 1 else ''} ({names})")
    if kinds:
        total = kinds.total()
        listed = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5))
        parts.append(f"{total} other file{'s' if total > 1 else ''} ({listed})")
    return " and ".join(parts)


def _is_structure(file: Path) -> bool:
    if file.name.startswith("."):
        return False
    return suffix_of(file) in SUFFIXES or file.name.upper().startswith(("POSCAR", "CONTCAR"))


def decode(item: StructureFile | Frame | Problem) -> Crystal:
    """Read one structure.

    Raises:
      InvalidCrystal: it cannot be read, or is no ordered, periodic crystal.
    """
    if isinstance(item, Problem):
        return item.crystal()
    if isinstance(item, StructureFile):
        if suffix_of(item.path) in CIF:
            return read_cif(item.path, item.id, block=item.block or None)
        return Crystal.from_ase(_read_ase(item.path, item.id, SECONDS)[-1], item.id)
    # Imported here: most folders hold CIF files, whose workers can do without.
    from ase import Atoms

    atoms = Atoms(item.numbers, positions=item.positions, cell=item.cell, pbc=item.pbc)
    return Crystal.from_ase(atoms, item.id, item.labels)


def _read_ase(path: Path, id: str, seconds: float) -> list[Any]:
    """Every structure of a file as ``ase.Atoms``; at least one."""
    import ase.db
    import ase.io

    try:
        require_atoms_that_are_there(path)
        with warnings.catch_warnings(), time_limit(seconds):
            warnings.simplefilter("ignore")  # ASE's remarks on formats say nothing about crystals
            if path.suffix.lower() in DATABASES:
                if path.suffix.lower() == ".db":
                    _require_ase_database(path)
                # ase.io would leave the key-value pairs behind.
                rows = ase.db.connect(str(path)).select()
                found = [row.toatoms(add_additional_information=True) for row in rows]
            else:
                found = list(ase.io.iread(str(path), ":"))
    except Exception as error:  # each of ASE's readers fails in its own way
        reason = f"cannot be read by ASE: {one_line(error)}"
        if "Could not determine chemical symbols" in str(error):
            reason = (
                "has no chemical symbols; write them in a line before the numbers of atoms, as "
                "VASP 5 does, or in the first line"
            )
        raise InvalidCrystal(id, f"{path.name} {reason}") from None
    if not found:
        raise InvalidCrystal(id, f"{path.name} holds no structure")
    return found


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


def _frames(path: Path, id: str, not_numbers: Counter[str]) -> list[Frame | Problem]:
    """The structures of a file; adds to ``not_numbers`` how often a label is none."""
    try:
        frames = _read_ase(path, id, seconds_for(path))
    except InvalidCrystal as error:
        return [Problem(error.crystal_id, error.reason)]
    labels = [_labels(atoms) for atoms in frames]
    not_numbers.update(
        name for of_one in labels for name, value in of_one.items() if not np.isfinite(value)
    )
    return [
        Frame(
            id if len(frames) == 1 else f"{id}-{number}",
            atoms.numbers,
            atoms.positions,
            np.array(atoms.cell),
            atoms.pbc,
            {name: value for name, value in of_one.items() if np.isfinite(value)},
        )
        for number, (atoms, of_one) in enumerate(zip(frames, labels))
    ]


def _labels(atoms: Any) -> dict[str, float]:
    found = {
        **(atoms.calc.results if atoms.calc is not None else {}),
        **atoms.info,
        **atoms.info.get("key_value_pairs", {}),
    }
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    }
