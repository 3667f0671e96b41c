"""What the commands have in common: flags, data, error messages."""

import argparse
import contextlib
import csv
import dataclasses
import hashlib
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from tqdm import tqdm

from crysgnn_jax.cache import default_cache_dir
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.crystals.sources import Combined, Source, select
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore


class Parser(argparse.ArgumentParser):
    """Reports a bad flag in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def run(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run a command; a `UserError` becomes one line and exit code 2."""
    _use_huge_pages()
    _keep_compiled_steps()
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


def _keep_compiled_steps() -> None:
    """Let JAX keep what it compiles beside the graphs, for the next run of the same shapes.

    Kept apart by machine: a program for one CPU may not run on another that shares the folder. An
    own JAX_COMPILATION_CACHE_DIR is left alone, and an empty one switches it off.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
            default_cache_dir() / "compiled" / _machine_fingerprint()
        )
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**31))


def _machine_fingerprint() -> str:
    """Hex digest of what the CPU can do, as far as the system tells."""
    about = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.blake2b(about.encode(), digest_size=8).hexdigest()


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


def positive_fraction(text: str) -> float:
    """An argparse type: a number above 0 and up to 1."""
    value = fraction(text)
    if value == 0:
        raise ValueError
    return value


positive_fraction.__name__ = "number above 0 and up to 1"

DEFAULT_WEIGHT = 0.5
"""Of the teacher's pull, as published."""


def add_training_flags(
    parser: argparse.ArgumentParser,
    *,
    epochs: int,
    batch_size: int | None,
    learning_rate: float | None,
    seed: bool = True,
) -> None:
    """Flags of every command that trains, with the command's defaults; None: the student's own."""
    own = lambda value: "the student's own" if value is None else value
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
        help=f"crystals of an average batch, a device (default {own(batch_size)})",
    )
    group.add_argument(
        "--learning-rate",
        type=positive(float),
        default=learning_rate,
        metavar="X",
        help=f"highest rate of Adam; it warms up and falls to 0 (default {own(learning_rate)})",
    )
    if seed:
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
    _add_devices_flag(group)


def add_teacher_flags(parser: argparse.ArgumentParser, *, autoencoder: bool = True) -> None:
    """Which networks, trained without labels, to learn from."""
    parser.add_argument(
        "--teacher",
        type=Path,
        default=Path("runs/teacher"),
        metavar="DIR",
        help="a pre-training run, or converted weights (default runs/teacher)",
    )
    if autoencoder:
        parser.add_argument(
            "--autoencoder",
            type=Path,
            metavar="DIR",
            help="for crysxpp: the auto-encoder whose convolutions it starts from (default "
            f"{AUTOENCODER} where there is one, else random weights)",
        )


AUTOENCODER = Path("runs/crysae")
"""Where `experiments.pretrain --teacher crysae` writes."""


def add_label_flags(parser: argparse.ArgumentParser) -> None:
    """What to predict, of which crystals."""
    add_labelled_data_flag(parser)
    parser.add_argument(
        "--property",
        metavar="NAME",
        help="label to predict (default: the data set's own, or the only one there is)",
    )
    add_split_flag(parser)


def add_labelled_data_flag(parser: argparse.ArgumentParser) -> None:
    """Which crystals to learn a property from."""
    parser.add_argument(
        "--data",
        default="formation_energy",
        metavar="NAME|PATH",
        help="data set or path of crystals with labels (default formation_energy)",
    )


def add_split_flag(parser: argparse.ArgumentParser) -> None:
    """How the crystals are divided."""
    parser.add_argument(
        "--split",
        default="random",
        metavar="RULE|FILE",
        help="80/10/10 %% by seed: random, or formula (no reduced formula on two sides); or "
        "column:NAME of the data, such as column:mp2018_split; or the splits.json of another run "
        "(default random)",
    )


def add_record_flag(parser: argparse.ArgumentParser) -> None:
    """A file for the record."""
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="also write the results, with the command, settings and versions, to a JSON file",
    )


