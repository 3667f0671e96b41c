"""From the flags of a command to crystals and their graphs."""

import argparse
import atexit
import contextlib
import dataclasses
import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crysgnn_jax import processes
from crysgnn_jax.bars import Bar
from crysgnn_jax.commands.cli import make_folder
from crysgnn_jax.commands.flags import given
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.readers.standard_input import STANDARD_INPUT, spool
from crysgnn_jax.crystals.sources import Source, select
from crysgnn_jax.errors import InvalidCrystal, UserError
from crysgnn_jax.graphs.build import build_store, store_fingerprint
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.reporting.tables import counted
from crysgnn_jax.training.shipped import label_of
from crysgnn_jax.training.workdir import CONFIG

if TYPE_CHECKING:  # JAX
    from crysgnn_jax.training.predictor import TrainedModel

FIRST = 3
"""Crystals of which the reason is told at once; all of them are listed in a file."""


def limited(source: Source, limit: int | None, label: str | None = None) -> Source:
    """``limit`` crystals of a source, or all of them.

    Args:
      source: the crystals.
      limit: value of ``--limit``.
      label: draw from the crystals that carry it.
    """
    if limit is None:
        return source
    candidates = np.arange(len(source))
    if label is not None:
        candidates = np.flatnonzero(source.labelled(label))
    if limit >= len(candidates):
        return source
    # Always the same draw, whatever the seed: runs with several seeds share one store.
    chosen = np.random.default_rng(0).choice(candidates, limit, replace=False)
    return select(source, np.sort(chosen))


class Graphs:
    """Builds the graphs of crystals, once each, and says what came of it.

    Args:
      args: the command's flags.
      workdir: of the run to be, where what is skipped is listed: the run may not come about.
    """

    def __init__(self, args: argparse.Namespace, workdir: Path | None = None):
        self._args = args
        self._workdir = workdir
        self._stores: dict[str, GraphStore] = {}

    def __call__(self, source: Source, settings: FeaturiserSettings) -> GraphStore:
        """The graph store of a source, built if need be."""
        fingerprint = store_fingerprint(source, settings, self._args.max_atoms)
        if fingerprint not in self._stores:
            store = build_store(
                source,
                settings,
                cache_dir=self._args.cache,
                workers=self._args.workers,
                strict=self._args.strict,
                max_atoms=self._args.max_atoms,
                progress=Progress(f"graphs of {source.name}"),
            )
            n_skipped = len(store.skipped)
            print(
                f"{source.name}: {counted(len(store), 'crystal')}, "
                f"{counted(store.n_nodes.sum(), 'atom')}, "
                f"{counted(store.n_edges.sum(), 'edge')}"
                + (f"; {n_skipped} skipped" if n_skipped else ""),
                file=sys.stderr,
            )
            self._tell(store)
            self._stores[fingerprint] = store
        return self._stores[fingerprint]

    @property
    def stores(self) -> list[GraphStore]:
        """Those that were made, the first of them first."""
        return list(self._stores.values())

    def _tell(self, store: GraphStore) -> None:
        """The first of what is skipped and noted; all of it in files, where there is a place."""
        for kind, entries in (("skipped", store.skipped), ("note on", store.notes)):
            for id, text in entries[:FIRST]:
                print(f"{kind} {id or store.source_name}: {text}", file=sys.stderr)
            if len(entries) > FIRST:
                print(f"… and {len(entries) - FIRST} more", file=sys.stderr)
        if not processes.is_first():
            return
        if store.skipped and self._workdir is not None and not (self._workdir / CONFIG).exists():
            from crysgnn_jax.training.run import write_left_out

            make_folder("workdir", self._workdir)
            write_left_out(store, self._workdir)


