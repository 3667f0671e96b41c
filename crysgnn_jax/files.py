"""Writing files that are there whole or not at all, and telling why one cannot be written."""

import contextlib
import csv
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from crysgnn_jax.errors import UserError

_OF_THE_DISK = {
    errno.ENOSPC: "make room there, and the same command goes on",
    errno.EDQUOT: "make room there, and the same command goes on",
    errno.EFBIG: "name another place",
    errno.EROFS: "name another place",
    errno.EACCES: "name another place",
    errno.EPERM: "name another place",
    errno.EIO: "look after the disk",
}
"""What a disk may have against a file, and what can be done."""


def of_the_disk(error: OSError) -> bool:
    """Whether the disk is full, cannot be written to, or is broken."""
    return error.errno in _OF_THE_DISK


def written(error: OSError, path: Path | str) -> str:
    """One line: what cannot be written, why, and what to do."""
    remedy = _OF_THE_DISK.get(error.errno or 0, "name another place")
    return f"{path} cannot be written ({error.strerror}); {remedy}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A file, or files of a folder, are being written.

    Raises:
      UserError: the disk is full, or cannot be written to.
    """
    try:
        yield
    except OSError as error:
        # Not what a reader at the other end of a pipe does, nor a file that is not there.
        if not of_the_disk(error):
            raise
        raise UserError(written(error, error.filename or path)) from error


def draft_of(path: Path) -> Path:
    """Where a file is written before it is whole."""
    return path.with_name(path.name + ".tmp")


@contextlib.contextmanager
def whole(path: Path, mode: str = "w") -> Iterator[IO]:
    """A file to write, text in UTF-8 or bytes, that is there whole or not at all.

    Raises:
      OSError: it cannot be written.

    Example:
      ``with whole(Path("table.csv")) as file: file.write("id,value\\n")``
    """
    text: dict[str, Any] = {} if "b" in mode else {"newline": "", "encoding": "utf-8"}
    draft = draft_of(path)
    try:
        with open(draft, mode, **text) as file:
            yield file
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
      OSError: it cannot be written.
    """
    with whole(path) as file:
        file.write(text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The same of JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The same of a table.

    Raises:
      UserError: the disk is full, or cannot be written to.
    """
    with writing(path), whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
