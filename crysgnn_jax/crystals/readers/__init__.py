"""Files and objects → sources of crystals."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.named import NAMED, load_named
from crysgnn_jax.crystals.readers.archives import is_tar, tar_file, zip_file
from crysgnn_jax.crystals.readers.cgcnn_folder import ID_PROP, CgcnnFolder
from crysgnn_jax.crystals.readers.curated import Curated
from crysgnn_jax.crystals.readers.items import crystal_list, one_line
from crysgnn_jax.crystals.readers.jarvis_dataset import jarvis_dataset
from crysgnn_jax.crystals.readers.jarvis_json import is_jarvis_json, jarvis_json
from crysgnn_jax.crystals.readers.materials_project import materials_project
from crysgnn_jax.crystals.readers.optimade import optimade
from crysgnn_jax.crystals.readers.records import records_in
from crysgnn_jax.crystals.readers.structure_files import structure_files
from crysgnn_jax.crystals.sources import Combined, Source
from crysgnn_jax.crystals.table import CrystalTable
from crysgnn_jax.curated import is_curated
from crysgnn_jax.errors import UserError
from crysgnn_jax.shards import is_remote

__all__ = ["crystal_list", "open_source", "read"]


READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Source]], ...] = (
    (is_curated, Curated),
    (lambda path: (path / ID_PROP).exists(), CgcnnFolder),
    (lambda path: path.suffix == ".npz" and path.is_file(), CrystalTable),
    (lambda path: path.suffix.lower() == ".zip" and path.is_file(), zip_file),
    (lambda path: is_tar(path) and path.is_file(), tar_file),
    (lambda path: path.is_file() and is_jarvis_json(path), jarvis_json),
    (lambda path: True, structure_files),
)
"""What a path must be, and what reads it then: the first that fits. A new format takes a file
beside this one, and a line here."""


SCHEMES: dict[str, Callable[[str], Source]] = {
    "jarvis:": jarvis_dataset,
    "mp:": materials_project,
    "optimade:": optimade,
}
"""What a text begins with that stands for data elsewhere, and what reads the rest of it."""


def open_source(data: str | os.PathLike) -> Source:
    """The crystals behind a name or path, as ``data`` takes it.

    A data set's name; an ``.npz`` crystal table; records of JARVIS, OPTIMADE or pymatgen in a
    ``.json`` or ``.jsonl`` file, also compressed; a folder with ``id_prop.csv`` and CIF files;
    another folder of structure files; a tar or zip archive of either; a structure file of any
    format that ASE reads; a curated set, also at an address that fsspec knows
    (``s3://bucket/set``); or ``jarvis:NAME``, ``mp:QUERY`` and ``optimade:ADDRESS``, which are
    downloaded once, into the cache.

    Raises:
      UserError: there is no such name or path, or it cannot be read as what it looks like.
    """
    if str(data) in NAMED:
        return load_named(str(data))
    if is_remote(data):
        return _remote(str(data))
    path = Path(data)
    scheme, _, rest = str(data).partition(":")
    remote = SCHEMES.get(f"{scheme}:") if not os.path.exists(data) else None
    if remote is None and not path.exists():
        raise UserError(
            f"`data` {data}: no such file or folder, and no data set of that name "
            f"({', '.join(NAMED)})"
        )
    if path.name == ID_PROP:
        raise UserError(f"`data` {data}: give the folder, {path.parent}, not its table")
    try:
        if remote is not None:
            return remote(rest)
        return next(reader(path) for is_one, reader in READERS if is_one(path))
    except OSError as error:
        raise UserError(f"`data` {data}: cannot be read ({error.strerror or error})") from None
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of any library, on any file
        kind = type(error).__name__
        raise UserError(f"`data` {data}: cannot be read ({kind}: {one_line(error)})") from error


def _remote(address: str) -> Source:
    """What is at an address, ``s3://…``."""
    if not is_curated(address):
        raise UserError(f"`data` {address}: there is no curated set at this address")
    return Curated(address)


def read(data: Any) -> Source:
    """The crystals behind whatever stands for crystals.

    Args:
      data: a name or path, as of `open_source`; a structure, `Crystal`, ``ase.Atoms``, pymatgen
        ``Structure`` or a plain dict of JARVIS, OPTIMADE or pymatgen, or several of these, as of
        `crystal_list`; several names, paths or sources, one after the other; or a source, which is
        returned.

    Raises:
      UserError: as of `open_source`; or there is nothing in ``data``.

    Example:
      ``read("my_cifs/")``, ``read(["elastic", "more.npz"])``, ``read([ase.build.bulk("Cu")])``
    """
    if isinstance(data, (str, os.PathLike)):
        return open_source(data)
    if isinstance(data, Mapping):
        records = records_in(data)
        return read(records if isinstance(records, list) else [data])
    if _is_structure(data):
        return crystal_list([data])
    if hasattr(data, "fingerprint") and hasattr(data, "decode"):
        return data
    if not isinstance(data, Iterable):
        raise UserError(
            f"`data`: {type(data).__name__} is neither a name or path, nor structures, nor a source"
        )
    parts = list(data)
    if not parts:
        raise UserError("`data`: there are no crystals")
    if all(map(_is_structure, parts)):
        return crystal_list(parts)
    sources = [read(part) for part in parts]
    return sources[0] if len(sources) == 1 else Combined(sources)


def _is_structure(thing: Any) -> bool:
    """A `Crystal`, a dict, or an object of ASE or pymatgen: told by what they have, not to import
    these."""
    return isinstance(thing, (Crystal, Mapping)) or any(
        hasattr(thing, name) for name in ("get_chemical_symbols", "frac_coords")
    )
