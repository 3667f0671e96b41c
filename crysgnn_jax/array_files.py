"""Arrays in a ``.npz`` that is there whole or not at all, and of which every byte is checked."""

import contextlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from crysgnn_jax.files import of_the_disk


class Damaged(Exception):
    """A file is not as it was written; the message is why, as far as that can be told."""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a ``.npz``, there whole or not at all. The same arrays make the same file.

    Raises:
      OSError: it cannot be written.
    """
    draft = path.with_name(path.name + ".tmp")
    try:
        with zipfile.ZipFile(draft, "w") as file:
            for name, array in arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, array, allow_pickle=False)
                # A time of its own, which is always the same: the first that a zip can tell.
                file.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getbuffer())
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def read_arrays(path: Path, beginning: str = "") -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` whose names have a beginning. Every byte of them is checked, by the
    checksums that a zip has of its members.

    Raises:
      Damaged: a checksum does not fit, or it is no such file.
      OSError: it is not there, or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return {
                name.removesuffix(".npy"): np.lib.format.read_array(
                    io.BytesIO(file.read(name)), allow_pickle=False
                )
                for name in file.namelist()
                if name.startswith(beginning)
            }
    except FileNotFoundError:
        raise
    except Exception as error:  # of many kinds, depending on which byte it is
        if isinstance(error, OSError) and of_the_disk(error):
            raise
        raise Damaged(str(error) or type(error).__name__) from error
