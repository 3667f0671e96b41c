"""Sources of which only the places of the items are in memory, and not the items."""

import contextlib
import dataclasses
import hashlib
import itertools
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.items import Problem
from crysgnn_jax.crystals.sources import Source, digest_of_texts
from crysgnn_jax.errors import UserError, printable

CHUNK = 2**20
"""Bytes that are read of a file at once."""


_ANY = "surrogateescape"
"""Names of files may be no text."""


class Texts:
    """Many short texts in one array of bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return self._bytes[self._ends[number] : self._ends[number + 1]].decode(errors=_ANY)

    def append(self, text: str) -> None:
        self._bytes += text.encode(errors=_ANY)
        self._ends.append(len(self._bytes))


class Catalogue:
    """What is known of many items unread: ids, which properties each has, which are unusable.

    A few bytes an item: of a property, only the spans of items are kept that have it.

    Attributes:
      problems: number → problem of the items that are known to be unusable.
      not_numbers: property → how many items have NaN or infinity for it, which is missing.
    """

    def __init__(self) -> None:
        self.problems: dict[int, Problem] = {}
        self.not_numbers: Counter[str] = Counter()
        self._ids = Texts()
        self._spans: dict[str, array] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, id: str, labels: Iterable[str] = ()) -> None:
        """One more item, and the properties that it has."""
        number = len(self)
        self._ids.append(printable(id))
        for name in labels:
            spans = self._spans.setdefault(name, array("Q", [number, number]))
            if spans[-1] == number:
                spans[-1] += 1
            else:
                spans.extend((number, number + 1))

    def add_numbers(self, id: str, numbers: Mapping[str, float]) -> None:
        """One more item, and the numbers beside it, of which the finite ones are properties."""
        self.add(id, (name for name, value in numbers.items() if math.isfinite(value)))
        for name, value in numbers.items():
            if not math.isfinite(value):
                self.not_numbers[name] += 1

    def add_problem(self, problem: Problem) -> None:
        """One more item, which is known to be unusable."""
        self.problems[len(self)] = problem
        self.add(problem.id)

    def renamed(self, id: str) -> "Catalogue":
        """The same of the only item, by another id."""
        found = Catalogue()
        if 0 in self.problems:
            found.add_problem(dataclasses.replace(self.problems[0], id=id))
        else:
            found.add(id, self.label_names)
        found.not_numbers = self.not_numbers
        return found

    def id_of(self, number: int) -> str:
        """The id of an item."""
        return self._ids[number]

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
    tag_names = ()

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
      places: see `sources.places_of`.
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
    places: tuple[str, ...] = ()

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
      places: see `sources.places_of`.
    """

    tag_names = ()

    def __init__(
        self,
        name: str,
        parts: Sequence[Source],
        digest: str | None = None,
        notes: Sequence[str] = (),
        places: tuple[str, ...] = (),
    ):
        self.name = name
        self.places = places
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
      digest: as of `begin`.
    """

    def __init__(self, file: BinaryIO, digest: Any):
        self._file = file
        self._digest = digest

    def read(self, size: int) -> bytes:
        """Up to so many bytes."""
        content = self._file.read(size)
        self._digest.update(content)
        return content

    def lines(self, n: int) -> list[bytes]:
        """The next lines; fewer at the end."""
        found = list(itertools.islice(self._file, n))
        self._digest.update(b"".join(found))
        return found

    def rest(self) -> None:
        """Read what is left, for the digest alone."""
        while self.read(CHUNK):
            pass


def digest_of(kind: str) -> Any:
    """A digest of files, and of how they are to be read."""
    return hashlib.blake2b(kind.encode(), digest_size=16)


def begin(digest: Any, name: str, size: int) -> None:
    """Add a file's name and size to a digest; its content comes next."""
    # Lengths keep the end of one field from passing for the beginning of the next.
    digest.update(f"\0{name}\0{size}\0".encode(errors=_ANY))


def add_file(digest: Any, path: Path) -> None:
    """Add name and content of a file of any size to a digest.

    Raises:
      UserError: it cannot be read.
    """
    with reading(path) as file:
        begin(digest, path.name, path.stat().st_size)
        Hashed(file, digest).rest()


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[BinaryIO]:
    """A file, opened.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