@functools.cache
def _standard_input() -> Source:
    """What is piped into this process, by way of a file that is there until it ends."""
    folder = Path(tempfile.mkdtemp(prefix="crysgnn-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found = read(spool(sys.stdin.buffer, folder))
    return select(found, np.arange(len(found)), "standard input")


def source_of(args: argparse.Namespace, label: str | None = None) -> Source:
    """The crystals of ``args.sources`` and ``args.data``.

    Args:
      args: the command's flags.
      label: where a limit is asked for, draw from the crystals that carry it.

    Raises:
      UserError: there are none, or they cannot be read.
    """
    names = [*args.sources, *args.data]
    if not names:
        raise UserError("there is nothing to read; name data sets, folders or files of crystals")
    return limited(read_all(names, "data"), args.limit, label)


def sources_of(args: argparse.Namespace) -> list[Source]:
    """The same, each for itself.

    Raises:
      UserError: as of `source_of`.
    """
    names = [*args.sources, *args.data]
    if not names:
        raise UserError("there is nothing to read; name data sets, folders or files of crystals")
    sources = [read_all([name], "data") for name in names]
    if args.limit is None:
        return sources
    return [limited(read(sources), args.limit)]


def read_all(names: Sequence[str], parameter: str) -> Source:
    """The crystals of several data sets and paths, and of standard input.

    Args:
      names: as ``--data`` takes them.
      parameter: by which the user gave them, for messages.

    Raises:
      UserError: they cannot be read.
    """
    try:
        return read([_standard_input() if name == STANDARD_INPUT else read(name) for name in names])
    except UserError as error:
        raise UserError(str(error).replace("`data`", f"`{parameter}`")) from None


def crystals_of(source: Source) -> Iterator[Crystal]:
    """The usable crystals of a source."""
    for start in range(0, len(source), 1000):
        for item in source.items(start, min(start + 1000, len(source))):
            with contextlib.suppress(InvalidCrystal):
                yield source.decode(item)


def require_graphs(args: argparse.Namespace, model: "TrainedModel") -> None:
    """
    Raises:
      UserError: a flag asks for other graphs than a model was trained with.
    """
    chosen = dataclasses.replace(model.featuriser, **given(args, FeaturiserSettings))
    chosen.require(model.featuriser, f"the network in {label_of(model.path)}")


def graphs_for(args: argparse.Namespace, model: "TrainedModel") -> GraphStore:
    """The graphs of ``args.sources`` and ``args.data``, made as for the training of a model.

    Raises:
      UserError: a flag asks for other graphs, or there are no sources.
    """
    source = source_of(args)
    require_graphs(args, model)
    return Graphs(args)(source, model.featuriser)


def list_skipped(
    stores: Iterable[GraphStore], path: Path | None, more: Sequence[tuple[str, str]] = ()
) -> None:
    """Name what could not be used, and what was noted: beside ``path``, or on standard error the
    rest of what `Graphs` has not told.

    Args:
      stores: the crystals; of several, what is said twice is told once.
      path: of the output.
      more: ``(id, reason)`` of what could not be used although it is in a store.
    """
    from crysgnn_jax.training.run import write_listing

    stores = list(stores)
    found = {
        "skipped": [*(entry for store in stores for entry in store.skipped), *more],
        "notes": [entry for store in stores for entry in store.notes],
    }
    for kind, column in (("skipped", "reason"), ("notes", "note")):
        entries = list(dict.fromkeys(found[kind]))
        listed = None if path is None else path.with_name(f"{path.stem}.{kind}.csv")
        if listed is None:
            word = "skipped" if kind == "skipped" else "note on"
            for id, text in entries[FIRST:]:
                print(f"{word} {id or 'the data'}: {text}", file=sys.stderr)
        elif not entries:
            _remove_listing(listed, column)
        else:
            write_listing(entries, column, listed)
            what = counted(len(entries), "crystal" if kind == "skipped" else "note")
            skipped = " skipped" if kind == "skipped" else ""
            print(f"{what}{skipped}, listed in {listed}", file=sys.stderr)


def _remove_listing(path: Path, column: str) -> None:
    """Take away what an earlier output of this name left beside it, for it says of this one what is
    not so; a file of another kind stays."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with open(path, encoding="utf-8") as file:
            ours = file.readline().strip() == f"id,{column}"
        if ours:
            path.unlink()


class Progress:
    """Shows how far a work is: a bar on a terminal, a line every 10 s otherwise.

    Args:
      what: is being made.
      unit: what is counted.
    """

    def __init__(self, what: str, unit: str = "crystal"):
        self._what = what
        self._unit = unit
        self._bar: Bar | None = None
        self._spoke = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = Bar(self._what, total, f"{self._unit}s", sys.stderr)
            self._bar.update(done)
            if done >= total:
                self._bar.close()
        elif time.monotonic() - self._spoke > 10:
            self._spoke = time.monotonic()
            print(f"{self._what}: {done} of {total}", file=sys.stderr, flush=True)
