"""Where a curated set is written: a directory, or an address of any file system of fsspec."""

import contextlib
import os
from collections.abc import Iterator

from crysgnn_jax import shards
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import of_the_disk, written


class Place:
    """A directory, local or not.

    Args:
      address: a path, or ``s3://bucket/folder`` and the like.

    Raises:
      UserError: there is no such file system, or its package is not installed.

    Attributes:
      address: as given, without a slash at the end.
      is_remote: whether it is no local path.
    """

    def __init__(self, address: str | os.PathLike):
        self.address = os.fspath(address).rstrip("/") or "/"
        self.is_remote = shards.is_remote(self.address)
        self._files, self._root = shards.file_system(self.address)

    def path(self, name: str) -> str:
        """Of a file within, for `shards.write_shard` and `shards.Shard`."""
        return f"{self.address}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
          OSError: it cannot be written; of some file systems, errors of their own.
        """
        shards.write_bytes(self.path(name), content)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where it is not there."""
        try:
            return self._files.cat_file(f"{self._root}/{name}")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def refresh(self) -> None:
        """Forget what has been listed: others write there, and some file systems remember it."""
        self._files.invalidate_cache()

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Names of what lies in a folder → bytes; nothing where there is no such folder."""
        self.refresh()
        try:
            found = self._files.ls(f"{self._root}/{folder}".rstrip("/"), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {
            name: int(entry["size"] or 0)
            for entry in found
            if (name := entry["name"].rstrip("/").rpartition("/")[2])
        }

    def remove(self, name: str) -> None:
        """A file, or a folder and what is in it; it need not be there."""
        self.refresh()
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(f"{self._root}/{name}", recursive=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Files are being written here, by this process or by others that tell it.

        Raises:
          UserError: they cannot be.
        """
        try:
            yield
        except OSError as error:
            if not (of_the_disk(error) or self.is_remote):
                raise
            raise UserError(
                written(error, self.address)
                if error.strerror
                else f"{self.address} cannot be written ({error}); name another place"
            ) from error
        except Exception as error:
            # Of the packages that know file systems; what is wrong in this one is shown as it is.
            if not self.is_remote or type(error).__module__.partition(".")[0] not in _OF_REMOTE:
                raise
            raise UserError(
                f"{self.address} cannot be written ({type(error).__name__}: {error}); look after "
                "the address and the keys to it"
            ) from error


_OF_REMOTE = ("botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs", "azure")
"""Packages whose errors tell that a place cannot be reached."""
