"""Columns that lie in several files, as one array that is read where it is asked for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from crysgnn_jax.shards import decoded


class Scattered:
    """Numbers of several shards, one after the other: of an array, what indexing takes.

    What is read is a copy, in one type, whatever types the shards have.

    Args:
      parts: ``[n_k, …]``, that of each shard.
      dtype: of what is read.

    Attributes:
      shape: ``[Σ n_k, …]``

    Example:
      ``Scattered([np.arange(3), np.arange(5)], np.int32)[[2, 3]]``
    """

    def __init__(self, parts: Sequence[np.ndarray], dtype: Any):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self.dtype = np.dtype(dtype)
        self.shape = (int(self._starts[-1]), *(parts[0].shape[1:] if len(parts) else ()))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a column of several files cannot be had without a copy")
        whole = self._between([0], [len(self)])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            return self._between([start], [max(start, stop)])
        places = np.asarray(index)
        if places.dtype == bool:
            places = np.flatnonzero(places)
        if places.ndim == 0:
            place = int(places) + (len(self) if places < 0 else 0)
            if not 0 <= place < len(self):
                raise IndexError(f"{index} is not among {len(self)}")
            return self._between([place], [place + 1])[0]
        if places.size == 0:
            return np.empty((0, *self.shape[1:]), self.dtype)
        if places.ndim != 1 or places.min() < 0 or places.max() >= len(self):
            raise IndexError(f"numbers of entries, [n], from 0 to {len(self) - 1} are taken")
        # Of each crystal, the entries lie side by side.
        breaks = np.flatnonzero(np.diff(places) != 1)
        starts = places[np.append(0, breaks + 1)]
        stops = places[np.append(breaks, len(places) - 1)] + 1
        return self._between(starts, stops)

    def _between(self, starts: Any, stops: Any) -> np.ndarray:
        """The entries ``starts[k]`` … ``stops[k] − 1`` of every k."""
        starts, stops = np.asarray(starts), np.asarray(stops)
        out = np.empty((int((stops - starts).sum()), *self.shape[1:]), self.dtype)
        numbers = np.searchsorted(self._starts, starts, side="right") - 1
        firsts = self._starts.tolist()
        done = 0
        for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist()):
            while start < stop:  # beyond the end of a shard, the next one goes on
                first = firsts[number]
                until = min(stop, firsts[number + 1])
                n = until - start
                out[done : done + n] = self._parts[number][start - first : until - first]
                done, start, number = done + n, until, number + 1
        return out


class Texts:
    """Texts of several shards, one after the other: of an array of texts, what indexing takes.

    Args:
      parts: of each shard, ``[m]`` uint8, all texts in UTF-8; and ``[n]``, where each ends.
    """

    def __init__(self, parts: Sequence[tuple[np.ndarray, np.ndarray]]):
        lengths = [np.diff(ends, prepend=ends.dtype.type(0)) for _, ends in parts]
        self._offsets = np.append(0, np.cumsum(np.concatenate(lengths), dtype=np.int64))
        self._utf8 = Scattered([utf8 for utf8, _ in parts], np.uint8)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        rows = np.arange(len(self))[index]
        if rows.ndim == 0:
            return self[rows[None]][0]
        starts, lengths = self._offsets[rows], self._offsets[rows + 1] - self._offsets[rows]
        ends = np.cumsum(lengths)
        places = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
        return decoded(self._utf8[places], ends)

    def tolist(self) -> list[str]:
        """All of them."""
        return self[:].tolist()
