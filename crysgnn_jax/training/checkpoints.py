"""Checkpoints: the last state, the best weights, and the place in the run, saved as one."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from crysgnn_jax.errors import UserError


@dataclasses.dataclass
class Position:
    """Where a run is, and what it has seen so far.

    Attributes:
      epoch: epochs completed.
      batch: steps taken of the next epoch.
      step: steps taken in all.
      best_score: lowest validation score; +∞ before the first.
      best_epoch: the epoch (from 1) that reached it.
      sums: metrics summed over the crystals of the unfinished epoch, and their number.
      seconds: time spent on the run, over all its sessions.
      timed_crystals: crystals trained on, repeats counted, each session's first step left out.
      timed_seconds: time spent on them: assembling, stepping, waiting.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_score: float = float("inf")
    best_epoch: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    timed_crystals: int = 0
    timed_seconds: float = 0.0


_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OSError)
"""What orbax raises for checkpoints with missing, cut or foreign files."""


def _handlers() -> dict[str, Any]:
    """Item of a save → what reads and writes it."""
    return {
        "last": ocp.StandardCheckpointHandler(),
        "best": ocp.StandardCheckpointHandler(),
        "position": ocp.JsonCheckpointHandler(),
    }


class Checkpoints:
    """The directory ``checkpoints/`` of a run.

    One save holds everything, so that state, best weights and position never disagree. Saving is
    atomic (a save cut short is ignored) and goes on in the background.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=_handlers(),
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True),
        )

    @property
    def last_step(self) -> int | None:
        """Step of the last complete save; None if there is none."""
        return self._manager.latest_step()

    def save(self, last: Any, best: Any, position: Position) -> None:
        """Save the state, the best variables and the position, under the position's step."""
        self._manager.save(
            position.step,
            args=ocp.args.Composite(
                last=ocp.args.StandardSave(last),
                best=ocp.args.StandardSave(best),
                position=ocp.args.JsonSave(dataclasses.asdict(position)),
            ),
        )

    def restore(self, last: Any, best: Any) -> tuple[Any, Any, Position]:
        """The last save, as NumPy arrays in the structure of the given trees.

        Raises:
          UserError: what was saved is of another structure or shape.
        """
        try:
            found = self._manager.restore(
                self.last_step,
                args=ocp.args.Composite(
                    last=ocp.args.StandardRestore(_host(last)),
                    best=ocp.args.StandardRestore(_host(best)),
                    position=ocp.args.JsonRestore(),
                ),
            )
        except _DAMAGE as error:
            raise UserError(
                f"{self.directory} is damaged, or written by another model or version; start the "
                "run again with `overwrite`"
            ) from error
        require_shapes(found.last, last, self.directory)
        return found.last, found.best, Position(**found.position)

    def wait(self) -> None:
        """Return when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def restore_best(directory: Path) -> Any:
    """The best variables of a run, as NumPy arrays.

    Raises:
      UserError: there is no complete checkpoint, or it is damaged.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise UserError(f"{directory.parent} has no checkpoint; train it first")
    options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
    with _quietly():
        return _restore_best(directory, options)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without orbax's warning that what is opened for reading is read only."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _restore_best(directory: Path, options: ocp.CheckpointManagerOptions) -> Any:
    with ocp.CheckpointManager(directory, item_handlers=_handlers(), options=options) as manager:
        step = manager.latest_step()
        if step is None:
            raise UserError(f"{directory.parent} has no complete checkpoint; train it first")
        try:
            target = jax.tree.map(
                lambda leaf: np.zeros(leaf.shape, leaf.dtype), _tree_metadata(manager, step)
            )
            args = ocp.args.Composite(best=ocp.args.StandardRestore(target))
            return manager.restore(step, args=args).best
        except _DAMAGE as error:
            raise UserError(
                f"{directory / str(step)} is damaged; train {directory.parent} again"
            ) from error


def _tree_metadata(manager: ocp.CheckpointManager, step: int) -> Any:
    metadata = manager.item_metadata(step)["best"]
    return getattr(metadata, "tree", metadata)


def _host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def require_shapes(found: Any, expected: Any, directory: Path) -> None:
    """Check that a restored tree has the arrays that a model expects.

    Raises:
      UserError: names the first array that differs, and both shapes.
    """
    ours, theirs = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (expected, found))
    )
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"{directory}: {name} is {theirs.get(name, 'missing')} in the checkpoint and "
                f"{ours.get(name, 'missing')} in the model; use the model it was trained with"
            )
