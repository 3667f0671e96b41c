"""Where graphs, embeddings and compiled steps are kept between runs, and locks on them."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def default_cache_dir() -> Path:
    """``$CRYSGNN_CACHE``, or the user's cache folder: ``~/.cache/crysgnn_jax`` on Linux."""
    if found := os.environ.get("CRYSGNN_CACHE"):
        return Path(found)
    import platformdirs

    return platformdirs.user_cache_path("crysgnn_jax")


def make_cache_dir(path: Path) -> None:
    """Make the folder of a cache, if need be, for its user alone: who could write there would
    decide what is read from it.

    Raises:
      OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


class Lock:
    """A lock on a file, which the system releases if its holder dies.

    Args:
      path: of the lock's own file, in a folder that is there.
    """

    def __init__(self, path: Path):
        self._path = path
        self._release: Callable[[], object] | None = None

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock.

        Args:
          wait: for another process that holds it; otherwise False is returned where one does.

        Raises:
          OSError: the file cannot be written, or is a link.
        """
        if fcntl is None:
            return self._acquire_by_filelock(wait)
        # Nothing is ever written: a link that somebody planted here must not cost what it leads to.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(self._path, flags, 0o600)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            why = "a link is in the place of its lock; remove it"
            raise OSError(error.errno, why, str(self._path)) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        self._release = lambda: os.close(file)
        return True

    def _acquire_by_filelock(self, wait: bool) -> bool:
        import filelock

        lock = filelock.FileLock(self._path)
        try:
            lock.acquire(blocking=wait)
        except filelock.Timeout:
            return False
        self._release = lock.release
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._release is not None:
            self._release()
            self._release = None


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock on a file.

    Args:
      path: as of `Lock`.
      on_wait: called once where another process holds the lock, before it is waited for.

    Raises:
      OSError: as of `Lock.acquire`.
    """
    lock = Lock(path)
    if not lock.acquire(wait=False):
        on_wait()
        lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
