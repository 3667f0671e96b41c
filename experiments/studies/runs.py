"""Runs of a study: each is made once, and found again when the study goes on."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.commands import cli
from crysgnn_jax.training.workdir import CONFIG, environment, read_json

EPOCHS = {100: 300, 300: 300, 1000: 150, 3000: 80, 4000: 80, 10000: 90}
"""Training crystals → passes over them; each run is trained to its end, without early stopping."""


def epochs_for(n_train: int) -> int:
    """Passes over so many training crystals: of the next smaller number in `EPOCHS`."""
    return EPOCHS[max(n for n in (*EPOCHS, 0) if n <= max(n_train, 100))]


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of a command.

    Attributes:
      path: of its workdir.
      command: module of the command.
      flags: all but ``--workdir``.
    """

    path: Path
    command: cli.Command
    flags: Sequence[Any]

    def result(self) -> dict[str, Any]:
        """Content of its ``result.json``, trained where it is not there."""
        file = self.path / "result.json"
        if not file.exists():
            cli.call(self.command, [*map(str, self.flags), "--workdir", str(self.path)])
        return json.loads(file.read_text())

    def commit(self) -> str:
        """By which commit it was made."""
        return read_json(self.path / CONFIG)["environment"]["commit"]


def add_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """Where a study's runs and its record are, and whether to train at all."""
    parser.add_argument("--output", type=Path, default=Path("runs/studies") / name)
    parser.add_argument("--record", type=Path, default=Path(f"results/{name}.json"))
    parser.add_argument("--collect", action="store_true", help="train nothing")


def about(command: Callable[[], str] = cli.command_line) -> dict[str, Any]:
    """What a record says beside its numbers: the command, versions, commit and machine."""
    return {"command": command(), "environment": environment()}


def errors_of(path: Path, split: str = "test") -> dict[str, float]:
    """Crystal → absolute error of a run."""
    import csv

    with open(path / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return {row["id"]: abs(float(row["target"]) - float(row["prediction"])) for row in rows}


def interval_of_gain(
    vanilla: Iterable[Path], distilled: Iterable[Path], n_draws: int = 2000
) -> tuple[float, float]:
    """95 % interval of the gain in %, by drawing seeds and test crystals with replacement.

    Twins are drawn together, so that what makes a crystal hard for both does not count.

    Args:
      vanilla: runs, one a seed.
      distilled: likewise, in the same order.
      n_draws: of the bootstrap.
    """
    generator = np.random.default_rng(0)
    pairs = []
    for ours, theirs in zip(vanilla, distilled):
        a, b = errors_of(ours), errors_of(theirs)
        pairs.append(np.array([[a[id], b[id]] for id in a]))
    gains = []
    for _ in range(n_draws):
        means = []
        for k in generator.integers(0, len(pairs), len(pairs)):
            rows = generator.integers(0, len(pairs[k]), len(pairs[k]))
            means.append(pairs[k][rows].mean(axis=0))
        before, after = np.mean(means, axis=0)
        gains.append(100 * (1 - after / before))
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)
