"""Structure files: CIF through gemmi, the other formats through ASE.

CIF is read here rather than by ASE, which takes a hundred times as long and lets disorder pass.
Meaning of the items: International Tables for Crystallography, vol. G (the CIF core dictionary).
"""

import functools
import hashlib
import math
import numbers
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np

from crysgnn_jax.data.crystal import Crystal
from crysgnn_jax.data.elements import SYMBOLS
from crysgnn_jax.errors import InvalidCrystal, UserError

CIF = "cif"
SUFFIXES = {
    ".cif": CIF,
    ".vasp": "vasp",
    ".poscar": "vasp",
    ".contcar": "vasp",
    ".xsf": "xsf",
    ".res": "res",
    ".gen": "gen",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".traj": "traj",
    ".db": "db",
    ".json": "json",
}
"""Suffix → format, by its name in ASE. Of ``.json`` files only ASE databases are meant."""

_PREFIXES = ("POSCAR", "CONTCAR")
_DATABASES = ("db", "json")
_MULTI_FRAME = ("extxyz", "traj", *_DATABASES)

SAME_SITE = 0.4
"""Å. Symmetry images closer than this are one atom: no two atoms of a crystal are so close,
while rounded coordinates put the images of an atom on a special position up to 0.1 Å apart."""

MAX_TAG_LENGTH = 100
"""Longer texts of a frame are descriptions rather than tags."""

ATOMIC_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number} | {
    "D": 1,
    "T": 1,
}
"""Symbol → atomic number, the isotopes of hydrogen included."""

_CELL_TAGS = tuple(
    f"_cell_{name}"
    for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
)
_OPERATION_TAGS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_GROUP_NAME_TAGS = ("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M")
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_GROUP_NUMBER_TAGS = ("_space_group_IT_number", "_symmetry_Int_Tables_number")
_UNKNOWN = ("", "?", ".")


class StructureFile(NamedTuple):
    """An unread file that holds one crystal."""

    id: str
    path: str
    format: str


def decode_structure(item: StructureFile | Crystal | InvalidCrystal) -> Crystal:
    """The crystal in a file, or one that was made in advance.

    Raises:
      InvalidCrystal: the file holds no usable crystal, or ``item`` itself says so.
    """
    if isinstance(item, InvalidCrystal):
        raise item
    if isinstance(item, Crystal):
        return item
    return read_cif(item.path, item.id) if item.format == CIF else _read_with_ase(item)


