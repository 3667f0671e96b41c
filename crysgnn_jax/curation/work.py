"""What the workers of a curation do: drafts of shards from crystals, and shards from drafts.

A *draft* is a shard of all usable crystals of a unit, before it is known which of them repeat
others; beside what a shard holds, it has what the crystals are compared by. The functions are at
the top of this module, take what can be sent to other processes and machines, and write files
that are there whole or not at all: each may be called again, whatever became of the last call.
"""

import contextlib
import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.graphs.build import CHUNK_SIZE
from crysgnn_jax.graphs.looks import looks_of
from crysgnn_jax.graphs.making import STEPS, id_of, make_graphs
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.shard_contents import KEPT, contents
from crysgnn_jax.graphs.symmetry import N_SPACE_GROUPS
from crysgnn_jax.shards import Shard, is_remote, narrow, write_shard

SOURCE = "source"
"""Tag of each crystal: the name of what it was read from."""

LOOKS = "looks"
"""Column of a draft, ``look_counts`` entries a crystal: see `looks.Looks`."""

COMPARED = ("id_hash", "formula_hash", "source", "look_counts", LOOKS)
"""Columns of a draft that a shard lacks."""

OF_CRYSTALS = (
    *("ids", "reduced_formula", "space_group", "lattice", "n_edges"),
    *KEPT,
    *(name for names in KEPT.values() for name in names),
)
"""Columns of graphs that are kept of each chunk."""

TOTALS = ("n_nodes", "n_edges", "n_sites", "n_bonds")
"""What the report adds up."""

DEADLY = "reading it, or making its graph, ended the process that did so"
"""Why a crystal is skipped that kills those who work on it."""


@dataclasses.dataclass(frozen=True)
class Making:
    """How drafts are made, the same for all of them.

    Attributes:
      decode: from an item to a crystal.
      sources: names of the sources.
      label_names: of all sources.
      settings: of the graphs.
      max_atoms: crystals with more are left out.
    """

    decode: Callable[[Any], Crystal]
    sources: tuple[str, ...]
    label_names: tuple[str, ...]
    settings: FeaturiserSettings
    max_atoms: int


class Piece(NamedTuple):
    """Items of one source.

    Attributes:
      source: its number.
      items: undecoded.
    """

    source: int
    items: list[Any]


def make_draft(
    making: Making, pieces: Sequence[Piece], path: str, deadly: Sequence[int] = ()
) -> float:
    """Write the draft of a unit.

    Args:
      making: how.
      pieces: the items of the unit, in their order.
      path: of the draft.
      deadly: places in the unit of items that are not to be touched.

    Returns:
      Seconds of writing; those of the other steps stand in the draft.

    Raises:
      OSError: it cannot be written.
    """
    parts: list[dict[str, Any]] = []
    tags: list[dict[str, str]] = []
    skipped: list[tuple[str, str, int]] = []
    notes: list[tuple[str, str]] = []
    read = [0] * len(making.sources)
    seconds = dict.fromkeys((*STEPS, "look"), 0.0)
    for source, items, left_out in _chunks(pieces, frozenset(deadly)):
        read[source] += len(items) + len(left_out)
        skipped += [(id_of(item), DEADLY, source) for item in left_out]
        made = make_graphs(
            making.decode, items, making.settings, making.label_names, making.max_atoms
        )
        for step, taken in made.seconds.items():
            seconds[step] += taken
        skipped += [(id, reason, source) for id, reason in made.skipped]
        notes += made.notes
        if not made.columns:
            continue
        start = time.perf_counter()
        looks = looks_of(made.columns, making.settings.cutoff)
        seconds["look"] += time.perf_counter() - start
        found = {name: made.columns[name] for name in (*OF_CRYSTALS, "labels")}
        found |= {"look_counts": looks.counts, LOOKS: looks.values}
        parts.append(found | {"source": np.full(len(made.tags), source, np.uint16)})
        tags += [{SOURCE: making.sources[source], **tag} for tag in made.tags]
    about = {"read": read, "skipped": skipped, "notes": notes, "seconds": seconds}
    start = time.perf_counter()
    columns: dict[str, np.ndarray] = {}
    texts: Mapping[str, Sequence[str]] = {"ids": []}
    if parts:
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        tag_names = sorted({name for tag in tags for name in tag})
        columns, texts = contents(
            joined,
            dict(zip(making.label_names, joined["labels"].T)),
            {name: [tag.get(name, "") for tag in tags] for name in tag_names},
        )
        columns |= {name: joined[name] for name in ("source", "look_counts", LOOKS)}
        columns |= {
            "id_hash": _hashes(texts["ids"]),
            "formula_hash": _hashes(texts["reduced_formula"]),
        }
    # A store checks its own bytes.
    write_shard(path, columns, texts, about, sums=None if is_remote(path) else sums_of(path))
    return time.perf_counter() - start


