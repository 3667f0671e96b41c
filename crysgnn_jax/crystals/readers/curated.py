"""Curated sets as sources: the crystals in their shards, with labels and tags."""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.curated import CuratedSet, open_curated
from crysgnn_jax.shards import Shard

_OPEN = 16
"""Shards that a process keeps open while it decodes."""


class Item(NamedTuple):
    """One undecoded crystal: its shard, what is in that, and which of its crystals it is."""

    shard: str
    digest: str
    row: int

    @property
    def id(self) -> str:
        """What to call it where it cannot be read."""
        return f"{self.shard}, crystal {self.row}"


def decode_item(item: Item) -> Crystal:
    """The crystal of an item.

    Raises:
      InvalidCrystal: as in `Crystal`.
    """
    return _opened(item.shard, item.digest).crystal(item.row)


class _Crystals:
    """The crystals of a shard."""

    def __init__(self, path: str):
        shard = Shard(path)
        self._columns = shard.columns
        self._ids = shard.texts("ids")
        self._first = np.append(0, np.cumsum(shard.columns["n_nodes"], dtype=np.int64))
        folders: Callable = lambda names, folder: {
            name.removeprefix(folder): name for name in names if name.startswith(folder)
        }
        self._labels = {
            name: shard.columns[column]
            for name, column in folders(shard.columns, "labels/").items()
        }
        self._tags = {
            name: shard.texts(texts) for name, texts in folders(shard.text_names, "tags/").items()
        }

    def crystal(self, row: int) -> Crystal:
        """One of them."""
        atoms = slice(self._first[row], self._first[row + 1])
        labels = {name: float(values[row]) for name, values in self._labels.items()}
        return Crystal(
            str(self._ids[row]),
            np.array(self._columns["species"][atoms]),
            np.array(self._columns["frac_coords"][atoms], np.float64),
            np.array(self._columns["lattice"][row], np.float64),
            {name: value for name, value in labels.items() if value == value},
            {name: str(texts[row]) for name, texts in self._tags.items() if texts[row]},
        )


@functools.lru_cache(_OPEN)
def _opened(path: str, digest: str) -> _Crystals:
    """A shard with this content: a set that is made anew has another in the same place."""
    return _Crystals(path)


class Curated:
    """The crystals of a curated set, as a `Source`.

    Args:
      path: of the set's directory, or its address.

    Attributes:
      curated: the set.
      places: its path, see `sources.places_of`.

    Raises:
      UserError: as of `open_curated`.
    """

    decode = staticmethod(decode_item)

    def __init__(self, path: str | os.PathLike):
        self.curated: CuratedSet = open_curated(path)
        self.name = self.curated.path
        self.places = (self.curated.path,)
        self.label_names = self.curated.label_names
        self.tag_names = self.curated.tag_names
        self._first = np.cumsum([0, *(shard["crystals"] for shard in self.curated.shards)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def fingerprint(self) -> str:
        return self.curated.fingerprint

    def ids(self) -> np.ndarray:
        """``[len(self)]`` text."""
        found = [self._shard(number).texts("ids") for number in range(len(self.curated.shards))]
        return np.concatenate(found) if found else np.empty(0, str)

    def labelled(self, label: str) -> np.ndarray:
        out = np.zeros(len(self), bool)
        for number, first in enumerate(self._first[:-1].tolist()):
            values = self._shard(number).columns.get(f"labels/{label}")
            if values is not None:
                out[first : first + len(values)] = np.isfinite(values)
        return out

    def items(self, start: int, stop: int) -> list[Item]:
        rows = np.arange(start, min(stop, len(self)))
        numbers = np.searchsorted(self._first, rows, side="right") - 1
        within = (rows - self._first[numbers]).tolist()
        return [
            Item(self.curated.shard_path(number), self.curated.shards[number]["digest"], row)
            for number, row in zip(numbers.tolist(), within)
        ]

    def _shard(self, number: int) -> Shard:
        return Shard(self.curated.shard_path(number))
