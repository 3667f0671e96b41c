"""Structure files of any format, alone or in a folder."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.cif import read_cif
from crysgnn_jax.crystals.readers.items import ItemSource, Problem, digest_of_files, one_line
from crysgnn_jax.errors import InvalidCrystal, UserError

CIF = {".cif"}
SINGLE = {".vasp", ".poscar", ".contcar", ".cell", ".xsf", ".gen", ".res"}
SEVERAL = {".xyz", ".extxyz", ".db", ".traj", ".json"}
"""Formats whose files can hold many structures: read at once, not one by one in workers."""

DATABASES = {".db", ".json"}

SUFFIXES = (CIF | SINGLE | SEVERAL) - {".json"}
"""What is taken from a folder; a ``.json`` there can be anything."""


class StructureFile(NamedTuple):
    """A file with one crystal."""

    id: str
    path: Path


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
    suffix, with the number of the frame where a file holds several. In formats that can hold
    several, numeric entries of ``atoms.info``, ASE database key-value pairs and calculator
    results are labels.

    Raises:
      UserError: the folder has no structure files, or a file cannot be opened.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _is_structure(file))
        if not files:
            raise UserError(
                f"`data` {path}: the folder has no structure files "
                f"({', '.join(sorted(SUFFIXES))}, POSCAR) and no id_prop.csv"
            )
    else:
        files = [path]
    digest = digest_of_files("structure files", files)
    stems = Counter(file.stem for file in files)
    entries: list[Any] = []
    for file in files:
        id = file.stem if stems[file.stem] == 1 else file.name
        if file.suffix.lower() in SEVERAL:
            entries += _frames(file, id)
        else:
            entries.append(StructureFile(id, file))
    return ItemSource(
        name=str(path),
        decode=decode,
        entries=entries,
        entry_ids=[entry.id for entry in entries],
        entry_labels=[getattr(entry, "labels", {}) for entry in entries],
        digest=digest,
    )


def _is_structure(file: Path) -> bool:
    if file.name.startswith("."):
        return False
    return file.suffix.lower() in SUFFIXES or file.name.upper().startswith(("POSCAR", "CONTCAR"))


def decode(item: StructureFile | Frame | Problem) -> Crystal:
    """Read one structure.

    Raises:
      InvalidCrystal: it cannot be read, or is no ordered, periodic crystal.
    """
    if isinstance(item, Problem):
        return item.crystal()
    if isinstance(item, StructureFile):
        if item.path.suffix.lower() in CIF:
            return read_cif(item.path, item.id)
        return Crystal.from_ase(_read_ase(item.path, item.id)[-1], item.id)
    # Imported here: most folders hold CIF files, whose workers can do without.
    from ase import Atoms

    atoms = Atoms(item.numbers, positions=item.positions, cell=item.cell, pbc=item.pbc)
    return Crystal.from_ase(atoms, item.id, item.labels)


def _read_ase(path: Path, id: str) -> list[Any]:
    """Every structure of a file as ``ase.Atoms``; at least one."""
    import ase.db
    import ase.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ASE's remarks on formats say nothing about crystals
            if path.suffix.lower() in DATABASES:
                # ase.io would leave the key-value pairs behind.
                rows = ase.db.connect(str(path)).select()
                found = [row.toatoms(add_additional_information=True) for row in rows]
            else:
                found = list(ase.io.iread(str(path), ":"))
    except Exception as error:  # each of ASE's readers fails in its own way
        raise InvalidCrystal(id, f"{path.name} cannot be read by ASE: {one_line(error)}") from None
    if not found:
        raise InvalidCrystal(id, f"{path.name} holds no structure")
    return found


def _frames(path: Path, id: str) -> list[Frame | Problem]:
    try:
        frames = _read_ase(path, id)
    except InvalidCrystal as error:
        return [Problem(error.crystal_id, error.reason)]
    return [
        Frame(
            id if len(frames) == 1 else f"{id}-{number}",
            atoms.numbers,
            atoms.positions,
            np.array(atoms.cell),
            atoms.pbc,
            _labels(atoms),
        )
        for number, atoms in enumerate(frames)
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
        if isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, bool)
        and np.isfinite(value)
    }
