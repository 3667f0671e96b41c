"""Where a curated set is written: a directory, or an address of any file system of fsspec."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath

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
      is_in_memory: whether it is in the memory of this process, where no other can write.
    """

    def __init__(self, address: str | os.PathLike):
        self.address = os.fspath(address).rstrip("/") or "/"
        self.is_remote = shards.is_remote(self.address)
        self._files, self._root = shards.file_system(self.address)
        self.is_in_memory = shards.kind_of(self.address) == "memory"

    def relation(self, other: str) -> str:
        """What this place is to another path or address, by whatever names and links: it ``is``
        the same, ``holds`` it, or ``lies in`` it; empty where they are apart."""
        (kind, mine), (other_kind, theirs) = _location(self.address), _location(other)
        if kind != other_kind:
            return ""
        path_of = Path if kind == _LOCAL else PurePosixPath
        holds = _holds(path_of(mine), path_of(theirs))
        lies_in = _holds(path_of(theirs), path_of(mine))
        return "is" if holds and lies_in else "holds" if holds else "lies in" if lies_in else ""

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

    def remove_files(self, folder: str, pattern: re.Pattern[str], but: Sequence[str] = ()) -> None:
        """Remove what is named by a pattern from a folder, and the folder if nothing is left.

        Args:
          folder: it need not be there.
          pattern: matches the whole name of a file.
          but: files that stay.
        """
        there = set(self.sizes(folder))
        ours = {name for name in there.difference(but) if pattern.fullmatch(name)}
        if self.is_remote and there and ours == there:
            self.remove(folder)
            return
        for name in sorted(ours):
            self.remove(f"{folder}/{name}")
        if not self.is_remote:
            with contextlib.suppress(OSError):  # not empty, not there, or a link
                os.rmdir(self.path(folder))

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


def _location(address: str) -> tuple[str, str]:
    """The kind of a file system, and the path within it, the same for the same place."""
    if not shards.is_remote(address):
        return _LOCAL, os.path.realpath(address)
    # What lies behind a cache.
    files, root = shards.file_system(address.rpartition("::")[2])
    kind = files.protocol if isinstance(files.protocol, str) else files.protocol[0]
    return (_LOCAL, os.path.realpath(root)) if kind == _LOCAL else (kind, root.rstrip("/"))


def _holds(outer: PurePath, inner: PurePath) -> bool:
    """Whether a path is another, or is above it. Of local ones, also where the system has two names
    of one place."""

    def same(path: PurePath) -> bool:
        if path == outer or not isinstance(path, Path):
            return path == outer
        with contextlib.suppress(OSError):
            return path.samefile(outer)
        return False

    return any(map(same, (inner, *inner.parents)))


_LOCAL = "file"

_OF_REMOTE = ("botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs", "azure")
"""Packages whose errors tell that a place cannot be reached."""
