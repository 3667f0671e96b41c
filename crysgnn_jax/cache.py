"""Where graphs, embeddings and compiled steps are kept between runs, and locks on them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def default_cache_dir() -> Path:
    """``$CRYSGNN_CACHE``, or the user's cache folder: ``~/.cache/crysgnn_jax`` on Linux."""
    if found := os.environ.get("CRYSGNN_CACHE"):
        return Path(found)
    import platformdirs

    return platformdirs.user_cache_path("crysgnn_jax")


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock on a file, which the system releases if its holder dies.

    Args:
      path: of the lock's own file, in a folder that is there.
      on_wait: called once where another process holds the lock, before it is waited for.

    Raises:
      OSError: the file cannot be written.
    """
    import filelock

    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
