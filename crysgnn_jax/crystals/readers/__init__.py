"""Files and objects → sources of crystals."""

import os
from pathlib import Path

from crysgnn_jax.crystals.named import NAMED, load_named
from crysgnn_jax.crystals.readers.cgcnn_folder import ID_PROP, cgcnn_folder
from crysgnn_jax.crystals.readers.items import crystal_list
from crysgnn_jax.crystals.readers.jarvis_json import is_jarvis_json, jarvis_json
from crysgnn_jax.crystals.readers.structure_files import structure_files
from crysgnn_jax.crystals.sources import Source
from crysgnn_jax.crystals.table import CrystalTable
from crysgnn_jax.errors import UserError

__all__ = ["crystal_list", "open_source"]


def open_source(data: str | os.PathLike) -> Source:
    """The crystals behind a name or path, as ``--data`` takes it.

    A data set's name; an ``.npz`` crystal table; a JARVIS ``.json``, ``.json.gz`` or ``.zip``; a
    folder with ``id_prop.csv`` and CIF files; another folder of structure files; or a structure
    file of any format that ASE reads.

    Raises:
      UserError: there is no such name or path, or it cannot be read as what it looks like.
    """
    if str(data) in NAMED:
        return load_named(str(data))
    path = Path(data)
    if path.is_dir():
        return cgcnn_folder(path) if (path / ID_PROP).exists() else structure_files(path)
    if not path.exists():
        raise UserError(
            f"--data {data}: no such file or folder, and no data set of that name "
            f"({', '.join(NAMED)})"
        )
    if path.suffix == ".npz":
        return CrystalTable(path)
    if is_jarvis_json(path):
        return jarvis_json(path)
    return structure_files(path)
