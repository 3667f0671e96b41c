"""Crystal tables: many crystals with their labels in the columns of one ``.npz`` file.

With n crystals of N atoms in all, the arrays are

===============  ===========  ==============================================================
``ids``          [n]          identifiers, text
``n_atoms``      [n]          atoms of each crystal; the next two are concatenated in this order
``numbers``      [N]          atomic numbers
``frac_coords``  [N, 3]       fractional coordinates
``lattice``      [n, 3, 3]    lattice vectors as rows, Å
any other        [n]          floats: a label, NaN where missing; text, integers or booleans: a
                              tag, "" where missing
===============  ===========  ==============================================================

``space_group`` is read over, for the graph store finds the space groups itself. No array needs
pickle, so that opening a stranger's table runs no code of theirs.
"""

import hashlib
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.crystals.contents import MAX_EXPANSION, limit_of
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import InvalidCrystal, UserError

STRUCTURE_ARRAYS = ("ids", "n_atoms", "numbers", "frac_coords", "lattice")
IGNORED_ARRAYS = ("space_group",)

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,  # text, pickles, and arrays cut short
    TypeError,  # an .npy file: its array is no context manager
    MemoryError,  # a header that claims more than there is
    RuntimeError,  # zip files of another making: encrypted, or of an unknown method
    tokenize.TokenError,  # a header that is no Python literal
    zipfile.BadZipFile,
    zlib.error,
)
"""What `np.load` raises where a file is not an ``.npz`` file, or not a whole one."""


class Row(NamedTuple):
    """One undecoded crystal of a table; the names are shared by all rows."""

    id: str
    species: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray
    label_names: tuple[str, ...]
    labels: np.ndarray
    tag_names: tuple[str, ...]
    tags: tuple[str, ...]
    is_duplicate: bool


def decode_row(row: Row) -> Crystal:
    """The crystal in a row.

    Raises:
      InvalidCrystal: an earlier row has the same id, a label is infinite, or as in `Crystal`.
    """
    if row.is_duplicate:
        raise InvalidCrystal(row.id, f"duplicate id {row.id!r}; an earlier row of the table has it")
    labels = {n: v for n, v in zip(row.label_names, row.labels.tolist()) if v == v}
    for name, value in labels.items():
        if np.isinf(value):
            raise InvalidCrystal(row.id, f"its {name} is infinite; use NaN where it is missing")
    tags = {name: value for name, value in zip(row.tag_names, row.tags) if value}
    return Crystal(row.id, row.species, row.frac_coords, row.lattice, labels, tags)


class CrystalTable:
    """A crystal table on disk, as a `Source`; its arrays are held in memory.

    Args:
      path: the ``.npz`` file.
      name: name for messages; the path where none is given.

    Raises:
      UserError: the file is missing or damaged, or an array of it is missing or misshapen.
    """

    decode = staticmethod(decode_row)

    def __init__(self, path: str | os.PathLike, name: str | None = None):
        self.path = os.fspath(path)
        self.name = name or self.path
        self.places = (self.path,)
        arrays = _read_arrays(self.path)
        _check_structures(self.path, arrays)
        self._ids = arrays["ids"].astype(str)
        self._species = arrays["numbers"]
        self._frac_coords = arrays["frac_coords"]
        self._lattices = arrays["lattice"]
        self._offsets = np.concatenate([[0], np.cumsum(arrays["n_atoms"], dtype=np.int64)])
        labels, tags = _labels_and_tags(self.path, arrays)
        self.label_names = tuple(labels)
        self._labels = np.empty((len(self._ids), len(labels)))
        for column, values in enumerate(labels.values()):
            self._labels[:, column] = values
        self._tags = tags
        self.tag_names = tuple(tags)
        self._is_duplicate = np.ones(len(self._ids), dtype=bool)
        self._is_duplicate[np.unique(self._ids, return_index=True)[1]] = False

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> np.ndarray:
        """``[len(self)]`` text: the identifiers, in order."""
        return self._ids

    def fingerprint(self) -> str:
        """Hex digest of the bytes of the file."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, _blake2b).hexdigest()

    def labelled(self, label: str) -> np.ndarray:
        """``[len(self)]`` bool: which crystals carry the label."""
        if label not in self.label_names:
            return np.zeros(len(self), dtype=bool)
        return ~np.isnan(self._labels[:, self.label_names.index(label)])

    def items(self, start: int, stop: int) -> list[Row]:
        """The rows ``start … stop − 1``, their arrays views of the table's."""
        rows = slice(start, stop)
        offsets = self._offsets[start : stop + 1].tolist()
        tag_names = tuple(self._tags)
        tags = list(zip(*(column[rows].tolist() for column in self._tags.values())))
        return [
            Row(
                id,
                self._species[begin:end],
                self._frac_coords[begin:end],
                lattice,
                self.label_names,
                labels,
                tag_names,
                tags[k] if tags else (),
                is_duplicate,
            )
            for k, (id, begin, end, lattice, labels, is_duplicate) in enumerate(
                zip(
                    self._ids[rows].tolist(),
                    offsets,
                    offsets[1:],
                    self._lattices[rows],
                    self._labels[rows],
                    self._is_duplicate[rows].tolist(),
                )
            )
        ]


