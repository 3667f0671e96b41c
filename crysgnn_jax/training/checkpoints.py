"""Checkpoints: last state, best weights and the place in the run, saved as one, by orbax."""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

from crysgnn_jax import processes
from crysgnn_jax.array_files import Damaged
from crysgnn_jax.checksums import checksums, first_damaged
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_json, writing

KEPT = 2
"""Saves that are kept: should the last one be damaged, the run goes on from the one before."""

CHECKSUMS = "checksums.json"
"""In the folder of a save; saves of version 0.2 and before have none."""

_DRAFT = ".draft"

_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OSError)
"""What orbax raises for checkpoints with missing, cut or foreign files."""

_log = logging.getLogger(__name__)


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
      restarted_epoch: epochs completed when it last went on for more than it had been given; 0
        where it has not.
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
    restarted_epoch: int = 0


class Checkpoints:
    """The directory ``checkpoints/`` of a run: a folder ``STEP`` for each of the last saves.

    One save holds everything, so that state, best weights and position never disagree. It is there
    whole or not at all, and has checksums.

    Args:
      directory: made with the first save.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory).absolute()

    @property
    def last_step(self) -> int | None:
        """Step of the last save; None if there is none."""
        return max(_saves(self.directory), default=None)

    def path(self, step: int) -> Path:
        """Of the save of a step."""
        return self.directory / str(step)

    def save(self, last: Any, best: Any, position: Position) -> None:
        """Save the state, the best variables and the position, under the position's step.

        Raises:
          UserError: the disk is full, or cannot be written to; the saves before are kept.
        """
        path = self.path(position.step)
        draft = path.with_name(path.name + _DRAFT)
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            for left in self.directory.glob(f"*{_DRAFT}*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            _require_room(self.directory, (last, best))
            try:
                _write(draft, last, best, position)
                names = [str(x.relative_to(draft)) for x in draft.rglob("*") if x.is_file()]
                write_json(draft / CHECKSUMS, checksums(draft, sorted(names)))
                if path.exists():
                    shutil.rmtree(path)
                os.replace(draft, path)
            except BaseException:
                for left in self.directory.glob(f"{draft.name}*"):
                    shutil.rmtree(left, ignore_errors=True)
                raise
        saves = _saves(self.directory)
        for step in sorted(saves)[:-KEPT]:
            shutil.rmtree(saves[step], ignore_errors=True)

    def restore(self, last: Any, best: Any) -> tuple[Any, Any, Position]:
        """The last save that is whole, as NumPy arrays in the structure of the given trees.

        Raises:
          UserError: what was saved is of another structure or shape, or none is whole.
        """
        damaged: list[tuple[Path, Damaged]] = []
        saves = _saves(self.directory)
        for step in sorted(saves, reverse=True):
            try:
                found = _read(saves[step], {"last": last, "best": best})
            except Damaged as error:
                damaged.append((saves[step], error))
                continue
            for path, why in damaged:
                _log.warning("%s is damaged (%s); going on from step %d", path, why, step)
                shutil.rmtree(path, ignore_errors=True)
            require_shapes(found["last"], last, saves[step])
            return found["last"], found["best"], Position(**found["position"])
        path, why = damaged[0]
        raise UserError(f"{path} is damaged ({why}); start the run again with `overwrite`")


def restore_best(directory: Path) -> Any:
    """The best variables of a run, as NumPy arrays.

    Raises:
      UserError: there is no complete checkpoint, or it is damaged.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise UserError(f"{directory.parent} has no checkpoint; train it first")
    saves = _saves(directory)
    if not saves:
        raise UserError(f"{directory.parent} has no complete checkpoint; train it first")
    path = saves[max(saves)]
    try:
        return _read(path, {"best": None})["best"]
    except Damaged as error:
        remedy = f"train {directory.parent} again, with `overwrite`"
        if len(saves) > 1:
            remedy = (
                f"delete {directory.parent / 'result.json'}, and the command that trained it goes "
                "on from the checkpoint before"
            )
        raise UserError(
            f"{path}, which holds the best weights, is damaged ({error}); {remedy}"
        ) from error


