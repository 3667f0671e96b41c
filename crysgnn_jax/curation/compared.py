"""Which crystals of all drafts stay: by their ids, and by comparing them with each other."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from crysgnn_jax.curation.work import LOOKS
from crysgnn_jax.graphs.duplicates import first_of_each
from crysgnn_jax.graphs.looks import Looks
from crysgnn_jax.graphs.primitive import Cell
from crysgnn_jax.shards import Shard, decoded

STAYS, REPEATED_ID, DUPLICATE, EXCLUDED = range(4)
"""What becomes of a crystal."""

_OPEN = 64
"""Drafts that are open at a time: a process may have no more than some hundred files."""


class Compared:
    """What is known of the crystals of all drafts, in their order, and what becomes of them.

    Args:
      drafts: their paths, those of excluded crystals first.
      n_excluded: how many of them are of excluded crystals.
      tolerance: of lengths, see `graphs.duplicates`.
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

    def __init__(
        self,
        drafts: Sequence[str],
        n_excluded: int,
        tolerance: float,
        folder: str | os.PathLike,
    ):
        self._drafts = drafts
        self._folder = folder
        self.abouts: list[dict[str, Any]] = []
        self._ids: list[tuple[np.ndarray, np.ndarray]] = []
        found: dict[str, list[np.ndarray]] = {}
        lengths = []
        for path in drafts:
            draft = Shard(path, folder)
            self.abouts.append(draft.about)
            lengths.append(len(draft))
            # Copies: what is read of a map stays in memory with all that lies beside it.
            self._ids.append((draft.raw_texts("ids")[0].copy(), draft.raw_texts("ids")[1].copy()))
            for name in ("source", "id_hash", "formula_hash", "look_counts", LOOKS):
                if len(draft):
                    found.setdefault(name, []).append(draft.columns[name].copy())
        self.offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
        columns = {name: np.concatenate(parts) for name, parts in found.items()}
        n = int(self.offsets[-1])
        self.source = columns.get("source", np.zeros(0, np.uint16))
        self.first = np.arange(n)
        self.outcome = np.full(n, STAYS, np.uint8)
        self._n_excluded = int(self.offsets[n_excluded])
        if n:
            self._compare(columns, tolerance)

    def _compare(self, columns: dict[str, np.ndarray], tolerance: float) -> None:
        own = columns["id_hash"][self._n_excluded :]
        repeated = np.ones(len(own), bool)
        repeated[np.unique(own, return_index=True)[1]] = False
        self.outcome[self._n_excluded :][repeated] = REPEATED_ID
        rows = np.flatnonzero(self.outcome == STAYS)
        counts = columns["look_counts"].astype(np.int64)
        looks = columns[LOOKS]
        if len(rows) < len(counts):
            looks = looks[np.repeat(self.outcome == STAYS, counts)]
            counts = counts[rows]
        first = first_of_each(
            columns["formula_hash"][rows],
            Looks(counts, looks),
            lambda place: self.cell(int(rows[place])),
            tolerance,
        )
        self.first[rows] = rows[first]
        repeats = self.first != np.arange(len(self.first))
        self.outcome[repeats] = np.where(
            self.first[repeats] < self._n_excluded, EXCLUDED, DUPLICATE
        )
        self.outcome[: self._n_excluded] = EXCLUDED

    def rows(self, outcome: int) -> np.ndarray:
        """The crystals of this outcome, but for the excluded ones themselves."""
        return self._n_excluded + np.flatnonzero(self.outcome[self._n_excluded :] == outcome)

    def is_excluded(self, rows: np.ndarray) -> np.ndarray:
        """``[len(rows)]`` bool: which of them are excluded crystals themselves."""
        return rows < self._n_excluded

    def ids(self, rows: np.ndarray) -> list[str]:
        """The ids of some crystals."""
        number = np.searchsorted(self.offsets, rows, side="right") - 1
        out = np.empty(len(rows), object)
        for k in np.unique(number).tolist():
            here = number == k
            out[here] = decoded(*self._ids[k])[rows[here] - self.offsets[k]]
        return out.tolist()

    def cell(self, row: int) -> Cell:
        """The structure of a crystal."""
        number = int(np.searchsorted(self.offsets, row, side="right")) - 1
        draft, first_atom = self._opened(number)
        place = row - int(self.offsets[number])
        atoms = slice(first_atom[place], first_atom[place + 1])
        return Cell(
            np.asarray(draft.columns["lattice"][place], np.float64),
            np.asarray(draft.columns["frac_coords"][atoms], np.float64),
            np.asarray(draft.columns["species"][atoms]),
        )

    @functools.cached_property
    def _opened(self):
        @functools.lru_cache(_OPEN)
        def opened(number: int) -> tuple[Shard, np.ndarray]:
            draft = Shard(self._drafts[number], self._folder)
            return draft, np.append(0, np.cumsum(draft.columns["n_nodes"], dtype=np.int64))

        return opened
