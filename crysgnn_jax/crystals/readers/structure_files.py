"""Structure files of any format, alone or in a folder."""

import contextlib
import math
import os
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.ase_databases import LmdbDatabase, sqlite_database
from crysgnn_jax.crystals.readers.cif import block_names, read_cif
from crysgnn_jax.crystals.readers.extxyz import XYZ, xyz_file
from crysgnn_jax.crystals.readers.frames import Frame, frame_of, numbers_of
from crysgnn_jax.crystals.readers.indexed import (
    Catalogue,
    Catalogued,
    Parts,
    Texts,
    add_file,
    begin,
    digest_of,
    reading,
)
from crysgnn_jax.crystals.readers.items import ItemSource, Problem, decode_item, one_line
from crysgnn_jax.crystals.readers.kept import COMPRESSED
from crysgnn_jax.crystals.readers.limits import (
    SECONDS,
    require_atoms_that_are_there,
    seconds_for,
    time_limit,
)
from crysgnn_jax.crystals.readers.shelx import problem_of_res
from crysgnn_jax.crystals.sources import Source
from crysgnn_jax.errors import InvalidCrystal, UserError, printable

CIF = {".cif", ".mcif", ".cif.gz", ".mcif.gz"}
SINGLE = {".vasp", ".poscar", ".contcar", ".cell", ".xsf", ".gen", ".res"}
XYZ_FILES = XYZ | {xyz + packed for xyz in XYZ for packed in COMPRESSED}
DATABASES = {".db", ".aselmdb"}
LOADED = {".traj", ".json"}
"""Formats whose files can hold many structures, and are read at once."""

SEVERAL = XYZ_FILES | DATABASES | LOADED

SUFFIXES = CIF | SINGLE | XYZ_FILES | DATABASES | {".traj"}
"""What is taken from a folder; a ``.json`` there can be anything."""


_JSON = (
    "holds no crystals: a .json may hold JARVIS records (jid and atoms), an OPTIMADE response, "
    "structures of pymatgen, or a database of ASE's"
)
"""Why a file of another JSON cannot be read."""


class StructureFile(NamedTuple):
    """A file with one crystal, or one block of a CIF file with several."""

    id: str
    path: Path
    block: str = ""

    def crystal(self) -> Crystal:
        """
        Raises:
          InvalidCrystal: it cannot be read, or is no ordered, periodic crystal.
        """
        if suffix_of(self.path.name) in CIF:
            return read_cif(self.path, self.id, block=self.block or None)
        return single_structure(self.path, self.id)


class FileList(Catalogued):
    """Files of one folder with one structure each, or CIF files with several, as a
    `sources.Source`.

    Args:
      folder: of the files.
    """

    decode = staticmethod(decode_item)

    def __init__(self, folder: Path):
        self.name = str(folder)
        self.catalogue = Catalogue()
        self.digest = ""  # the digest of the folder has these files in it
        self._folder = str(folder)
        self._files, self._blocks, self._file_of = Texts(), Texts(), array("I")

    def add(self, name: str, id: str, blocks: Iterable[str]) -> None:
        """One more file.

        Args:
          name: of the file.
          id: of its structure; with the name of the block where there are several.
          blocks: as of `cif.block_names`.
        """
        for block in blocks:
            self.catalogue.add(f"{id}#{block}" if block else id)
            self._blocks.append(block)
            self._file_of.append(len(self._files))
        self._files.append(name)

    def items(self, start: int, stop: int) -> list[StructureFile]:
        """The items ``start … stop − 1``, whose files the workers read."""
        return [
            StructureFile(
                self.catalogue.id_of(number),
                Path(self._folder, self._files[self._file_of[number]]),
                self._blocks[number],
            )
            for number in range(start, min(stop, len(self)))
        ]


def structure_files(path: Path) -> Source:
    """A structure file, or the structure files of a folder.

    CIF is read by gemmi, everything else by ASE. A crystal's id is the file's name without
    suffix; with ``#`` and the name of the data block where a CIF file holds several structures,
    and with the number of the frame where another file does. In formats other than CIF that can
    hold several, numeric entries of ``atoms.info``, ASE database key-value pairs and calculator
    results are labels; those that are NaN or infinite are missing, and counted in a note.

    A file is read once here, for its digest and for what it holds, and once more by the workers.

    Raises:
      UserError: the folder has no structure files, or a file cannot be opened.
    """
    notes: list[str] = []
    if path.is_dir():
        folder = path
        names, left = structures_in(path)
        if not names:
            raise UserError(
                f"`data` {path}: the folder has no structure files "
                f"({', '.join(sorted(SUFFIXES))}, POSCAR) and no id_prop.csv"
                + (f", but {left}; name what is to be read" if left else "")
            )
        notes += [f"not read: {left}"] if left else []
    else:
        folder, names = path.parent, [path.name]
    stems = Counter(map(stem_of, names))
    digest = digest_of("structure files")
    parts: list[Any] = []
    not_numbers: Counter[str] = Counter()
    for name in names:
        stem, suffix = stem_of(name), suffix_of(name)
        id = stem if stems[stem] == 1 else name
        if suffix not in SEVERAL:
            if not (parts and isinstance(parts[-1], FileList)):
                parts.append(FileList(folder))
            with reading(os.path.join(folder, name)) as opened:
                content = opened.read()
            begin(digest, name, len(content))
            digest.update(content)
            parts[-1].add(name, id, block_names(content, name) if suffix in CIF else [""])
            continue
        file = folder / name
        if suffix in XYZ_FILES:
            parts.append(xyz_file(file, id, digest))
        elif suffix in DATABASES:
            add_file(digest, file)
            read = sqlite_database if suffix == ".db" else LmdbDatabase
            parts.append(read(file, id, digest.copy().hexdigest()))
        else:
            add_file(digest, file)
            parts.append(_loaded(file, id, not_numbers))
    for part in parts:
        if isinstance(part, Catalogued):
            not_numbers.update(part.catalogue.not_numbers)
    for label, n in not_numbers.items():
        of = "label is no number" if n == 1 else "labels are no numbers"
        notes.append(f"{n} {of} ({printable(label)} is NaN or infinite): taken as missing")
    notes = [*notes, *(note for part in parts for note in part.notes)]
    return Parts(str(path), parts, digest.hexdigest(), notes, places=(str(path),))


