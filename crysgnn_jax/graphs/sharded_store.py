"""The graphs of a curated set, read from its shards: what a `GraphStore` is, without another copy.

Where the entries of each crystal stand is in memory; all else stays in the shards, and is read
crystal by crystal as batches ask for it. A set may hold far more than memory does.
"""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.curated import CuratedSet
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.ragged import Graphs
from crysgnn_jax.graphs.scattered import Table, Texts, open_shards
from crysgnn_jax.graphs.shard_contents import KEPT, OF_WHOLE_GRAPHS
from crysgnn_jax.graphs.store import OFFSETS, GraphStore

_TYPES = {
    **dict.fromkeys(("space_group", "species", "site_species"), np.uint8),
    **dict.fromkeys(("lattice", "frac_coords"), np.float64),
    "bond_distances": np.float32,
}
"""Column → the type that it has in a `GraphStore`; int32 where it is not here."""

_CRYSTALS = "crystals"
"""In the place of a count, of columns with one entry a crystal."""

_COUNT_OF = {name: count for count, names in KEPT.items() for name in names}


class ReducedStore(GraphStore):
    """A store that has the reduced graphs alone. The whole ones are made when they are asked for.

    Args:
      path: as of `GraphStore`, and ``meta`` likewise.
      whole: makes a store of the same crystals that has the whole graphs too.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any], whole: Callable[[], GraphStore]):
        super().__init__(path, meta)
        self._make_whole = whole

    @functools.cached_property
    def full(self) -> Graphs:
        """The graphs with every atom and edge. They are made now."""
        return self._whole.full

    @functools.cached_property
    def _whole(self) -> GraphStore:
        whole = self._make_whole()
        if not np.array_equal(whole.ids, self.ids):
            raise UserError(
                f"{self.source_name}: the whole graphs of some of its crystals cannot be made; "
                "curate it again"
            )
        return whole

    def column(self, name: str) -> Any:
        return self._whole.column(name)


class ShardedStore(ReducedStore):
    """A curated set as a graph store.

    Attributes:
      shards: of the set.

    Args:
      curated: the set.
      fingerprint: of the store that would be made of it otherwise.
      path: of a folder for what is kept beside a store.
      whole: makes a store of the same crystals that has the whole graphs too.
      cache_dir: where remote shards are kept.

    Raises:
      UserError: a shard is missing or damaged.
    """

    def __init__(
        self,
        curated: CuratedSet,
        fingerprint: str,
        path: Path,
        whole: Callable[[], GraphStore],
        cache_dir: str | os.PathLike | None = None,
    ):
        super().__init__(
            path,
            {
                "fingerprint": fingerprint,
                "source": curated.path,
                "settings": curated.settings,
                "label_names": curated.label_names,
                "tag_names": curated.tag_names,
                "skipped": [],
                "notes": [],
                "n_crystals": len(curated),
            },
            whole,
        )
        paths = [curated.shard_path(number) for number in range(len(curated.shards))]
        self.shards = open_shards(paths, cache_dir)
        self._tables = {count: Table(self.shards) for count in (_CRYSTALS, *KEPT)}

    @functools.cached_property
    def n_edges(self) -> np.ndarray:
        """``[n]`` int64, edges of each crystal's whole graph."""
        return self._numbers("n_edges")

    def column(self, name: str) -> Any:
        if name in OF_WHOLE_GRAPHS:
            return super().column(name)
        if name in OFFSETS:
            return np.append(0, np.cumsum(self._numbers(OFFSETS[name])))
        if name in ("ids", "reduced_formula"):
            return Texts(self.shards, name)
        if name == "space_group":
            return self._numbers(name).astype(np.uint8)
        table = self._tables[_COUNT_OF.get(name, _CRYSTALS)]
        return table.column(name, _TYPES.get(name, np.int32))

    def _numbers(self, name: str) -> np.ndarray:
        """``[n]`` int64, of each crystal."""
        return np.asarray(Table(self.shards).column(name, np.int64))

    def _known_column(self, folder: str, name: str) -> np.ndarray:
        parts: list[np.ndarray] = []
        for shard in self.shards:
            if folder == "tags":
                there = f"tags/{name}" in shard.text_names
                parts.append(shard.texts(f"tags/{name}") if there else np.full(len(shard), ""))
            else:
                known = shard.columns.get(f"labels/{name}")
                parts.append(np.full(len(shard), np.nan) if known is None else known)
        return np.concatenate(parts)
