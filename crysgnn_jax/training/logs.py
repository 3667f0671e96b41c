"""What a run writes down and what it shows while it trains."""

import json
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from crysgnn_jax.bars import Bar
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_text
from crysgnn_jax.training.settings import TrainingSettings
from crysgnn_jax.training.workdir import TENSORBOARD, WANDB

if TYPE_CHECKING:  # it imports JAX, without which a log can be read
    from crysgnn_jax.training.checkpoints import Position


class Log(Protocol):
    """What a run says while it trains: `MetricsLog`, or `NoLog`."""

    def truncate(self, position: "Position") -> None:
        """Lines after ``position`` follow."""

    def write(self, values: Mapping[str, Any], *, seconds: float) -> None:
        """A line."""

    def close(self, *, failed: bool = False) -> None:
        """No more lines follow."""


class NoLog:
    """Of a process that leaves it to another one."""

    def truncate(self, position: "Position") -> None:
        pass

    def write(self, values: Mapping[str, Any], *, seconds: float) -> None:
        pass

    def close(self, *, failed: bool = False) -> None:
        pass


class Tracker(Protocol):
    """What else the lines of `MetricsLog` go to, while they are written."""

    def start(self, step: int) -> None:
        """Lines after ``step`` follow, whatever was written of them before."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Take one line of ``metrics.jsonl``."""

    def close(self, *, failed: bool) -> None:
        """No more lines follow."""


class MetricsLog:
    """``metrics.jsonl``: one JSON object a line, flushed as it is written.

    Everything but ``seconds`` and ``time`` is a function of the settings and the seed.

    Args:
      path: of the file.
      trackers: that are told of each line too. `truncate` starts them.
    """

    def __init__(self, path: Path, trackers: Sequence[Tracker] = ()):
        self._path = path
        self._trackers = trackers

    def truncate(self, position: "Position") -> None:
        """Drop the lines after ``position``, which a resumed run is about to write again."""
        if self._path.exists():
            lines = self._text().splitlines(keepends=True)
            write_text(self._path, "".join(line for line in lines if _is_before(line, position)))
        for tracker in self._trackers:
            tracker.start(position.step)

    def write(self, values: Mapping[str, Any], *, seconds: float) -> None:
        """Append one line; ``seconds`` is the training time so far."""
        entry = {**values, "seconds": round(seconds, 3), "time": round(time.time(), 3)}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        for tracker in self._trackers:
            tracker.write(entry)

    def close(self, *, failed: bool = False) -> None:
        """No more lines follow."""
        for tracker in self._trackers:
            tracker.close(failed=failed)

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


def _is_before(line: str, position: "Position") -> bool:
    entry = _entry(line)
    if entry is None:
        return False
    # A line carries the number of completed epochs: the summary of an epoch comes after a
    # checkpoint made at that epoch's last step.
    return entry["step"] <= position.step and entry["epoch"] <= position.epoch


MEASURED = 5
"""Steps, after the first one is compiled, by which it is told how long a run takes."""


def trackers_of(
    settings: TrainingSettings, workdir: Path, about: Mapping[str, Any]
) -> list[Tracker]:
    """Those that the settings ask for.

    Args:
      settings: of the run.
      workdir: of the run, into which they write too.
      about: what the run was made with.
    """
    found: list[Tracker] = []
    if settings.tensorboard:
        found.append(TensorBoard(workdir))
    if settings.wandb:
        found.append(WeightsAndBiases(settings.wandb, workdir, about))
    return found


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """What a line measures, under names as trackers group them: ``train/mae``, ``step/loss``."""
    out = {}
    for name, value in line.items():
        if name not in ("epoch", "step", "time"):
            side, _, rest = name.partition("_")
            grouped = f"{side}/{rest}" if side in ("train", "validation") else f"step/{name}"
            out[grouped] = value
    return {**out, "epoch": line["epoch"]}


