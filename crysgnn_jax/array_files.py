"""Arrays of a ``.npz`` of which every byte is checked."""

import io
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from crysgnn_jax.files import of_the_disk


class Damaged(Exception):
    """A file is not as it was written; the message is why, as far as that can be told."""


def read_arrays(path: Path | IO[bytes]) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz``. Every byte of them is checked, by the checksums that a zip has of
    its members.

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
            }
    except FileNotFoundError:
        raise
    except Exception as error:  # of many kinds, depending on which byte it is
        if isinstance(error, OSError) and of_the_disk(error):
            raise
        raise Damaged(str(error) or type(error).__name__) from error