class StructureFiles:
    """A structure file, or the structure files of a folder, as a `Source`.

    The id of a crystal is the name of its file without the suffix, or with it where two files
    differ in the suffix alone. Frame k of a file of several (extended XYZ, trajectory, ASE
    database) has ``-k`` after that, counted from 0, and the numbers stored with the frame as
    labels, its short texts as tags.

    A folder's subfolders, hidden files and files with other suffixes than `SUFFIXES` are passed
    over.

    Raises:
      UserError: the path is missing or cannot be read, the folder holds no structure files, or
        the file is of no known format.
    """

    decode = staticmethod(decode_structure)

    def __init__(self, path: str | os.PathLike):
        self.name = os.fspath(path)
        formats = _structure_formats(Path(path))
        self._paths = list(formats)
        stems = Counter(_stem(path) for path in formats)
        self._items: list[StructureFile | Crystal | InvalidCrystal] = []
        for file, format in formats.items():
            id = _stem(file) if stems[_stem(file)] == 1 else file.name
            if format in _MULTI_FRAME:
                self._items += _read_frames(file, format, id)
            else:
                self._items.append(StructureFile(id, str(file), format))
        self.label_names = names_of_labels(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def ids(self) -> np.ndarray:
        """``[len(self)]`` text: the ids, which the names of the files tell."""
        return ids_of(self._items)

    def fingerprint(self) -> str:
        """Hex digest of the names and the bytes of the files."""
        return fingerprint_files("structure files 1", self._paths)

    def labelled(self, label: str) -> np.ndarray:
        """``[len(self)]`` bool: which crystals carry the label."""
        return have_label(self._items, label)

    def items(self, start: int, stop: int) -> list[StructureFile | Crystal | InvalidCrystal]:
        return self._items[start:stop]


def names_of_labels(items: Iterable[Any]) -> tuple[str, ...]:
    """The labels that the crystals among the items carry, in the order of appearance."""
    crystals = (item for item in items if isinstance(item, Crystal))
    return tuple(dict.fromkeys(label for crystal in crystals for label in crystal.labels))


def have_label(items: Iterable[Any], label: str) -> np.ndarray:
    """``[len(items)]`` bool: which items are crystals with the label."""
    return np.array([isinstance(x, Crystal) and label in x.labels for x in items], dtype=bool)


def ids_of(items: Iterable[StructureFile | Crystal | InvalidCrystal]) -> np.ndarray:
    """``[len(items)]`` text."""
    ids = [x.crystal_id if isinstance(x, InvalidCrystal) else x.id for x in items]
    return np.array(ids, dtype=str)


def scalars(entries: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Labels and tags among the entries stored with a crystal: numbers, and short texts.

    NaN stands for a missing label. Truth values, arrays and long texts are neither.
    """
    labels, tags = {}, {}
    for name, value in entries.items():
        if isinstance(value, (bool, np.bool_)):
            continue
        if isinstance(value, numbers.Real):
            if not math.isnan(value):
                labels[str(name)] = float(value)
        elif isinstance(value, str) and 0 < len(value) <= MAX_TAG_LENGTH:
            tags[str(name)] = value
    return labels, tags


def fingerprint_files(kind: str, paths: Sequence[Path]) -> str:
    """Hex digest of the names and bytes of files; ``kind`` tells how they are read.

    A file that is missing counts as such.

    Raises:
      UserError: a file cannot be read.
    """
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for path in sorted(paths):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            digest.update(f"\0{path.name}\0missing\0".encode())
            continue
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        digest.update(f"\0{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def is_ase_database(path: Path) -> bool:
    """Whether a ``.json`` file is an ASE database: an object that ends with the next row's id."""
    try:
        with open(path, "rb") as file:
            start = file.read(64)
            file.seek(max(0, path.stat().st_size - 256))
            return start.lstrip().startswith(b"{") and b'"nextid"' in file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def one_line(error: Exception) -> str:
    """What an exception says, cut to the first line that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line[:200] for line in lines if line), type(error).__name__)


def _stem(path: Path) -> str:
    """Name without suffix; what follows a dot in ``POSCAR_mp-1.5`` is none."""
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _known_format(path: Path) -> str | None:
    """The format that the name of a file tells."""
    format = SUFFIXES.get(path.suffix.lower())
    if format is None and path.name.upper().startswith(_PREFIXES):
        return "vasp"
    return format


def _structure_formats(path: Path) -> dict[Path, str]:
    """The structure files at a path, sorted by name, with their formats."""
    try:
        if not path.is_dir():
            return {path: _known_format(path) or _guessed_format(path)}
        formats = {
            file: _known_format(file)
            for file in sorted(path.iterdir())
            if not file.name.startswith(".") and file.is_file()
        }
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    found = {
        file: format
        for file, format in formats.items()
        if format and (file.suffix.lower() != ".json" or is_ase_database(file))
    }
    if not found:
        what = "none of its files is a structure file" if formats else "the folder is empty"
        raise UserError(f"{path}: {what}; looked for {_looked_for()}")
    return found


def _guessed_format(path: Path) -> str:
    """The format that ASE finds in the first bytes of a file."""
    # Imported late, here and below: it takes ten times as long to start as the rest, in every
    # worker process, and folders of CIF files do without.
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        return filetype(str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder") from None
    except (UnknownFileTypeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a known structure format; looked for {_looked_for()}"
        ) from error


def _looked_for() -> str:
    return f"{', '.join(f'*{suffix}' for suffix in SUFFIXES)}, POSCAR* and CONTCAR*"


def _read_with_ase(item: StructureFile) -> Crystal:
    from ase.io import read

    try:
        atoms = read(item.path, format=item.format)
    # The parsers raise whatever the text leads them into: ValueError, IndexError, KeyError, …
    except Exception as error:
        raise InvalidCrystal(
            item.id, f"{os.path.basename(item.path)} cannot be read ({one_line(error)})"
        ) from error
    return Crystal.from_ase(atoms, item.id)


def _read_frames(path: Path, format: str, id: str) -> list[Crystal | InvalidCrystal]:
    """The frames of a file; one that stops in the middle ends with what is wrong with it."""
    items: list[Crystal | InvalidCrystal] = []
    try:
        for atoms, entries in _iterate_frames(path, format):
            items.append(crystal_or_fault(atoms, f"{id}-{len(items)}", entries))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from error
    except Exception as error:  # as in _read_with_ase
        reason = f"{path.name}, frame {len(items)}: cannot be read ({one_line(error)})"
        return [*items, InvalidCrystal(f"{id}-{len(items)}" if items else id, reason)]
    if not items:
        return [InvalidCrystal(id, f"{path.name} holds no structures")]
    if len(items) == 1:
        return [crystal_or_fault(atoms, id, entries)]
    return items


def _iterate_frames(path: Path, format: str) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Every frame as ``ase.Atoms``, with what is stored along with it."""
    if format in _DATABASES:
        import ase.db

        # The type by name: other files of these formats may have any suffix.
        for row in ase.db.connect(str(path), type=format, serial=True).select():
            yield row.toatoms(), row.key_value_pairs
        return
    from ase.io import iread

    for atoms in iread(str(path), index=":", format=format):
        yield atoms, atoms.info


def crystal_or_fault(
    atoms: Any, id: str, entries: Mapping[str, Any]
) -> Crystal | InvalidCrystal:
    """The crystal of an ``ase.Atoms`` with its labels and tags, or what is wrong with it.

    Scalar results of a calculator, such as the energy (eV), are labels as well.
    """
    results = getattr(atoms.calc, "results", None) or {}
    labels, tags = scalars({**results, **entries})
    try:
        return Crystal.from_ase(atoms, id, labels, tags)
    except InvalidCrystal as error:
        return error


def read_cif(path: str | os.PathLike, id: str) -> Crystal:
    """The crystal in a CIF file, all atoms of the cell.

    A file in P 1 keeps its order of atoms. Atoms near a special position are moved onto it.

    Raises:
      InvalidCrystal: the file is missing, no CIF, cut short, holds none or several structures,
        or its structure is disordered or not fully known; or as in `Crystal`.
    """
    try:
        return _read_cif(Path(path), id)
    except _Fault as fault:
        raise InvalidCrystal(id, str(fault)) from fault.__cause__


class _Fault(Exception):
    """What is wrong with a CIF file; raised where the id is not at hand."""


def _read_cif(path: Path, id: str) -> Crystal:
    block = _structure_block(path)
    lattice = _lattice(block)
    labels, species, sites = _sites(block)
    rotations, translations = _operations(block)
    species, frac_coords = _fill_cell(
        labels, species, sites, lattice, rotations, translations
    )
    _check_formula(block, species)
    return Crystal(id, species, frac_coords, lattice)


def _structure_block(path: Path) -> gemmi.cif.Block:
    """The one data block with a structure; others may hold the bibliography."""
    try:
        # Only words in comments and titles are ever not ASCII.
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise _Fault(f"{path.name} cannot be read ({error.strerror})") from error
    if not text.strip():
        raise _Fault(f"{path.name} is empty")
    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        place = re.match(r"string:(\d+)[^ ]* (.*)", one_line(error))
        reason = f"line {place[1]}: {place[2]}" if place else one_line(error)
        raise _Fault(f"{path.name} is not a valid CIF file ({reason})") from error
    blocks = [block for block in document if block.find_loop("_atom_site_fract_x")]
    if not blocks:
        raise _Fault(
            f"{path.name} has no atoms (no loop with _atom_site_fract_x); it may be cut short"
        )
    if len(blocks) > 1:
        raise _Fault(f"{path.name} holds {len(blocks)} structures; give each a file of its own")
    return blocks[0]


def _lattice(block: gemmi.cif.Block) -> np.ndarray:
    """``[3, 3]`` lattice vectors as rows, Å: a along x, b in the xy plane."""
    parameters = []
    for tag in _CELL_TAGS:
        text = block.find_value(tag)
        if text is None:
            raise _Fault(f"{tag} is missing")
        value = gemmi.cif.as_number(text)
        if not 0 < value < (180 if "angle" in tag else math.inf):
            raise _Fault(f"{tag} is {text}")
        parameters.append(value)
    lattice = np.array(gemmi.UnitCell(*parameters).orth.mat.tolist()).T
    # The triple product is negative under the root where the angles do not close.
    if not np.isfinite(lattice).all():
        alpha, beta, gamma = parameters[3:]
        raise _Fault(f"no cell has the angles {alpha:g}, {beta:g} and {gamma:g}")
    return lattice


def _sites(block: gemmi.cif.Block) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The sites that are listed: labels, atomic numbers ``[n]``, coordinates ``[n, 3]``."""
    names = ["fract_x", "fract_y", "fract_z", "?label", "?type_symbol", "?occupancy"]
    table = block.find("_atom_site_", names)
    n = len(table)
    if n == 0:
        raise _Fault("the _atom_site_ loop has no rows, or not all of fract_x, fract_y, fract_z")
    columns = [list(table.column(k)) if table.has_column(k) else ["?"] * n for k in range(6)]
    labels = [gemmi.cif.as_string(text) for text in columns[3]]
    symbols = [gemmi.cif.as_string(text) for text in columns[4]]
    labels = [label or symbol or f"number {k + 1}" for k, (label, symbol) in
              enumerate(zip(labels, symbols))]
    for label, text in zip(labels, columns[5]):
        if text in _UNKNOWN:
            continue
        # Written so that NaN, which stands for no number, fails.
        if not abs(gemmi.cif.as_number(text) - 1.0) <= 1e-3:
            raise _Fault(f"site {label} has occupancy {text}; give an ordered structure")
    coords = np.array([[gemmi.cif.as_number(x) for x in column] for column in columns[:3]]).T
    bad = np.argwhere(~np.isfinite(coords))
    if len(bad):
        row, axis = bad[0]
        raise _Fault(f"site {labels[row]}: _atom_site_{names[axis]} is {columns[axis][row]}")
    species = [
        _number_of_symbol(symbol, label) if symbol else _number_of_label(label)
        for symbol, label in zip(symbols, labels)
    ]
    return labels, np.array(species), coords


@functools.cache
def _number_of_symbol(symbol: str, label: str) -> int:
    """Atomic number for a type symbol such as ``Fe``, ``Fe3+`` or ``D``."""
    match = re.fullmatch(r"([A-Za-z]{1,2})(\d*\.?\d*[+-]?|[+-]\d*\.?\d*)", symbol)
    number = ATOMIC_NUMBERS.get(match[1].capitalize()) if match else None
    if number is None:
        raise _Fault(f"site {label}: {symbol} is not an element")
    return number


@functools.cache
def _number_of_label(label: str) -> int:
    """Atomic number for a site label such as ``Fe1``, where the file has no type symbols.

    In capitals, ``CO1`` may be cobalt, or a carbon that somebody called O1: that is refused.
    """
    match = re.match(r"([A-Z][a-z]?)(?![a-z])", label)
    number = ATOMIC_NUMBERS.get(match[1]) if match else None
    if number is None or (label[:2].isupper() and label[:2].capitalize() in ATOMIC_NUMBERS):
        raise _Fault(
            f"site {label}: the label does not tell the element; add _atom_site_type_symbol"
        )
    return number


def _operations(block: gemmi.cif.Block) -> tuple[np.ndarray, np.ndarray]:
    """Rotations ``[n, 3, 3]`` and translations ``[n, 3]`` of the space group."""
    for tag in _OPERATION_TAGS:
        if triplets := list(block.find_values(tag)):
            return _parsed_operations(tuple(map(gemmi.cif.as_string, triplets)))
    if hall := _text(block, _HALL_TAGS):
        try:
            return _arrays_of(gemmi.symops_from_hall(hall))
        except RuntimeError as error:
            raise _Fault(f"Hall symbol {hall!r} is not valid ({one_line(error)})") from error
    angles = [gemmi.cif.as_number(block.find_value(_CELL_TAGS[k])) for k in (3, 5)]
    return _operations_of_group(
        _text(block, _GROUP_NAME_TAGS), _text(block, _GROUP_NUMBER_TAGS), *angles
    )


def _text(block: gemmi.cif.Block, tags: Iterable[str]) -> str:
    """The first of the tags that has a value; "" where none has."""
    texts = (gemmi.cif.as_string(block.find_value(tag) or "?").strip() for tag in tags)
    return next(filter(None, texts), "")


@functools.lru_cache(maxsize=512)
def _parsed_operations(triplets: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Operations from triplets such as ``-x, y+1/2, z``, checked to be a group.

    An incomplete list would leave atoms out.
    """
    operations = []
    for triplet in triplets:
        try:
            operations.append(gemmi.Op(triplet))
        except RuntimeError as error:
            raise _Fault(f"symmetry operation {triplet!r} is not valid") from error
    rotations = np.array([op.rot for op in operations]) // gemmi.Op.DEN
    translations = np.array([op.tran for op in operations]) % gemmi.Op.DEN
    keys, first = np.unique(_operation_keys(rotations, translations), return_index=True)
    rotations, translations = rotations[np.sort(first)], translations[np.sort(first)]
    products = np.einsum("aij,bjk->abik", rotations, rotations)
    shifts = np.einsum("aij,bj->abi", rotations, translations) + translations[:, None]
    if not np.isin(_operation_keys(products, shifts % gemmi.Op.DEN), keys).all():
        raise _Fault(f"the {len(keys)} symmetry operations are not a group; some may be missing")
    return rotations, translations / gemmi.Op.DEN


def _operation_keys(rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """``[...]`` int64, different for different operations; translations in 24ths."""
    entries = rotations.reshape(*rotations.shape[:-2], 9) + 4  # entries are -3 … 3 at most
    digits = 9 ** np.arange(9, dtype=np.int64)
    shifts = gemmi.Op.DEN ** np.arange(3, dtype=np.int64)
    return (entries @ digits) * gemmi.Op.DEN**3 + translations @ shifts


@functools.lru_cache(maxsize=512)
def _operations_of_group(
    name: str, number: str, alpha: float, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Operations for a Hermann–Mauguin name, or else a number of the International Tables.

    The angles tell the two settings of rhombohedral groups apart. A file that gives neither
    name nor number lists the whole cell.
    """
    if name:
        # Some programs mark screw axes as subscripts: P2_1/c.
        group = gemmi.find_spacegroup_by_name(name.replace("_", ""), alpha, gamma)
    elif number:
        group = gemmi.find_spacegroup_by_number(int(number)) if number.isdecimal() else None
    else:
        group = gemmi.find_spacegroup_by_name("P 1")
    if group is None:
        raise _Fault(f"space group {name or number!r} is not known; list its operations")
    if group.ext == "1" and ":1" not in name:
        raise _Fault(
            f"space group {group.hm} has two origins and the file does not tell which; add "
            f"{_OPERATION_TAGS[0]}"
        )
    return _arrays_of(group.operations())


def _arrays_of(operations: gemmi.GroupOps) -> tuple[np.ndarray, np.ndarray]:
    """Rotations ``[n, 3, 3]`` and translations ``[n, 3]``."""
    operations = list(operations)
    rotations = np.array([op.rot for op in operations]) // gemmi.Op.DEN
    return rotations, np.array([op.tran for op in operations]) / gemmi.Op.DEN


def _fill_cell(
    labels: Sequence[str],
    species: np.ndarray,
    sites: np.ndarray,
    lattice: np.ndarray,
    rotations: np.ndarray,
    translations: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """All atoms of the cell, those of one site together: ``[n_atoms]`` and ``[n_atoms, 3]``.

    Some programs list all atoms although they give symmetry as well; those that another site
    has filled already are left out.
    """
    if len(rotations) == 1:
        coords, site_of = sites, np.arange(len(sites))
    else:
        orbits = [_orbit(site, lattice, rotations, translations) for site in sites]
        coords = np.concatenate(orbits)
        site_of = np.repeat(np.arange(len(sites)), [len(orbit) for orbit in orbits])
    keep = np.ones(len(coords), dtype=bool)
    for atom, other in _coincident(coords, site_of, lattice):
        first, second = site_of[[atom, other]]
        if len(rotations) == 1 or species[first] != species[second]:
            raise _Fault(
                f"sites {labels[first]} and {labels[second]} are in the same place; give an "
                "ordered structure"
            )
        keep[other] = False
    return species[site_of][keep], coords[keep]


def _orbit(
    site: np.ndarray, lattice: np.ndarray, rotations: np.ndarray, translations: np.ndarray
) -> np.ndarray:
    """``[n, 3]`` the images of a site in the cell, each once."""
    shifts = rotations @ site + translations - site
    shifts -= np.round(shifts)
    same = np.linalg.norm(shifts @ lattice, axis=1) < SAME_SITE
    # The mean of the images lies on the special position exactly.
    site = site + shifts[same].mean(axis=0)
    images = (rotations @ site + translations) % 1.0
    if same.sum() == 1:
        return images
    orbit = []
    while len(images):
        orbit.append(images[0])
        shifts = images - images[0]
        shifts -= np.round(shifts)
        images = images[np.linalg.norm(shifts @ lattice, axis=1) >= SAME_SITE]
    return np.array(orbit)


def _coincident(
    coords: np.ndarray, site_of: np.ndarray, lattice: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Pairs of atoms in one place that come from different sites, the earlier one first."""
    block = 256  # bounds the memory for large cells
    for start in range(0, len(coords), block):
        shifts = coords[None, start:] - coords[start : start + block, None]
        shifts -= np.round(shifts)
        vectors = shifts @ lattice
        close = np.einsum("abi,abi->ab", vectors, vectors) < SAME_SITE**2
        for atom, other in np.argwhere(close) + start:
            if atom < other and site_of[atom] != site_of[other]:
                yield atom, other


def _check_formula(block: gemmi.cif.Block, species: np.ndarray) -> None:
    """Refuse a file whose atoms do not make up its formula: rows of it may be missing."""
    formula = _text(block, ("_chemical_formula_sum",))
    terms = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    if not formula or "".join(map("".join, terms)) != "".join(formula.split()):
        return  # of fractions, charges or parts
    stated: Counter[int] = Counter()
    for symbol, count in terms:
        stated[ATOMIC_NUMBERS.get(symbol, 0)] += int(count or 1)
    found = Counter(species.tolist())
    if any(
        found[z] * stated.total() != stated[z] * found.total() for z in found.keys() | stated.keys()
    ):
        atoms = " ".join(f"{SYMBOLS[z]}{n}" for z, n in sorted(found.items()))
        raise _Fault(
            f"the sites fill the cell with {atoms}, but _chemical_formula_sum is {formula!r}; "
            "atoms are missing or the file is cut short"
        )