def _saves(directory: Path) -> dict[int, Path]:
    """Step → the folder of its save."""
    content = directory.iterdir() if directory.is_dir() else ()
    return {int(path.name): path for path in content if path.name.isdecimal() and path.is_dir()}


def _checkpointer() -> "ocp.Checkpointer":
    """Of orbax, for the parts of a save. It returns when all is on disk: that takes a tenth of a
    second here, and a save in the background may be lost where the process ends."""
    import orbax.checkpoint as ocp

    alone: dict[str, Any] = {}
    composite = {}
    if processes.count() > 1:  # orbax would wait for the others, which have no part in this
        me = processes.number()
        options = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
        alone = {"multiprocessing_options": options}
        composite = {"composite_options": ocp.CompositeOptions(**alone)}
    return ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(
            **composite,
            last=ocp.StandardCheckpointHandler(**alone),
            best=ocp.StandardCheckpointHandler(**alone),
            position=ocp.JsonCheckpointHandler(**alone),
        ),
        **alone,
    )


def _require_room(directory: Path, trees: Any) -> None:
    """
    Raises:
      OSError: the disk is too full for a save. Orbax would tell it by a hundred lines.
    """
    needed = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(trees)) + 2**16
    if shutil.disk_usage(directory).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _write(path: Path, last: Any, best: Any, position: Position) -> None:
    """Have orbax write a save to a folder.

    Raises:
      OSError: the disk is full, or cannot be written to.
    """
    import orbax.checkpoint as ocp  # a second, which few commands need

    args = ocp.args.Composite(
        last=ocp.args.StandardSave(_host(last)),
        best=ocp.args.StandardSave(_host(best)),
        position=ocp.args.JsonSave(dataclasses.asdict(position)),
    )
    try:
        with _quietly(), contextlib.closing(_checkpointer()) as checkpointer:
            checkpointer.save(path, args=args)
    except Exception as error:
        # What writes for orbax says in its text alone what the system has said.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path.parent)) from error


def _read(path: Path, trees: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a save, as NumPy arrays, and its position.

    Args:
      path: the folder of the step.
      trees: part → a tree of its structure; None for the structure that it has.

    Raises:
      Damaged: a file is missing, holds other bytes than were written, or orbax cannot read it.
      UserError: a part has another structure.
    """
    import orbax.checkpoint as ocp

    _check(path)
    try:
        with _quietly(), contextlib.closing(_checkpointer()) as checkpointer:
            metadata = checkpointer.metadata(path).item_metadata
            args = {}
            for name, tree in trees.items():
                there = getattr(metadata[name], "tree", metadata[name])
                if tree is not None and _places(tree) != _places(there):
                    raise UserError(
                        f"{path} is written by another model or version; start the run again with "
                        "`overwrite`"
                    )
                # Of the shapes that are there: `require_shapes` names what differs.
                blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), there)
                args[name] = ocp.args.StandardRestore(blank)
            found = checkpointer.restore(
                path, args=ocp.args.Composite(**args, position=ocp.args.JsonRestore())
            )
    except _DAMAGE as error:
        first = str(error).strip().split("\n")[0]
        raise Damaged(first or type(error).__name__) from error
    parts = {name: found[name] for name in trees}
    for name, tree in trees.items():
        if tree is not None:
            parts[name] = jax.tree.unflatten(jax.tree.structure(tree), _leaves(tree, parts[name]))
    return {**parts, "position": found["position"]}


def _check(path: Path) -> None:
    """
    Raises:
      Damaged: the files of a save are not those that were written.
    """
    try:
        known = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        damage = first_damaged(path, known)
    except FileNotFoundError:
        return  # a save of version 0.2 or before
    except (ValueError, TypeError, KeyError, AttributeError):
        damage = "its checksums are lost"
    if damage is not None:
        raise Damaged(damage)


def _places(tree: Any) -> set[str]:
    return {_place(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def _leaves(tree: Any, found: Any) -> list[Any]:
    """The leaves of ``found``, a tree of dicts, in the order of those of ``tree``."""
    by_place = {_place(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found)}
    return [by_place[_place(path)] for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _place(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what orbax says beside its exceptions: every save, and tracebacks of its threads."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels, hook = [logger.level for logger in loggers], threading.excepthook
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = hook
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


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
