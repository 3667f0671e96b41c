"""Which crystals of all drafts stay: by their ids, and by comparing them with each other."""

import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from crysgnn_jax.curation.work import LOOKS
from crysgnn_jax.graphs.duplicates import first_of_each
from crysgnn_jax.graphs.looks import Looks
from crysgnn_jax.graphs.primitive import Cell
from crysgnn_jax.graphs.ragged import ragged
from crysgnn_jax.shards import Shard, decoded

STAYS, REPEATED_ID, DUPLICATE, EXCLUDED = range(4)
"""What becomes of a crystal."""

BLOCK = 4000
"""Crystals that are compared in one call, unless more have the same formula: seconds of work."""

_OPEN = 64
"""Drafts that are open at a time: a process may have no more than some hundred files."""


class Structures:
    """The structures in drafts.

    Args:
      drafts: their paths.
      offsets: ``[number of drafts + 1]``: the crystals of draft k are ``offsets[k:k + 2]``.
      folder: for copies of remote drafts.
    """

    def __init__(
        self, drafts: Sequence[str], offsets: np.ndarray, folder: str | os.PathLike | None
    ):
        self._offsets = offsets

        @functools.lru_cache(_OPEN)
        def opened(number: int) -> tuple[Shard, np.ndarray]:
            draft = Shard(drafts[number], folder)
            return draft, np.append(0, np.cumsum(draft.columns["n_nodes"], dtype=np.int64))

        self._opened = opened

    def cell(self, row: int) -> Cell:
        """The structure of a crystal."""
        number = int(np.searchsorted(self._offsets, row, side="right")) - 1
        draft, first_atom = self._opened(number)
        place = row - int(self._offsets[number])
        atoms = slice(first_atom[place], first_atom[place + 1])
        found = Cell(
            np.array(draft.columns["lattice"][place], np.float64),
            np.array(draft.columns["frac_coords"][atoms], np.float64),
            np.array(draft.columns["species"][atoms]),
        )
        # Else the drafts come to count as memory of each process that looks into them.
        draft.release()
        return found


def first_of_rows(
    rows: np.ndarray,
    keys: np.ndarray,
    looks: Looks,
    structures: tuple[Sequence[str], np.ndarray, str | os.PathLike | None],
    tolerance: float,
    n_fixed: int,
) -> np.ndarray:
    """``[m]``: the first of some crystals that each repeats. Work of an engine.

    Args:
      rows: ``[m]``, ascending, of the crystals.
      keys: ``[m]``: only crystals of one key are compared.
      looks: of the crystals.
      structures: arguments of `Structures`.
      tolerance: as of `duplicates.first_of_each`, and so is ``n_fixed``.
    """
    found = Structures(*structures)
    cell = lambda place: found.cell(int(rows[place]))
    return rows[first_of_each(keys, looks, cell, tolerance, n_fixed)]


