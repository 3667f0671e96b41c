"""From the flags of a command to crystals and their graphs."""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from crysgnn_jax.commands.flags import given
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import Source, select
from crysgnn_jax.graphs.build import build_store, store_fingerprint
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.run import write_skipped


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
    """

    def __init__(self, args: argparse.Namespace):
        self._args = args
        self._stores: dict[str, GraphStore] = {}

    def __call__(self, source: Source, settings: FeaturiserSettings) -> GraphStore:
        """The graph store of a source, built if need be."""
        fingerprint = store_fingerprint(source, settings)
        if fingerprint not in self._stores:
            store = build_store(
                source,
                settings,
                cache_dir=self._args.cache,
                workers=self._args.workers,
                strict=self._args.strict,
                progress=GraphProgress(source.name),
            )
            n_skipped = len(store.skipped)
            print(
                f"{source.name}: {len(store)} crystals, {store.n_nodes.sum()} atoms, "
                f"{store.n_edges.sum()} edges" + (f"; {n_skipped} skipped" if n_skipped else ""),
                file=sys.stderr,
            )
            self._stores[fingerprint] = store
        return self._stores[fingerprint]


def graphs_for(args: argparse.Namespace, model: TrainedModel) -> GraphStore:
    """The graphs of ``args.sources``, made as for the training of a model.

    Raises:
      UserError: a flag asks for other graphs.
    """
    chosen = dataclasses.replace(model.featuriser, **given(args, FeaturiserSettings))
    chosen.require(model.featuriser, f"the network in {model.path}")
    return Graphs(args)(limited(read(args.sources), args.limit), model.featuriser)


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
