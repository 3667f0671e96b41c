"""Several graph stores as one, so that a curated set goes on being read from its shards where it is
used together with other crystals."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.crystals.sources import UNLABELLED
from crysgnn_jax.graphs.shard_contents import OF_WHOLE_GRAPHS
from crysgnn_jax.graphs.sharded_store import ReducedStore
from crysgnn_jax.graphs.store import OFFSETS, GraphStore


class Joined:
    """Columns one after the other: of an array, what indexing takes.

    Args:
      parts: arrays, or what is indexed as such.

    Example:
      ``Joined([np.arange(3), np.arange(5)])[[2, 3]]``
    """

    def __init__(self, parts: Sequence[Any]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a column of several stores cannot be had without a copy")
        whole = np.concatenate([np.asarray(part) for part in self._parts])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        places = np.asarray(index)
        if places.dtype == bool:
            if places.shape != (len(self),):
                raise IndexError(f"{len(places)} answers for {len(self)} entries")
            places = np.flatnonzero(places)
        places = np.where(places < 0, places + len(self), places)
        if places.size and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"{index} is not among {len(self)}")
        part = np.searchsorted(self._starts, places, side="right") - 1
        if places.ndim == 0:
            return self._parts[int(part)][places - self._starts[part]]
        order = np.argsort(part, kind="stable")
        values = [
            column[places[part == k] - self._starts[k]] for k, column in enumerate(self._parts)
        ]
        joined = np.concatenate(values)
        out = np.empty_like(joined)
        out[order] = joined
        return out

    def tolist(self) -> list[Any]:
        """All of it."""
        return [value for part in self._parts for value in part.tolist()]


class _Renamed:
    """Ids of which some have a name before them."""

    def __init__(self, ids: Any, renamed: Callable[[Any], np.ndarray]):
        self._ids = ids
        self._renamed = renamed

    def __len__(self) -> int:
        return len(self._ids)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._renamed(np.asarray(self._ids))

    def __getitem__(self, index: Any) -> Any:
        return self._renamed(self._ids[index])[()]

    def tolist(self) -> list[str]:
        return np.asarray(self).tolist()


@dataclasses.dataclass(frozen=True)
class Member:
    """A store among others.

    Attributes:
      store: what it is.
      prefix: what stands before an id of it that an earlier member has too.
      repeated: ``[n]`` text, those ids; None where it stands before all of them.
      without_labels: whether its labels and tags are left out, as of `sources.without_labels`.
    """

    store: GraphStore
    prefix: str = ""
    repeated: np.ndarray | None = dataclasses.field(default_factory=lambda: np.empty(0, str))
    without_labels: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        return () if self.without_labels else self.store.label_names

    @property
    def tag_names(self) -> tuple[str, ...]:
        return (UNLABELLED,) if self.without_labels else self.store.tag_names

    def known(self, folder: str, name: str) -> np.ndarray:
        """``[n]`` labels or tags of this name, NaN or empty where there are none."""
        n = len(self.store)
        if folder == "labels":
            there = name in self.label_names
            return self.store.labels(name) if there else np.full(n, np.nan)
        if self.without_labels:
            return np.full(n, "yes" if name == UNLABELLED else "")
        return self.store.tags(name) if name in self.tag_names else np.full(n, "")

    @property
    def ids(self) -> Any:
        """``[n]`` text, as they are among the others."""
        as_they_are = self.repeated is not None and not len(self.repeated)
        return self.store.ids if as_they_are else _Renamed(self.store.ids, self.renamed)

    def renamed(self, ids: Any) -> np.ndarray:
        """Ids of the store, as they are among the others."""
        ids = np.asarray(ids, str)
        longer = np.char.add(self.prefix, ids)
        return longer if self.repeated is None else np.where(
            np.isin(ids, self.repeated), longer, ids
        )  # fmt: skip


class JoinedStore(ReducedStore):
    """Several stores of one kind of graph, one after the other, as a graph store.

    Args:
      members: at least one.
      name: of the source that they are the stores of.
      fingerprint: of the store that would be made of it otherwise.
      path: of a folder for what is kept beside a store.
      notes: of the source as a whole.
      whole: makes a store of the same crystals that has the whole graphs too.
    """

    def __init__(
        self,
        members: Sequence[Member],
        name: str,
        fingerprint: str,
        path: Path,
        notes: Sequence[str],
        whole: Callable[[], GraphStore],
    ):
        told = lambda entries, member: [
            (str(member.renamed(id)) if id else "", text) for id, text in entries
        ]
        names = lambda kind: dict.fromkeys(n for member in members for n in getattr(member, kind))
        super().__init__(
            path,
            {
                "fingerprint": fingerprint,
                "source": name,
                "settings": members[0].store.settings.plain(),
                "label_names": names("label_names"),
                "tag_names": sorted(names("tag_names")),
                "skipped": [x for m in members for x in told(m.store.skipped, m)],
                "notes": [
                    *(("", note) for note in notes),
                    *(x for m in members for x in told(m.store.notes, m) if x[0]),
                ],
                "n_crystals": sum(len(member.store) for member in members),
            },
            whole,
        )
        self._members = members

    @functools.cached_property
    def n_edges(self) -> np.ndarray:
        """``[n]`` int64, edges of each crystal's whole graph."""
        return np.concatenate([member.store.n_edges for member in self._members])

    def column(self, name: str) -> Any:
        if name in OF_WHOLE_GRAPHS:
            return super().column(name)
        if name == "ids":
            return Joined([member.ids for member in self._members])
        parts = [member.store.column(name) for member in self._members]
        if name in OFFSETS:
            return np.append(0, np.cumsum(np.concatenate([np.diff(part) for part in parts])))
        return np.concatenate(parts) if name == "space_group" else Joined(parts)

    def _known_column(self, folder: str, name: str) -> np.ndarray:
        parts = [member.known(folder, name) for member in self._members]
        return np.concatenate(parts)
