"""The graphs of some crystals: read, look for neighbours and symmetry, reduce.

The unit of work of a store (`build`) and of a curated set (`crysgnn_jax.curation`).
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.items import one_line
from crysgnn_jax.crystals.readers.limits import SECONDS, Limit, time_limits
from crysgnn_jax.crystals.sources import CombinedItem
from crysgnn_jax.errors import InvalidCrystal
from crysgnn_jax.graphs.neighbours import Neighbours, neighbour_lists
from crysgnn_jax.graphs.reduction import reduce_graphs
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import CRYSTAL_COLUMNS, EDGE_COLUMNS, NODE_COLUMNS
from crysgnn_jax.graphs.symmetry import space_group_number

STEPS = ("read", "neighbours", "symmetry", "reduce")
"""What the time goes to; reading includes validation."""


@dataclasses.dataclass(frozen=True)
class Made:
    """The graphs of some crystals.

    Attributes:
      columns: arrays of a store (`store`), and ``labels`` ``[n, number of labels]``; empty where no
        crystal can be used.
      tags: of each crystal that can be used.
      skipped: ``(id, reason)`` of each that cannot.
      notes: ``(id, note)`` of what a user should know of those that can.
      seconds: step of `STEPS` → what it took.
    """

    columns: dict[str, Any]
    tags: list[dict[str, str]]
    skipped: list[tuple[str, str]]
    notes: list[tuple[str, str]]
    seconds: dict[str, float]


def make_graphs(
    decode: Callable[[Any], Crystal],
    items: Sequence[Any],
    settings: FeaturiserSettings,
    label_names: Sequence[str],
    max_atoms: int,
) -> Made:
    """The graphs of some items of a source; what cannot be used is left out, and listed.

    Args:
      decode: of the source, as are the items.
      items: some hundred: those of many more, all at once, do not fit into a processor's cache.
      settings: how to make the graphs.
      label_names: the columns of ``labels``.
      max_atoms: crystals with more are left out.
    """
    clock = [time.perf_counter()]
    with time_limits(SECONDS) as limit:
        decoded = [_decoded(decode, item, max_atoms, limit) for item in items]
    usable = [crystal for crystal in decoded if isinstance(crystal, Crystal)]
    clock.append(time.perf_counter())
    found = iter(_neighbours(usable, settings))
    clock.append(time.perf_counter())
    rows: list[dict[str, Any]] = []
    crystals: list[Crystal] = []
    skipped: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    for item in decoded:
        try:
            crystal = _valid(item)
            edges = _valid(next(found))
            rows.append(_unless_it_fails(crystal.id, _graph, crystal, edges, settings))
        except InvalidCrystal as error:
            skipped.append((error.crystal_id, error.reason))
        else:
            crystals.append(crystal)
            notes += [(crystal.id, note) for note in crystal.notes]
            if len(edges.senders) == 0:
                notes.append((crystal.id, f"no atom has a neighbour within {settings.cutoff:g} Å"))
    clock.append(time.perf_counter())
    columns: dict[str, Any] = {}
    if rows:
        columns |= {
            name: np.concatenate([row[name] for row in rows])
            for name in (*NODE_COLUMNS, *EDGE_COLUMNS)
        }
        columns |= {
            name: np.stack([row[name] for row in rows])
            for name in (*CRYSTAL_COLUMNS, "n_nodes", "n_edges")
        }
        names = ("n_nodes", "n_edges", "species", "degree", "senders", "distances")
        reduction = reduce_graphs(
            **{name: columns[name] for name in names},
            # The networks that see angles are those that take bonds.
            vectors=columns["vectors"] if settings.rule == "bonds" else None,
        )
        columns |= reduction._asdict()
        columns["labels"] = np.array(
            [[crystal.labels.get(name, np.nan) for name in label_names] for crystal in crystals],
            np.float64,
        )
    clock.append(time.perf_counter())
    tags = [dict(crystal.tags) for crystal in crystals]
    return Made(columns, tags, skipped, notes, dict(zip(STEPS, np.diff(clock).tolist())))


def _decoded(
    decode: Callable[[Any], Crystal], item: Any, max_atoms: int, limit: Limit
) -> Crystal | InvalidCrystal:
    """The crystal in an item, or why it cannot be used: to be told in the order of the items."""

    def read() -> Crystal:
        with limit:
            crystal = decode(item)
        if len(crystal.species) > max_atoms:
            raise InvalidCrystal(
                crystal.id,
                f"it has {len(crystal.species)} atoms; up to {max_atoms} are taken (`max_atoms`)",
            )
        return crystal

    try:
        return _unless_it_fails(id_of(item), read)
    except InvalidCrystal as error:
        return error


def id_of(item: Any) -> str:
    """The id of an item of any reader, for a message."""
    if isinstance(item, CombinedItem):
        return item.prefix + id_of(item.item)
    found = item.get("id") if isinstance(item, Mapping) else getattr(item, "id", None)
    return str(found) if found is not None else "?"


def _unless_it_fails(id: str, work: Callable, *arguments: Any) -> Any:
    """The one place where what any library raises on a crystal becomes a reason to skip it.

    Raises:
      InvalidCrystal: in the place of any other error.
    """
    try:
        return work(*arguments)
    except InvalidCrystal:
        raise
    except Exception as error:
        raise InvalidCrystal(id, f"{type(error).__name__}: {one_line(error)}") from None


def _neighbours(
    crystals: Sequence[Crystal], settings: FeaturiserSettings
) -> list[Neighbours | InvalidCrystal]:
    """`neighbour_lists`, crystal by crystal where it fails on all of them together."""
    try:
        return neighbour_lists(crystals, settings)
    except Exception:
        found: list[Neighbours | InvalidCrystal] = []
        for crystal in crystals:
            try:
                found += _unless_it_fails(crystal.id, neighbour_lists, [crystal], settings)
            except InvalidCrystal as error:
                found.append(error)
        return found


def _valid(result: Any) -> Any:
    if isinstance(result, InvalidCrystal):
        raise result
    return result


def _graph(
    crystal: Crystal, neighbours: Neighbours, settings: FeaturiserSettings
) -> dict[str, Any]:
    """One crystal's share of each column.

    Raises:
      InvalidCrystal: it has no space group.
    """
    n_atoms = len(crystal.species)
    return {
        "ids": np.array(crystal.id),
        "reduced_formula": np.array(crystal.reduced_formula),
        "space_group": np.uint8(space_group_number(crystal, settings.symprec)),
        "lattice": crystal.lattice,
        "species": crystal.species,
        "frac_coords": crystal.frac_coords,
        "degree": np.bincount(neighbours.receivers, minlength=n_atoms).astype(np.uint16),
        "senders": neighbours.senders,
        "distances": neighbours.distances,
        "vectors": neighbours.vectors,
        "n_nodes": np.int64(n_atoms),
        "n_edges": np.int64(len(neighbours.senders)),
    }
