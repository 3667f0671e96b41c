"""Columns that lie in several files, as one array that is read where it is asked for."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.graphs.ragged import ragged
from crysgnn_jax.shards import ENDS, UTF8, Shard, decoded

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MAPPED = 1 << 28
"""Bytes of files that a process may have in its memory before it gives them back."""

_AROUND = 1 << 16
"""Bytes that a system maps at least, whatever little of them is read."""

_AT_A_TIME = 1 << 16
"""Texts that are decoded together."""

_SPARE = 256
"""Files that a process may have open beside the shards."""


def open_shards(paths: Sequence[str], cache_dir: str | os.PathLike | None = None) -> "Shards":
    """The shards of a set.

    Args:
      paths: of each of them, in their order.
      cache_dir: as of `Shard`.

    Raises:
      UserError: one is missing or damaged.
    """
    # Each is an open file; by default a process may have 1,024 of these, or even 256.
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = len(paths) + _SPARE
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    return Shards([Shard(path, cache_dir) for path in paths])


class Shards(Sequence[Shard]):
    """The shards of a set, read in pieces here and there. What has been read does not stay in this
    process, or its memory would grow to the size of the set.

    Args:
      shards: in their order.
    """

    def __init__(self, shards: Sequence[Shard]):
        self._shards = shards
        self._mapped = 0
        for shard in shards:
            shard.expect_pieces()

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, number: Any) -> Any:
        return self._shards[number]

    def have_read(self, n_pieces: int, n_bytes: int) -> None:
        """Count what has been read, and release it where it has become too much."""
        self._mapped += n_pieces * _AROUND + n_bytes
        if self._mapped > _MAPPED:
            self._mapped = 0
            self.release()

    def release(self) -> None:
        """Give back what this process has of the files."""
        for shard in self._shards:
            shard.release()


class Piece(NamedTuple):
    """Entries of a shard that lie side by side.

    Attributes:
      shard: number of the shard.
      start: the first of them, counted within the shard.
      stop: the last but one.
    """

    shard: int
    start: int
    stop: int


class Table:
    """Columns with as many entries each, which are asked for together: all that will be read of
    them is told to the system at once, for a disk answers many questions as fast as one.

    Args:
      shards: in which the columns are.

    Example:
      ``Table(shards).column("species", np.uint8)[[2, 3]]``
    """

    def __init__(self, shards: Shards):
        self.shards = shards
        self._columns: dict[str, Scattered] = {}
        self._in_use: dict[str, Scattered] = {}
        self._last: tuple[np.ndarray, list[Piece]] = np.empty(0, np.int64), []

    def column(self, name: str, dtype: Any) -> "Scattered":
        """A column, in the type in which it is to be read."""
        if name not in self._columns:
            self._columns[name] = Scattered(self, name, dtype)
        return self._columns[name]

    def pieces(self, column: "Scattered", places: np.ndarray) -> list[Piece]:
        """Where the entries ``places``, ``[n]``, of a column are. Those of the others that have
        been read before are expected then too."""
        last, pieces = self._last
        if np.array_equal(last, places) and column.name in self._in_use:
            return pieces
        self._in_use[column.name] = column
        # Of each crystal, the entries lie side by side.
        breaks = np.flatnonzero(np.diff(places) != 1)
        starts = places[np.append(0, breaks + 1)]
        stops = places[np.append(breaks, len(places) - 1)] + 1
        pieces = column.between(starts, stops)
        for one in list(self._in_use.values()):
            one.expect(pieces)
        self._last = places.copy(), pieces
        return pieces


class Scattered:
    """An array of several shards, one after the other: of an array, what indexing takes.

    What is read is a copy, in one type, whatever types the shards have.

    Args:
      table: that it is a column of.
      name: of the array in each shard.
      dtype: of what is read.

    Attributes:
      name: as given.
      dtype: as given.
      shape: ``[n, …]``, of all shards together.
    """

    def __init__(self, table: Table, name: str, dtype: Any):
        self._table = table
        self._parts = [shard.array(name) for shard in table.shards]
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self.name = name
        self.dtype = np.dtype(dtype)
        self.shape = (int(self._starts[-1]), *self._parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a column of several files cannot be had without a copy")
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            return self._side_by_side(start, max(start, stop))
        places = np.asarray(index)
        if places.dtype == bool:
            if places.shape != (len(self),):
                raise IndexError(f"{len(places)} answers for {len(self)} entries")
            places = np.flatnonzero(places)
        if places.ndim == 0:
            place = int(places) + (len(self) if places < 0 else 0)
            if not 0 <= place < len(self):
                raise IndexError(f"{index} is not among {len(self)}")
            return self._side_by_side(place, place + 1)[0]
        if places.size == 0:
            return np.empty((0, *self.shape[1:]), self.dtype)
        if places.ndim != 1 or places.min() < 0 or places.max() >= len(self):
            raise IndexError(f"numbers of entries, [n], from 0 to {len(self) - 1} are taken")
        return self._read(self._table.pieces(self, places), len(places))

    def between(self, starts: np.ndarray, stops: np.ndarray) -> list[Piece]:
        """Where the entries ``starts[k]`` … ``stops[k] − 1`` of every k are."""
        numbers = np.searchsorted(self._starts, starts, side="right") - 1
        firsts = self._starts[numbers]
        if (stops <= self._starts[numbers + 1]).all():
            columns = (numbers, starts - firsts, stops - firsts)
            return [Piece(*piece) for piece in zip(*(column.tolist() for column in columns))]
        pieces = []
        for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist()):
            while start < stop:  # beyond the end of a shard, the next one goes on
                first, end = self._starts[number : number + 2].tolist()
                until = min(stop, end)
                if start < until:
                    pieces.append(Piece(number, start - first, until - first))
                start, number = until, number + 1
        return pieces

    def expect(self, pieces: Sequence[Piece]) -> None:
        """Have the system fetch what is about to be read."""
        shards, name = self._table.shards, self.name
        for number, start, stop in pieces:
            shards[number].expect(name, start, stop)

    def _side_by_side(self, start: int, stop: int) -> np.ndarray:
        pieces = self.between(np.array([start]), np.array([stop])) if start < stop else []
        self.expect(pieces)
        return self._read(pieces, stop - start)

    def _read(self, pieces: Sequence[Piece], n: int) -> np.ndarray:
        out = np.empty((n, *self.shape[1:]), self.dtype)
        done = 0
        for number, start, stop in pieces:
            out[done : done + stop - start] = self._parts[number][start:stop]
            done += stop - start
        self._table.shards.have_read(len(pieces), out.nbytes)
        return out


class Texts:
    """Texts of several shards, one after the other: of an array of texts, what indexing takes.

    Args:
      shards: in which they are.
      name: of the texts in each of them.
    """

    def __init__(self, shards: Shards, name: str):
        ends = [shard.array(name + ENDS) for shard in shards]
        lengths = [np.diff(part, prepend=part.dtype.type(0)) for part in ends]
        self._offsets = np.append(0, np.cumsum(np.concatenate(lengths), dtype=np.int64))
        self._utf8 = Table(shards).column(name + UTF8, np.uint8)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            rows = np.arange(*index.indices(len(self)))
        elif np.ndim(index) == 0:
            return self._of(np.array([range(len(self))[index]]))[0]
        else:
            rows = np.arange(len(self))[index]
        if len(rows) <= _AT_A_TIME:
            return self._of(rows)
        starts = range(0, len(rows), _AT_A_TIME)
        return np.concatenate([self._of(rows[start : start + _AT_A_TIME]) for start in starts])

    def _of(self, rows: np.ndarray) -> np.ndarray:
        starts, lengths = self._offsets[rows], self._offsets[rows + 1] - self._offsets[rows]
        return decoded(self._utf8[ragged(starts, lengths)], np.cumsum(lengths))

    def tolist(self) -> list[str]:
        """All of them."""
        starts = range(0, len(self), _AT_A_TIME)
        return [text for start in starts for text in self[start : start + _AT_A_TIME].tolist()]
