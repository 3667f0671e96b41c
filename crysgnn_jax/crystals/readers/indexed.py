"""Sources of which only the places of the items are in memory, and not the items."""

import dataclasses
import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.items import Problem
from crysgnn_jax.crystals.sources import Source, digest_of_texts
from crysgnn_jax.errors import UserError, printable

CHUNK = 2**20
"""Bytes that are read of a file at once."""


class Catalogue:
    """What is known of many items unread: ids, which properties each has, which are unusable.

    A few bytes an item: ids lie in one array of bytes, and of a property only the spans of items
    are kept that have it.
    """

    def __init__(self) -> None:
        self.problems: dict[int, Problem] = {}
        self._text = bytearray()
        self._ends = array("Q", [0])
        self._spans: dict[str, array] = {}

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, id: str, labels: Iterable[str] = ()) -> None:
        """One more item, and the properties that it has."""
        number = len(self)
        self._text += printable(id).encode()
        self._ends.append(len(self._text))
        for name in labels:
            spans = self._spans.setdefault(name, array("Q", [number, number]))
            if spans[-1] == number:
                spans[-1] += 1
            else:
                spans.extend((number, number + 1))

    def add_problem(self, problem: Problem) -> None:
        """One more item, which is known to be unusable."""
        self.problems[len(self)] = problem
        self.add(problem.id)

    def id_of(self, number: int) -> str:
        """The id of an item."""
        return self._text[self._ends[number] : self._ends[number + 1]].decode()

    def ids(self) -> np.ndarray:
        """``[len(self)]`` text."""
        return np.array([self.id_of(k) for k in range(len(self))], dtype=str)

    @property
    def label_names(self) -> list[str]:
        """In the order in which they first occur."""
        return list(self._spans)

    def labelled(self, label: str) -> np.ndarray:
        """``[len(self)]`` bool: which items have a property."""
        found = np.zeros(len(self), dtype=bool)
        spans = self._spans.get(label, ())
        for start, stop in zip(spans[::2], spans[1::2]):
            found[start:stop] = True
        return found


class Catalogued:
    """What sources with a `Catalogue` have in common.

    Attributes:
      name: for messages.
      catalogue: of all items.
      digest: hex digest of the content.
      notes: what a user should know of the data as a whole.
    """

    name: str
    catalogue: Catalogue
    digest: str
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.catalogue)

    @property
    def label_names(self) -> list[str]:
        """In the order in which they first occur."""
        return self.catalogue.label_names

    def fingerprint(self) -> str:
        return self.digest

    def ids(self) -> np.ndarray:
        return self.catalogue.ids()

    def labelled(self, label: str) -> np.ndarray:
        return self.catalogue.labelled(label)


@dataclasses.dataclass(frozen=True)
class SpanSource(Catalogued):
    """A `sources.Source` whose items are spans of one file.

    Attributes:
      name: for messages.
      path: the file.
      starts: ``[n]``, where each item begins, bytes.
      sizes: ``[n]``, its length, bytes.
      catalogue: of the items.
      digest: hex digest of the content.
      as_item: from number, id and content of an item to what ``decode`` takes.
      decode: module-level function from an item to a crystal.
      notes: what a user should know of the data as a whole.
    """

    name: str
    path: Path
    starts: Sequence[int]
    sizes: Sequence[int]
    catalogue: Catalogue
    digest: str
    as_item: Callable[[int, str, bytes], Any]
    decode: Callable[[Any], Crystal]
    notes: Sequence[str] = ()

    def items(self, start: int, stop: int) -> list[Any]:
        """The items ``start … stop − 1``, of which the bytes are read now.

        Raises:
          UserError: the file is not there any more.
        """
        found: list[Any] = []
        try:
            with open(self.path, "rb") as file:
                for number in range(start, min(stop, len(self))):
                    if number in self.catalogue.problems:
                        found.append(self.catalogue.problems[number])
                        continue
                    file.seek(self.starts[number])
                    content = file.read(self.sizes[number])
                    found.append(self.as_item(number, self.catalogue.id_of(number), content))
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be read any more ({error.strerror}); run it again"
            ) from None
        return found


class Parts:
    """Sources of one decoder, one after the other, as a `sources.Source`.

    Args:
      name: for messages.
      parts: at least one.
      digest: hex digest of the content; of the parts' where it is not given.
      notes: what a user should know of the data as a whole.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[Source],
        digest: str | None = None,
        notes: Sequence[str] = (),
    ):
        self.name = name
        self.notes = notes
        self.decode = parts[0].decode
        self._parts = parts
        self._offsets = np.cumsum([0, *map(len, parts)])
        self._digest = digest or digest_of_texts(*(part.fingerprint() for part in parts))

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @property
    def label_names(self) -> list[str]:
        """In the order in which they first occur."""
        return list(dict.fromkeys(name for part in self._parts for name in part.label_names))

    def fingerprint(self) -> str:
        return self._digest

    def ids(self) -> np.ndarray:
        known = (part.ids() for part in self._parts)
        return np.concatenate([ids for ids in known if ids is not None])

    def labelled(self, label: str) -> np.ndarray:
        return np.concatenate([part.labelled(label) for part in self._parts])

    def items(self, start: int, stop: int) -> list[Any]:
        found = []
        for part, begin, end in zip(self._parts, self._offsets, self._offsets[1:]):
            first, last = max(start, begin), min(stop, end)
            if first < last:
                found += part.items(int(first - begin), int(last - begin))
        return found


class Hashed:
    """A file being read once, whose content is digested on the way.

    Args:
      file: at its beginning.
      digest: as of `file_digest`.
    """

    def __init__(self, file: BinaryIO, digest: Any):
        self._file = file
        self.digest = digest

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content

    def readline(self) -> bytes:
        line = self._file.readline()
        self.digest.update(line)
        return line

    def rest(self) -> None:
        """Read what is left, for the digest alone."""
        while self.read(CHUNK):
            pass


def file_digest(kind: str, path: Path) -> Any:
    """The digest of one file as of `items.digest_of_files`, to which its content is to be added."""
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
    return digest
