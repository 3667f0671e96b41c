"""A teacher's embeddings of the atoms of a store: computed once, and kept beside it."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from crysgnn_jax import processes
from crysgnn_jax.cache import locked
from crysgnn_jax.checksums import checksums, first_damaged
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_json
from crysgnn_jax.graphs.store import GraphStore

_log = logging.getLogger(__name__)


def kept_embeddings(
    store: GraphStore, fingerprint: str, compute: Callable[[Path], None]
) -> np.ndarray:
    """Embeddings of every atom of a store, ``[all atoms, d]`` float32, memory-mapped.

    Args:
      store: the crystals.
      fingerprint: of what the embeddings are of; they are kept under it.
      compute: writes them to a file, as `new_embeddings` opens it, where they are not there yet.

    Raises:
      UserError: they cannot be kept beside the store.
    """
    path = store.path / "embeddings" / f"{fingerprint}.npy"
    try:
        with processes.in_turn():
            if not _is_whole(path, quiet=True):
                path.parent.mkdir(exist_ok=True)
                # A run that finds another one computing the same waits for it.
                with locked(path.with_suffix(".lock")):
                    if not _is_whole(path):
                        _write(path, compute)
        return np.load(path, mmap_mode="r")
    except OSError as error:
        raise UserError(
            f"{path.parent}: the teacher's embeddings cannot be kept there "
            f"({error.strerror}); name another `cache`"
        ) from None


def new_embeddings(file: Path, store: GraphStore, width: int) -> np.memmap:
    """A file for the embeddings of every atom of a store, ``[all atoms, width]`` float32, opened
    to be written.

    Raises:
      OSError: there is no room.
    """
    shape = (int(store.node_offsets[-1]), width)
    out = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    _reserve(file)
    return out


def _write(path: Path, compute: Callable[[Path], None]) -> None:
    draft = path.with_suffix(".draft")
    path.with_suffix(".json").unlink(missing_ok=True)
    try:
        compute(draft)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    write_json(path.with_suffix(".json"), checksums(path.parent, [path.name]))


def _is_whole(path: Path, *, quiet: bool = False) -> bool:
    """Whether embeddings are there, and as they were written; if not, that is said unless
    ``quiet``."""
    try:
        known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        damage = first_damaged(path.parent, known) if path.name in known else "its sums are lost"
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError):
        damage = "its sums are lost"
    if damage is not None and not quiet:
        _log.warning("%s: %s; the embeddings are computed again", path.parent, damage)
    return damage is None


def _reserve(file: Path) -> None:
    """Have a file's bytes on the disk before they are mapped: where a disk becomes full while a
    mapped file is written, the process is ended without a word.

    Raises:
      OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