class TensorBoard:
    """Event files for TensorBoard, in the folder ``tensorboard`` of a run."""

    def __init__(self, workdir: Path):
        self._folder = workdir / TENSORBOARD
        self._writer: Any = None

    def start(self, step: int) -> None:
        from tensorboardX import SummaryWriter

        # What a run that was killed had written after its last save is not shown.
        purge = {"purge_step": step + 1} if self._folder.exists() else {}
        # Files are named by the second, in which a session may end and the next begin.
        self._writer = SummaryWriter(str(self._folder), filename_suffix=f".{step}", **purge)

    def write(self, line: Mapping[str, Any]) -> None:
        for name, value in _numbers(line).items():
            self._writer.add_scalar(name, value, line["step"], walltime=line["time"])
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of a project of Weights & Biases. A run that goes on is the same one there.

    Args:
      project: its name.
      workdir: of the run.
      about: what the run was made with.
    """

    def __init__(self, project: str, workdir: Path, about: Mapping[str, Any]):
        self._project, self._workdir, self._about = project, workdir, about
        self._run: Any = None

    def start(self, step: int) -> None:
        import wandb

        folder = self._workdir / WANDB
        folder.mkdir(exist_ok=True)
        kept = folder / "crysgnn-run-id"
        if not kept.exists():
            write_text(kept, secrets.token_hex(8))
        try:
            # Several runs may be under way in one process, each on a device.
            self._run = wandb.init(
                project=self._project,
                name=str(self._workdir),
                id=kept.read_text(),
                resume="allow",
                dir=str(self._workdir),
                config=dict(self._about),
                reinit="create_new",
            )
        except wandb.Error as error:
            first = str(error).strip().split("\n")[0].rstrip(".")
            raise UserError(
                f"`wandb` {self._project}: {first}; with WANDB_MODE=offline it is kept here"
            ) from error

    def write(self, line: Mapping[str, Any]) -> None:
        self._run.log(_numbers(line), step=line["step"])

    def close(self, *, failed: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


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
        self._bar: Bar | None = None
        self._quiet = quiet
        self._steps_per_epoch = 0
        self._beside = 0.0
        self._steps = 0
        self._timed_before = 0.0

    def say(self, line: str) -> None:
        """A line for the user."""
        if self._bar is not None:
            self._bar.say(line)
        elif not self._quiet:
            print(line, file=self._stream, flush=True)

    def begin(self, plan: str, beside: float = 0.0) -> None:
        """A run begins, or goes on.

        Args:
          plan: what will be done.
          beside: how long what comes between the steps of an epoch takes, as a part of what these
            take: the validation.
        """
        self._beside = beside
        self.say(f"{self._title}: {plan}")

    def start_epoch(self, position: "Position", total: int) -> None:
        """An epoch of ``total`` steps begins, or goes on after ``position.batch`` of them."""
        self._steps_per_epoch = total
        if self._stream.isatty() and not self._quiet:
            if self._bar is None:
                done = position.epoch * total + position.batch
                self._bar = Bar(self._title, self._epochs * total, "steps", self._stream, done)
            self._bar.describe(f"{self._title} epoch {position.epoch + 1}/{self._epochs}")

    def step(self, position: "Position", values: Mapping[str, float]) -> None:
        """A step is done."""
        self._steps += 1
        if self._steps == 1:  # which was compiled
            self._timed_before = position.timed_seconds
        if self._steps == 1 + MEASURED:
            seconds = (position.timed_seconds - self._timed_before) / MEASURED
            done = position.epoch * self._steps_per_epoch + position.batch
            left = self._epochs * self._steps_per_epoch - done
            self.say(
                f"{self._title}: about {duration(seconds * left * (1.0 + self._beside))} for "
                f"{left:,} more steps of {1000 * seconds:.3g} ms"
            )
        if self._bar is not None:
            self._bar.update(status=f"loss {values['loss']:.4f}, {_rate(position):.0f} crystals/s")

    def epoch(
        self,
        position: "Position",
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
        self.say(
            f"{self._title}: epoch {position.epoch}/{self._epochs} {numbers} "
            f"{_rate(position):.0f} crystals/s, {remaining:.0f} s left{' *' if improved else ''}"
        )

    def close(self) -> None:
        """The run is over."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """A time as people say it: ``8 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _rate(position: "Position") -> float:
    return position.timed_crystals / max(position.timed_seconds, 1e-9)
