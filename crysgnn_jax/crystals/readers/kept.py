"""Files of the cache that a source is read from: downloads, and what was unpacked."""

import bz2
import contextlib
import gzip
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from crysgnn_jax.cache import default_cache_dir, locked, make_cache_dir
from crysgnn_jax.crystals.contents import MAX_EXPANSION, limit_of
from crysgnn_jax.crystals.readers.indexed import CHUNK
from crysgnn_jax.crystals.readers.items import one_line
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_json, writing

COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""How to open what is compressed."""

DAMAGE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
"""What the modules of compressed files raise where one is cut short or changed."""


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """A file in the cache, made where it is not there yet.

    It is there whole or not at all: it is made under another name, and by one process at a time.

    Args:
      name: of the file; says all that determines its content.
      make: writes it.

    Raises:
      UserError: the cache cannot be written.
    """
    root = default_cache_dir()
    folder = root / "sources"
    path = folder / name
    if path.is_file():
        return path
    with writing(root):
        make_cache_dir(root)
        make_cache_dir(folder)
        say = lambda: print(f"waiting for another process, which makes {path}", file=sys.stderr)
        with locked(folder / f"{name}.lock", on_wait=say):
            if not path.is_file():
                draft = folder / f"{name}.part"
                try:
                    make(draft)
                    os.replace(draft, path)
                finally:
                    draft.unlink(missing_ok=True)
    return path


class Paged:
    """Records that come page by page, a line each; an interrupted download goes on behind the last
    whole page.

    Args:
      draft: the file to be, once all are there.
      about: what determines the records: where it differs from that of an interrupted download,
        this one begins anew. It is the first line of the file.

    Attributes:
      n: records so far.
      next: what gets the next page, of `add`; None at the beginning.
    """

    def __init__(self, draft: Path, about: Mapping[str, Any]):
        self._draft, self._about = draft, {"type": "info", **about}
        self._lines = draft.with_name(f"{draft.name}.pages")
        self._state = draft.with_name(f"{draft.name}.pages.json")
        self.n, self.next = 0, None
        size = 0
        try:
            state = json.loads(self._state.read_text())
            if state["about"] == self._about and self._lines.stat().st_size >= state["size"]:
                self.n, self.next, size = state["n"], state["next"], state["size"]
        except (OSError, ValueError):
            pass  # there is none
        self._file = open(self._lines, "r+b" if size else "wb")
        self._file.truncate(size)
        self._file.seek(size)
        if not size:
            self._file.write(json.dumps(self._about).encode() + b"\n")

    def __enter__(self) -> "Paged":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if not self.n:
            self.drop()

    def drop(self) -> None:
        """Forget what has come: the next download begins anew."""
        self._lines.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def add(self, records: Sequence[Any], next: Any) -> None:
        """One more page.

        Args:
          records: as JSON has them.
          next: what gets the page behind it, as JSON has it.
        """
        for record in records:
            self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        self.n, self.next = self.n + len(records), next
        state = {"about": self._about, "n": self.n, "next": next, "size": self._file.tell()}
        write_json(self._state, state)

    def finish(self) -> None:
        """All pages are there: make them the file."""
        self._file.close()
        os.replace(self._lines, self._draft)
        self._state.unlink(missing_ok=True)


def copy(content: BinaryIO, draft: Path, packed: int) -> None:
    """Write what is unpacked to a file, piece by piece.

    Args:
      content: yields it.
      draft: the file to be.
      packed: bytes that it takes while it is packed.

    Raises:
      ValueError: it is more than `contents.MAX_EXPANSION` times as much.
    """
    limit, size = limit_of(packed), 0
    with open(draft, "wb") as file:
        while block := content.read(CHUNK):
            size += len(block)
            if size > limit:
                raise ValueError(
                    f"its content is over {MAX_EXPANSION} times its size; unpack it yourself"
                )
            file.write(block)


def unpacked_file(path: Path, name: str, opened: Callable[..., Any] | None = None) -> Path:
    """What is in a compressed file, as a file of the cache.

    Args:
      path: of the compressed file.
      name: as of `kept`.
      opened: opens it; as of its suffix in `COMPRESSED` where it is not given.

    Raises:
      UserError: it is damaged, or the cache cannot be written.
    """
    try:
        return kept(name, lambda draft: unpack(path, draft, opened))
    except DAMAGE as error:
        raise UserError(
            f"{path}: damaged or incomplete ({one_line(error)}); download it again"
        ) from None


def unpack(path: Path, draft: Path, opened: Callable[..., Any] | None = None) -> None:
    """Write what is in a compressed file to another; raises as `DAMAGE` says."""
    opened = opened or COMPRESSED[path.suffix.lower()]
    with opened(path, "rb") as content:
        copy(content, draft, path.stat().st_size)


@contextlib.contextmanager
def removed_if_damaged(path: Path) -> Iterator[None]:
    """Remove a file of the cache where the block finds that it cannot be read, so that the next
    run makes it anew."""
    try:
        yield
    except Exception:
        path.unlink(missing_ok=True)
        raise