def sums_of(draft: str) -> str:
    """Path of the checksums of a draft."""
    return f"{draft.removesuffix('.safetensors')}.json"


def try_items(making: Making, pieces: Sequence[Piece]) -> None:
    """Make the graphs of some items for nothing: to see whether this process outlives it."""
    for _, items, _ in _chunks(pieces, frozenset()):
        make_graphs(making.decode, items, making.settings, making.label_names, making.max_atoms)


def _chunks(
    pieces: Sequence[Piece], deadly: frozenset[int]
) -> Iterator[tuple[int, list[Any], list[Any]]]:
    """Number of the source, items, and those that are left out, of some hundred items at a time."""
    place = 0
    for source, items in pieces:
        for start in range(0, len(items), CHUNK_SIZE):
            chunk = items[start : start + CHUNK_SIZE]
            left_out = {k for k in range(len(chunk)) if place + k in deadly}
            place += len(chunk)
            yield (
                source,
                [item for k, item in enumerate(chunk) if k not in left_out],
                [chunk[k] for k in sorted(left_out)],
            )


def _hashes(texts: Sequence[str]) -> np.ndarray:
    """``[n]`` uint64: equal for equal texts, and as good as never for others."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8")


@dataclasses.dataclass(frozen=True)
class Made:
    """A finished shard.

    Attributes:
      entry: of `curated.write_curated`, but for ``file``.
      tag_names: those that it has.
      facts: what the report counts, see `facts_of`.
    """

    entry: dict[str, Any]
    tag_names: tuple[str, ...]
    facts: dict[str, np.ndarray]


def make_shard(draft: str, keep: np.ndarray, path: str) -> Made:
    """Write a shard of some crystals of a draft.

    Args:
      draft: path of the draft.
      keep: ``[n]`` bool, which of its crystals stay: one at least.
      path: of the shard.

    Raises:
      UserError: the draft is missing or damaged.
      OSError: the shard cannot be written.
    """
    with _opened(draft) as shard:
        columns, texts = _chosen(shard, keep)
        entry = write_shard(path, columns, texts, {})
    tags = tuple(name.removeprefix("tags/") for name in texts if name.startswith("tags/"))
    return Made(entry, tags, facts_of(columns))


def about_of(draft: str) -> dict[str, Any]:
    """What became of the items of a draft: how many were ``read`` of each source, and the
    ``skipped`` among them, as of `make_draft`.

    Raises:
      UserError: the draft is missing or damaged.
    """
    with _opened(draft) as shard:
        return shard.about


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Shard]:
    """A shard; a remote one is fetched for as long as it is looked at."""
    if not is_remote(path):
        yield Shard(path)
        return
    with tempfile.TemporaryDirectory(prefix="crysgnn-") as folder:
        yield Shard(path, folder)


def _chosen(
    draft: Shard, keep: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Sequence[str]]]:
    """Columns and texts of a shard, of the crystals of a draft that stay."""
    rows: dict[str, np.ndarray] = {}
    for count, names in KEPT.items():
        rows |= dict.fromkeys(names, np.repeat(keep, draft.columns[count]))
    columns = {
        name: narrow(values[rows.get(name, keep)])
        for name, values in draft.columns.items()
        if name not in COMPARED and name != LOOKS
    }
    for name in [name for name in columns if name.startswith("labels/")]:
        if np.isnan(columns[name]).all():
            del columns[name]
    texts: dict[str, Sequence[str]] = {}
    for name in draft.text_names:
        entries = draft.texts(name)[keep].tolist()
        if any(entries):
            texts[name] = entries
    return columns, texts


def facts_of(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the report counts of some crystals: things that add up.

    Returns:
      ``elements`` ``[128]``, crystals that hold the element of each atomic number;
      ``space_groups`` ``[231]``; ``n_atoms``, crystals of so many atoms; and ``totals``, numbers of
      atoms, edges, sites and bonds.
    """
    counts = {name: np.asarray(columns[name], np.int64) for name in ("n_nodes", "n_sites")}
    crystal = np.repeat(np.arange(len(counts["n_sites"])), counts["n_sites"])
    held = np.unique(crystal * 128 + columns["site_species"]) % 128
    totals = [columns[name].sum(dtype=np.int64) for name in TOTALS]
    return {
        "elements": np.bincount(held, minlength=128),
        "space_groups": np.bincount(columns["space_group"], minlength=N_SPACE_GROUPS + 1),
        "n_atoms": np.bincount(counts["n_nodes"]),
        "totals": np.array(totals, np.int64),
    }
