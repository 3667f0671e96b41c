"""What a shard of a curated set holds of crystals and their reduced graphs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from crysgnn_jax.graphs.ragged import ragged
from crysgnn_jax.graphs.store import EDGE_COLUMNS, OFFSETS, RAGGED, GraphStore
from crysgnn_jax.shards import narrow

OF_WHOLE_GRAPHS = ("edge_offsets", "degree", *EDGE_COLUMNS)
"""Columns of a `GraphStore` that a shard lacks."""

KEPT = {
    "n_nodes": tuple(name for name in RAGGED["n_nodes"] if name not in OF_WHOLE_GRAPHS),
    **{count: RAGGED[count] for count in ("n_sites", "n_bonds", "n_pairs")},
}
"""Number of entries of each crystal → the ragged columns of a shard that have so many."""

_OFFSETS_OF = {count: name for name, count in OFFSETS.items()}

_TEXTS = ("ids", "reduced_formula")

_NUMBERS = ("space_group", "lattice", "n_edges")


def contents(
    columns: Mapping[str, Any],
    labels: Mapping[str, np.ndarray] | None = None,
    tags: Mapping[str, Iterable[str]] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Sequence[str]]]:
    """What `shards.write_shard` takes of some crystals.

    Args:
      columns: ``ids``, ``reduced_formula``, ``space_group`` and ``lattice``; ``n_edges``, the
        counts of `KEPT` and its columns, as a `GraphStore` has them. What else is there is left
        out.
      labels: name → ``[n]``, NaN where it is missing; what nobody has is left out.
      tags: name → ``[n]`` text, empty where it is missing; what nobody has is left out.
    """
    names = (*_NUMBERS, *KEPT, *(name for names in KEPT.values() for name in names))
    out = {name: narrow(np.asarray(columns[name])) for name in names}
    for name, values in (labels or {}).items():
        values = np.asarray(values, np.float64)
        if not np.isnan(values).all():
            out[f"labels/{name}"] = values
    texts = {name: columns[name] for name in _TEXTS}
    texts |= {f"tags/{name}": entries for name, entries in (tags or {}).items() if any(entries)}
    return out, {name: [str(text) for text in entries] for name, entries in texts.items()}


def columns_of(store: GraphStore, rows: np.ndarray) -> dict[str, Any]:
    """The columns that `contents` takes, of the crystals ``rows`` of a store."""
    out = {name: getattr(store, name)[rows] for name in (*_TEXTS, *_NUMBERS)}
    for count, names in KEPT.items():
        offsets = store.column(_OFFSETS_OF[count])
        out[count] = offsets[rows + 1] - offsets[rows]
        where = ragged(offsets[rows], out[count])
        out |= {name: store.column(name)[where] for name in names}
    return out
