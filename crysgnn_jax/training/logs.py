"""What a run writes down and what it shows while it trains."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from crysgnn_jax.files import write_text
from crysgnn_jax.training.checkpoints import Position


class MetricsLog:
    """``metrics.jsonl``: one JSON object a line, flushed as it is written.

    Everything but ``seconds`` and ``time`` is a function of the settings and the seed.
    """

    def __init__(self, path: Path):
        self._path = path

    def truncate(self, position: Position) -> None:
        """Drop the lines after ``position``, which a resumed run is about to write again."""
        if self._path.exists():
            lines = self._text().splitlines(keepends=True)
            write_text(self._path, "".join(line for line in lines if _is_before(line, position)))

    def write(self, values: Mapping[str, Any], *, seconds: float) -> None:
        """Append one line; ``seconds`` is the training time so far."""
        entry = {**values, "seconds": round(seconds, 3), "time": round(time.time(), 3)}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines that can be read."""
        entries = map(_entry, self._text().splitlines())
        return [entry for entry in entries if entry is not None]

    def _text(self) -> str:
        return self._path.read_text(encoding="utf-8", errors="replace")


def _entry(line: str) -> dict[str, Any] | None:
    """What a line says; None where that is not a whole line: the last one of a run that was killed
    while writing it, or a damaged one."""
    try:
        entry = json.loads(line)
        return entry if {"epoch", "step", "seconds"} <= entry.keys() else None
    except (ValueError, AttributeError):
        return None


def _is_before(line: str, position: Position) -> bool:
    entry = _entry(line)
    if entry is None:
        return False
    # A line carries the number of completed epochs: the summary of an epoch comes after a
    # checkpoint made at that epoch's last step.
    return entry["step"] <= position.step and entry["epoch"] <= position.epoch


class Progress:
    """A bar with loss, rate and remaining time on a terminal; a line an epoch otherwise.

    Args:
      epochs: of the run.
      title: what is being trained.
      stream: where to write; None for standard error.
      quiet: show nothing, where the run is one of many.
    """

    def __init__(
        self, epochs: int, title: str, stream: TextIO | None = None, *, quiet: bool = False
    ):
        self._epochs = epochs
        self._title = title
        self._stream = stream or sys.stderr
        self._bar: tqdm | None = None
        self._quiet = quiet

    def say(self, line: str) -> None:
        """A line for the user."""
        if not self._quiet:
            print(line, file=self._stream, flush=True)

    def start_epoch(self, position: Position, total: int) -> None:
        """An epoch of ``total`` steps begins, or goes on after ``position.batch`` of them."""
        if self._stream.isatty() and not self._quiet:
            if self._bar is None:
                self._bar = tqdm(
                    total=self._epochs * total,
                    initial=position.epoch * total + position.batch,
                    desc=self._title,
                    unit="step",
                    file=self._stream,
                    dynamic_ncols=True,
                )
            self._bar.set_description(f"{self._title} epoch {position.epoch + 1}/{self._epochs}")

    def step(self, position: Position, values: Mapping[str, float]) -> None:
        """A step is done."""
        if self._bar is not None:
            self._bar.set_postfix(
                {"loss": f"{values['loss']:.4f}", "crystals/s": f"{_rate(position):.0f}"},
                refresh=False,
            )
            self._bar.update()

    def epoch(
        self,
        position: Position,
        train: Mapping[str, float],
        validation: Mapping[str, float],
        improved: bool,
    ) -> None:
        """An epoch is done."""
        numbers = " ".join(
            f"{name}={value:.4g}"
            for name, value in (
                ("loss", train.get("train_loss", float("nan"))),
                *validation.items(),
            )
        )
        remaining = position.seconds / position.epoch * (self._epochs - position.epoch)
        line = (
            f"{self._title}: epoch {position.epoch}/{self._epochs} {numbers} "
            f"{_rate(position):.0f} crystals/s, {remaining:.0f} s left{' *' if improved else ''}"
        )
        if self._bar is not None:
            tqdm.write(line, file=self._stream)
        elif not self._quiet:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """The run is over."""
        if self._bar is not None:
            self._bar.close()


def _rate(position: Position) -> float:
    return position.timed_crystals / max(position.timed_seconds, 1e-9)