def write_table(path: str | os.PathLike, crystals: Iterable[Crystal]) -> None:
    """Write crystals, with their labels and tags, as a crystal table.

    Numbers are rounded to single precision, which moves a neighbour in a cell of tens of Å by
    less than 1e-5 Å. The same crystals always give the same bytes (with the same zlib).

    Raises:
      UserError: there are no crystals, or a label or tag has the name of another array.
    """
    crystals = list(crystals)
    if not crystals:
        raise UserError(f"{os.fspath(path)}: there are no crystals to write")
    label_names = list(dict.fromkeys(name for c in crystals for name in c.labels))
    tag_names = list(dict.fromkeys(name for c in crystals for name in c.tags))
    names = [*STRUCTURE_ARRAYS, *IGNORED_ARRAYS, *label_names, *tag_names]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{os.fspath(path)}: {name!r} names two arrays; rename one of them")
    n_atoms = np.array([len(c.species) for c in crystals])
    arrays: dict[str, Any] = {
        "ids": np.array([c.id for c in crystals]),
        "n_atoms": n_atoms.astype(np.min_scalar_type(n_atoms.max())),
        "numbers": np.concatenate([c.species for c in crystals]),
        "frac_coords": np.concatenate([c.frac_coords for c in crystals]).astype(np.float32),
        "lattice": np.stack([c.lattice for c in crystals]).astype(np.float32),
    }
    for name in label_names:
        arrays[name] = np.array([c.labels.get(name, np.nan) for c in crystals], np.float32)
    for name in tag_names:
        arrays[name] = np.array([c.tags.get(name, "") for c in crystals])
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def _blake2b():
    return hashlib.blake2b(digest_size=16)


def _read_arrays(path: str) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file."""
    name = None
    try:
        with np.load(path, allow_pickle=False) as archive:
            size = sum(member.file_size for member in archive.zip.infolist())
            if size > limit_of(os.path.getsize(path)):
                raise ValueError(f"its arrays are over {MAX_EXPANSION} times its size")
            arrays = {}
            for name in archive.files:
                arrays[name] = archive[name]
            return arrays
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except _DAMAGE as error:
        what = "it is not a readable .npz file" if name is None else f"array {name!r} is unreadable"
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: {what} ({reason}); make or download it again") from error


def _check_structures(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Check that the arrays which make up the structures are there and fit together."""
    missing = [name for name in STRUCTURE_ARRAYS if name not in arrays]
    if missing:
        raise UserError(
            f"{path}: array {missing[0]!r} is missing; a crystal table needs "
            f"{', '.join(STRUCTURE_ARRAYS)}"
        )
    kinds = {"ids": "Uiu", "n_atoms": "iu", "numbers": "iu", "frac_coords": "fiu", "lattice": "fiu"}
    for name, allowed in kinds.items():
        if arrays[name].dtype.kind not in allowed:
            raise UserError(f"{path}: array {name!r} has the wrong type {arrays[name].dtype}")
    n, n_atoms = arrays["ids"].size, arrays["n_atoms"]
    if n_atoms.size and n_atoms.min() < 0:
        raise UserError(f"{path}: array 'n_atoms' has a negative count ({n_atoms.min()})")
    if n_atoms.size and int(n_atoms.max()) > len(arrays["numbers"]):
        # Before they are added: whole numbers of 64 bits wrap around.
        raise UserError(
            f"{path}: array 'n_atoms' has a count of {n_atoms.max()}, and there are "
            f"{len(arrays['numbers'])} atoms in all"
        )
    total = int(n_atoms.sum(dtype=np.int64))
    shapes = {
        "ids": (n,),
        "n_atoms": (n,),
        "numbers": (total,),
        "frac_coords": (total, 3),
        "lattice": (n, 3, 3),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise UserError(
                f"{path}: array {name!r} has shape {list(arrays[name].shape)}, but {n} ids and "
                f"{total} atoms (the sum of n_atoms) need {list(shape)}"
            )


def _labels_and_tags(
    path: str, arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays that are not structures, as labels (float) and tags (text), both ``[n]``."""
    n = len(arrays["ids"])
    labels, tags = {}, {}
    for name, array in arrays.items():
        if name in STRUCTURE_ARRAYS or name in IGNORED_ARRAYS:
            continue
        if array.shape != (n,):
            raise UserError(
                f"{path}: array {name!r} has shape {list(array.shape)}; a label or tag has one "
                f"value for each of the {n} crystals"
            )
        if array.dtype.kind == "f":
            labels[name] = array
        elif array.dtype.kind in "Uiub":
            tags[name] = array.astype(str)
        else:
            raise UserError(
                f"{path}: array {name!r} has type {array.dtype}; labels are floats, tags are "
                "text, integers or booleans"
            )
    return labels, tags
