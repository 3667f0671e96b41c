"""What the commands have in common: flags, data, error messages."""

import argparse
import csv
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from crysgnn_jax.data.datasets import Combined, select
from crysgnn_jax.data.readers import open_source
from crysgnn_jax.data.settings import FeaturiserSettings
from crysgnn_jax.data.source import Source
from crysgnn_jax.data.store import GraphStore, build_store
from crysgnn_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """Reports a bad flag in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def run(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run a command; a `UserError` becomes one line and exit code 2."""
    _use_huge_pages()
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs every save
    try:
        main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "interrupted; the same command, without --overwrite, goes on from the last checkpoint",
            file=sys.stderr,
        )
        sys.exit(130)


def _use_huge_pages() -> None:
    """Start the process again with huge pages for large allocations.

    On a CPU, a third of a training step is page faults otherwise, and glibc reads the setting at
    the start of a process only. An own GLIBC_TUNABLES is left alone.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def positive(kind: type) -> Callable[[str], float]:
    """An argparse type: a number greater than 0."""

    def convert(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    convert.__name__ = f"{kind.__name__} greater than 0"
    return convert


def not_negative(kind: type) -> Callable[[str], float]:
    """An argparse type: a number of at least 0."""

    def convert(text: str):
        value = kind(text)
        if not 0 <= value < float("inf"):
            raise ValueError
        return value

    convert.__name__ = f"{kind.__name__} of at least 0"
    return convert


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


fraction.__name__ = "number from 0 to 1"


def add_training_flags(
    parser: argparse.ArgumentParser, *, epochs: int, batch_size: int, learning_rate: float
) -> None:
    """Flags of every command that trains, with the command's defaults."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--epochs",
        type=positive(int),
        default=epochs,
        metavar="N",
        help=f"passes over the training crystals (default {epochs})",
    )
    group.add_argument(
        "--batch-size",
        type=positive(int),
        default=batch_size,
        metavar="N",
        help=f"crystals of an average batch, a device (default {batch_size})",
    )
    group.add_argument(
        "--learning-rate",
        type=positive(float),
        default=learning_rate,
        metavar="X",
        help=f"highest rate of Adam; it warms up and falls to 0 (default {learning_rate})",
    )
    group.add_argument(
        "--seed",
        type=not_negative(int),
        default=0,
        metavar="N",
        help="of weights, splits and order; the same seed gives the same run (default 0)",
    )
    group.add_argument(
        "--log-every",
        type=positive(int),
        default=50,
        metavar="N",
        help="steps between lines of metrics.jsonl (default 50)",
    )
    group.add_argument(
        "--checkpoint-seconds",
        type=not_negative(float),
        default=20.0,
        metavar="X",
        help="save no more often than every X seconds; what a kill can cost (default 20)",
    )
    group.add_argument(
        "--devices",
        type=positive(int),
        metavar="N",
        help="local devices to use, one batch each (default: all)",
    )


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that decide how crystals become graphs."""
    group = parser.add_argument_group("crystals and graphs")
    group.add_argument(
        "--limit",
        type=positive(int),
        metavar="N",
        help="use only N crystals, drawn at random, always the same (default: all)",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="make a bad crystal an error instead of skipping and listing it",
    )
    group.add_argument(
        "--n-neighbours",
        type=positive(int),
        metavar="N",
        help="nearest neighbours an atom is connected to (default 12)",
    )
    group.add_argument(
        "--cutoff",
        type=positive(float),
        metavar="X",
        help="distance beyond which no atom is a neighbour, Å (default 8)",
    )
    group.add_argument(
        "--ties",
        choices=("keep", "cut"),
        help="keep every neighbour tied with the last, or cut at exactly N by input order as the "
        "published codes do (default keep)",
    )
    group.add_argument(
        "--tie-tolerance",
        type=not_negative(float),
        metavar="X",
        help="distances closer than this are tied, Å (default 0.001)",
    )
    group.add_argument(
        "--symprec",
        type=positive(float),
        metavar="X",
        help="tolerance of the space-group search, Å (default 0.01)",
    )
    group.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where graphs are kept (default $CRYSGNN_CACHE or ~/.cache/crysgnn_jax)",
    )
    group.add_argument(
        "--workers",
        type=positive(int),
        metavar="N",
        help="processes that build graphs (default: one a CPU core)",
    )


def add_run_flags(parser: argparse.ArgumentParser, workdir: str) -> None:
    """Flags of the run's directory."""
    group = parser.add_argument_group("run")
    group.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help=f"where the run is written; an interrupted one goes on (default {workdir})",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the run that --workdir holds, and start anew",
    )


def featuriser_of(args: argparse.Namespace, base: FeaturiserSettings) -> FeaturiserSettings:
    """``base`` with the flags that were given."""
    given = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(FeaturiserSettings)
        if getattr(args, field.name) is not None
    }
    return dataclasses.replace(base, **given)


def open_data(data: Sequence[str]) -> Source:
    """The crystals behind one or several values of ``--data``."""
    sources = [open_source(name) for name in data]
    return sources[0] if len(sources) == 1 else Combined(sources)


def graphs(
    args: argparse.Namespace,
    source: Source,
    settings: FeaturiserSettings,
    label: str | None = None,
) -> GraphStore:
    """The graph store of a source, built if need be.

    Args:
      args: the command's flags.
      source: the crystals.
      settings: of the graphs.
      label: with ``--limit``, draw from the crystals that carry it.
    """
    if args.limit is not None:
        source = _limited(source, args.limit, label)
    store = build_store(
        source,
        settings,
        cache_dir=args.cache,
        workers=args.workers,
        strict=args.strict,
        progress=GraphProgress(source.name),
    )
    n_skipped = len(store.skipped)
    print(
        f"{source.name}: {len(store)} crystals, {store.n_nodes.sum()} atoms, "
        f"{store.n_edges.sum()} edges"
        + (f"; {n_skipped} skipped, listed in skipped.csv" if n_skipped else ""),
        file=sys.stderr,
    )
    return store


def _limited(source: Source, limit: int, label: str | None) -> Source:
    candidates = np.arange(len(source))
    if label is not None:
        candidates = np.flatnonzero(source.labelled(label))
    if limit >= len(candidates):
        return source
    # Always the same draw, whatever the seed: runs with several seeds share one store.
    chosen = np.random.default_rng(0).choice(candidates, limit, replace=False)
    return select(source, np.sort(chosen))


class GraphProgress:
    """Shows how far a store is: a bar on a terminal, a line every 10 s otherwise."""

    def __init__(self, name: str):
        self._name = name
        self._bar: tqdm | None = None
        self._spoke = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(total=total, desc=f"graphs of {self._name}", unit="crystal")
            self._bar.update(done - self._bar.n)
            if done >= total:
                self._bar.close()
        elif time.monotonic() - self._spoke > 10:
            self._spoke = time.monotonic()
            print(f"graphs of {self._name}: {done} of {total}", file=sys.stderr, flush=True)


def require_writable(path: Path) -> None:
    """Check that a file can be written at the end of a run, before the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a"):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file") from None


def announce(devices: object) -> None:
    """Say where the training runs: a GPU that is not used should not go unnoticed."""
    print(f"training on {devices}", file=sys.stderr)


def write_skipped(store: GraphStore, path: Path) -> None:
    """List the crystals that could not be used: ``skipped.csv`` with id and reason."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "reason"])
        writer.writerows(store.skipped)