def single_structure(path: Path, id: str) -> Crystal:
    """The structure in a file that ASE reads; the last, where it holds several.

    Raises:
      InvalidCrystal: it cannot be read, or is no ordered, periodic crystal.
    """
    if path.suffix.lower() == ".res":
        with contextlib.suppress(OSError):  # ASE's reader tells of it
            if problem := problem_of_res(path.read_text(encoding="latin-1")):
                raise InvalidCrystal(id, f"{path.name} {problem}")
    return Crystal.from_ase(_read_ase(path, id, SECONDS)[-1], id)


def structures_in(folder: Path) -> tuple[list[str], str]:
    """The names of the structure files of a folder, sorted; and what else lies there, as of
    `not_read`."""
    names: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as content:
        for entry in content:
            if not entry.is_file():
                folders.append(entry.name)
            else:
                (names if is_structure(entry.name) else others).append(entry.name)
    return sorted(names), not_read(others, folders)


def is_structure(name: str) -> bool:
    """Whether a file of a folder or an archive is read, by its name."""
    if name.startswith("."):
        return False
    return suffix_of(name) in SUFFIXES or is_poscar(name)


def is_poscar(name: str) -> bool:
    """Whether VASP calls its structures so."""
    return name.upper().startswith(("POSCAR", "CONTCAR"))


def suffix_of(name: str) -> str:
    """Lower-case suffix of a file's name, ``.cif.gz`` as one."""
    stem, suffix = os.path.splitext(name.lower())
    return os.path.splitext(stem)[1] + suffix if suffix in COMPRESSED else suffix


def stem_of(name: str) -> str:
    """A file's name without suffix."""
    stem, suffix = os.path.splitext(name)
    return os.path.splitext(stem)[0] if suffix.lower() in COMPRESSED else stem


def not_read(files: Iterable[str], folders: Iterable[str]) -> str:
    """What lies somewhere and is not read, counted by kind; empty where there is nothing.

    Args:
      files: names of files.
      folders: names of folders.
    """
    folders = sorted(name for name in folders if not name.startswith("."))
    kinds = Counter(
        os.path.splitext(name)[1] or name for name in sorted(files) if not name.startswith(".")
    )
    parts = []
    if folders:
        names = ", ".join(folders[:3]) + (", …" if len(folders) > 3 else "")
        parts.append(f"{len(folders)} folder{'s' if len(folders) > 1 else ''} ({names})")
    if kinds:
        total = kinds.total()
        listed = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5))
        parts.append(f"{total} other file{'s' if total > 1 else ''} ({listed})")
    return " and ".join(parts)


def _read_ase(path: Path, id: str, seconds: float) -> list[Any]:
    """Every structure of a file as ``ase.Atoms``; at least one."""
    import ase.db
    import ase.io

    try:
        require_atoms_that_are_there(path)
        with warnings.catch_warnings(), time_limit(seconds):
            warnings.simplefilter("ignore")  # ASE's remarks on formats say nothing about crystals
            if path.suffix.lower() == ".json":
                # ase.io would leave the key-value pairs behind.
                rows = ase.db.connect(str(path)).select()
                found = [row.toatoms(add_additional_information=True) for row in rows]
            else:
                found = list(ase.io.iread(str(path), ":"))
    except Exception as error:  # each of ASE's readers fails in its own way
        reason = f"cannot be read by ASE: {one_line(error)}"
        if isinstance(error, (ase.io.formats.UnknownFileTypeError, AssertionError, KeyError)):
            reason = _JSON if path.suffix.lower() == ".json" else reason
        if "Could not determine chemical symbols" in str(error):
            reason = (
                "has no chemical symbols; write them in a line before the numbers of atoms, as "
                "VASP 5 does, or in the first line"
            )
        raise InvalidCrystal(id, f"{path.name} {reason}") from None
    if not found:
        raise InvalidCrystal(id, f"{path.name} holds no structure")
    return found


def _loaded(path: Path, id: str, not_numbers: Counter[str]) -> ItemSource:
    """All structures of a file, in memory; adds to ``not_numbers`` how often a label is none."""
    entries: list[Frame | Problem]
    try:
        frames = _read_ase(path, id, seconds_for(path))
        entries = [
            frame_of(atoms, id if len(frames) == 1 else f"{id}-{number}")
            for number, atoms in enumerate(frames)
        ]
        for atoms in frames:
            numbers = numbers_of(atoms).items()
            not_numbers.update(name for name, value in numbers if not math.isfinite(value))
    except InvalidCrystal as error:
        entries = [Problem(error.crystal_id, error.reason)]
    return ItemSource(
        name=str(path),
        decode=decode_item,
        entries=entries,
        entry_ids=[entry.id for entry in entries],
        entry_labels=[entry.labels if isinstance(entry, Frame) else {} for entry in entries],
        digest="",
    )