class Compared:
    """What is known of the crystals of all drafts, in their order, and what becomes of them.

    Args:
      drafts: their paths, those of excluded crystals first.
      n_excluded: how many of them are of excluded crystals.
      folder: for copies of remote drafts.

    Attributes:
      abouts: what the drafts are about.
      offsets: ``[number of drafts + 1]``: the crystals of draft k are ``offsets[k:k + 2]``.
      source: ``[n]``, number of the source of each crystal, among those of its kind.
      first: ``[n]``, the crystal that each repeats: itself where it repeats none before it.
      outcome: ``[n]``, `STAYS` or why not.

    Raises:
      UserError: a draft is missing or damaged.
    """

    def __init__(self, drafts: Sequence[str], n_excluded: int, folder: str | os.PathLike):
        self._drafts = tuple(drafts)
        self._folder = folder
        self.abouts: list[dict[str, Any]] = []
        self._ids: list[tuple[np.ndarray, np.ndarray]] = []
        found: dict[str, list[np.ndarray]] = {
            name: [np.zeros(0, kind)] for name, kind in _TYPES.items()
        }
        lengths = []
        for path in drafts:
            draft = Shard(path, folder)
            self.abouts.append(draft.about)
            lengths.append(len(draft))
            # Copies: what is read of a map stays in memory with all that lies beside it.
            utf8, ends = draft.raw_texts("ids")
            self._ids.append((utf8.copy(), ends.copy()))
            for name, parts in found.items():
                if len(draft):
                    parts.append(draft.columns[name].astype(_TYPES[name]))
        self.offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
        columns = {name: np.concatenate(found.pop(name)) for name in _TYPES}
        n = int(self.offsets[-1])
        self.source = columns["source"]
        self.first = np.arange(n)
        self.outcome = np.full(n, STAYS, np.uint8)
        self._formula = columns["formula_hash"]
        self._looks = Looks(columns["look_counts"], columns[LOOKS])
        self._first_look = np.cumsum(self._looks.counts) - self._looks.counts
        self._n_excluded = int(self.offsets[n_excluded])
        own = columns["id_hash"][self._n_excluded :]
        repeated = np.ones(len(own), bool)
        repeated[np.unique(own, return_index=True)[1]] = False
        self.outcome[self._n_excluded :][repeated] = REPEATED_ID

    def blocks(self) -> list[np.ndarray]:
        """The crystals that share their formula with others, in parts of about `BLOCK`: those of
        one formula are in one part. Rows ascend in each."""
        rows = np.flatnonzero(self.outcome == STAYS)
        _, formula, counts = np.unique(self._formula[rows], return_inverse=True, return_counts=True)
        shared = counts[formula] > 1
        rows, formula = rows[shared], formula[shared]
        # A formula belongs to the block in which its last crystal comes to lie.
        ends = np.cumsum(np.where(counts > 1, counts, 0))
        block = (ends // BLOCK)[formula]
        order = np.argsort(block, kind="stable")
        cuts = np.flatnonzero(np.diff(block[order])) + 1
        return [part for part in np.split(rows[order], cuts) if len(part)]

    def arguments(self, rows: np.ndarray, tolerance: float) -> tuple:
        """Of `first_of_rows`, for one of the blocks."""
        counts = self._looks.counts[rows]
        looks = Looks(counts, self._looks.values[ragged(self._first_look[rows], counts)])
        structures = (self._drafts, self.offsets, self._folder)
        # One excluded crystal does not stand in for another, which may be nearer to a third.
        n_fixed = int(np.searchsorted(rows, self._n_excluded))
        return rows, self._formula[rows], looks, structures, tolerance, n_fixed

    def settle(self, found: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Enter what each crystal repeats, and what becomes of all.

        Args:
          found: rows, and `first_of_rows` of them.
        """
        for rows, first in found:
            self.first[rows] = first
        repeats = self.first != np.arange(len(self.first))
        of_excluded = self.first[repeats] < self._n_excluded
        self.outcome[repeats] = np.where(of_excluded, EXCLUDED, DUPLICATE)
        self.outcome[: self._n_excluded] = EXCLUDED

    def rows(self, outcome: int) -> np.ndarray:
        """The crystals of this outcome, but for the excluded ones themselves."""
        return self._n_excluded + np.flatnonzero(self.outcome[self._n_excluded :] == outcome)

    def ids(self, rows: np.ndarray) -> list[str]:
        """The ids of some crystals."""
        number = np.searchsorted(self.offsets, rows, side="right") - 1
        out = np.empty(len(rows), object)
        for k in np.unique(number).tolist():
            here = number == k
            out[here] = decoded(*self._ids[k])[rows[here] - self.offsets[k]]
        return out.tolist()


_TYPES = {
    "source": np.uint16,
    "id_hash": np.uint64,
    "formula_hash": np.uint64,
    "look_counts": np.int64,
    LOOKS: np.float32,
}
"""Column of a draft that is kept in memory → its type there."""