def add_student_flags(parser: argparse.ArgumentParser, *, settings: bool = True) -> None:
    """How a property predictor is trained."""
    group = parser.add_argument_group("student")
    if settings:
        group.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a setting of the student's network, such as width=32; may be repeated "
            "(default: as published)",
        )
    group.add_argument(
        "--loss",
        choices=("mse", "smooth_l1", "l1"),
        help="of the property (default: the student's own)",
    )
    group.add_argument(
        "--weight-decay",
        type=not_negative(float),
        metavar="X",
        help="of matrices, decoupled from the gradient (default: the student's own)",
    )
    group.add_argument(
        "--raw-targets",
        action="store_true",
        help="train on targets in their own unit (default: standardised by the training crystals)",
    )
    group.add_argument(
        "--patience",
        type=positive(int),
        default=30,
        metavar="N",
        help="stop after N epochs without a lower validation MAE (default 30)",
    )


def _add_devices_flag(group: Any) -> None:
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
        "--rule",
        choices=("nearest", "bonds"),
        help="edges from each atom's nearest neighbours, or ALIGNN's bonds, in both directions and "
        "with a cutoff that grows where there are too few (default nearest; alignn: bonds)",
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


def add_model_flags(parser: argparse.ArgumentParser, what: str) -> None:
    """A trained model, and the crystals to use it on."""
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help=what)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="data sets or paths of crystals, as --data of the other commands takes them",
    )
    parser.add_argument(
        "--batch-size",
        type=positive(int),
        default=64,
        metavar="N",
        help="crystals of an average batch, a device (default 64)",
    )
    _add_devices_flag(parser)


def model_graphs(args: argparse.Namespace, model) -> FeaturiserSettings:
    """How crystals become graphs for a trained model: as for its training.

    Raises:
      UserError: a flag asks for other graphs.
    """
    featuriser = featuriser_of(args, model.featuriser)
    featuriser.require(model.featuriser, f"the network in {model.path}")
    return model.featuriser


@contextlib.contextmanager
def output(path: Path, mode: str) -> Iterator[IO]:
    """A file to write, there whole or not at all."""
    path = path.resolve()  # a link stays, what it leads to is written
    if path.exists() and not path.is_file():  # a device or pipe
        with open(path, mode) as file:
            yield file
        return
    draft = path.with_name(path.name + ".tmp")
    with open(draft, mode, **({} if "b" in mode else {"newline": ""})) as file:
        yield file
    os.replace(draft, path)


def list_skipped(store: GraphStore, path: Path | None) -> None:
    """Name the crystals that could not be used: beside ``path``, or on standard error."""
    if not store.skipped:
        return
    if path is None:
        for id, reason in store.skipped:
            print(f"skipped {id}: {reason}", file=sys.stderr)
    else:
        listed = path.with_name(f"{path.stem}.skipped.csv")
        write_skipped(store, listed)
        print(f"{len(store.skipped)} crystals skipped, listed in {listed}", file=sys.stderr)


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
        f"{store.n_edges.sum()} edges" + (f"; {n_skipped} skipped" if n_skipped else ""),
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


def command() -> str:
    """This command as a reader would type it: files elsewhere by name, not by where they are."""
    names = [Path(word).name if os.path.isabs(word) else word for word in sys.orig_argv[1:]]
    return shlex.join(["python", *names])


def require_writable(path: Path) -> None:
    """Check that a file can be written at the end of a run, before the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file") from None
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written (permission denied); name another file")


def make_folder(flag: str, path: Path) -> None:
    """Make the folder that a flag names, before a run."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{flag} {path} cannot be written to ({error.strerror}); name another directory"
        ) from None


def announce(devices: object) -> None:
    """Say where the training runs: a GPU that is not used should not go unnoticed."""
    print(f"training on {devices}", file=sys.stderr)


def write_skipped(store: GraphStore, path: Path) -> None:
    """List the crystals that could not be used: ``skipped.csv`` with id and reason."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "reason"])
        writer.writerows(store.skipped)
