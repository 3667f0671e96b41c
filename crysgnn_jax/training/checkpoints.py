"""Checkpoints: the last state, the best weights, and the place in the run, saved as one."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from crysgnn_jax.array_files import Damaged, read_arrays, write_arrays
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import writing

KEPT = 2
"""Saves that are kept: should the last one be damaged, the run goes on from the one before."""

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


class Checkpoints:
    """The directory ``checkpoints/`` of a run: a file ``STEP.npz`` for each of the last saves.

    One file holds everything, so that state, best weights and position never disagree, and it is
    there whole or not at all. Its arrays have checksums, those of the zip.

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
        return self.directory / f"{step}.npz"

    def save(self, last: Any, best: Any, position: Position) -> None:
        """Save the state, the best variables and the position, under the position's step.

        Raises:
          UserError: the disk is full, or cannot be written to; the saves before are kept.
        """
        last, best = jax.tree.map(np.asarray, (last, best))
        arrays = {f"last/{name}": x for name, x in _named(last).items()}
        arrays |= {f"best/{name}": x for name, x in _named(best).items()}
        about = {
            "position": dataclasses.asdict(position),
            "names": list(arrays),
            # NumPy's files know no such numbers as bfloat16, and keep their bytes.
            "dtypes": {name: str(x.dtype) for name, x in arrays.items() if x.dtype.kind == "V"},
            "empty": _empty(best),
        }
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            path = self.path(position.step)
            write_arrays(path, {"about": np.array(json.dumps(about)), **arrays})
        saves = _saves(self.directory)
        for step in sorted(saves)[:-KEPT]:
            _remove(saves[step])

    def restore(self, last: Any, best: Any) -> tuple[Any, Any, Position]:
        """The last save that is whole, as NumPy arrays in the structure of the given trees.

        Raises:
          UserError: what was saved is of another structure or shape, or none is whole.
        """
        damaged: list[tuple[Path, Damaged]] = []
        saves = _saves(self.directory)
        for step in sorted(saves, reverse=True):
            try:
                found = _read(saves[step], last, best)
            except Damaged as error:
                damaged.append((saves[step], error))
                continue
            for path, why in damaged:
                _log.warning("%s is damaged (%s); going on from step %d", path, why, step)
                _remove(path)
            return found
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
        if path.is_dir():
            from crysgnn_jax.training import orbax_checkpoints

            return orbax_checkpoints.read_best(path)
        arrays, about = _arrays(path, "best/")
        tree: dict[Any, Any] = {tuple(name.split("/")): {} for name in about["empty"]}
        tree |= {tuple(name.split("/")[1:]): array for name, array in arrays.items()}
        return traverse_util.unflatten_dict(tree)
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
    """Step → its save: a file, or a folder of a run of version 0.2 and before."""
    return {
        int(path.stem): path
        for path in (directory.iterdir() if directory.is_dir() else ())
        if path.stem.isdecimal() and (path.suffix == ".npz" or not path.suffix and path.is_dir())
    }


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _arrays(path: Path, beginning: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a save, and what else it says.

    Raises:
      Damaged: an array is missing, or does not fit its checksum.
    """
    try:
        about = json.loads(str(read_arrays(path, "about")["about"]))
        arrays = read_arrays(path, beginning)
        arrays.pop("about", None)
        missing = {name for name in about["names"] if name.startswith(beginning)} - arrays.keys()
        dtypes = about["dtypes"]
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"it lacks {error}") from error
    if missing:
        raise Damaged(f"it lacks {min(missing)}")
    arrays = {
        name: x.view(np.dtype(dtypes[name])) if name in dtypes else x for name, x in arrays.items()
    }
    return arrays, about


def _read(path: Path, last: Any, best: Any) -> tuple[Any, Any, Position]:
    trees = {"last": last, "best": best}
    if path.is_dir():
        from crysgnn_jax.training import orbax_checkpoints

        found, position = orbax_checkpoints.read(path, trees)
    else:
        arrays, about = _arrays(path)
        position = about["position"]
        expected = {f"{part}/{name}" for part, tree in trees.items() for name in _named(tree)}
        if expected != arrays.keys():
            raise UserError(
                f"{path} is written by another model or version; start the run again with "
                "`overwrite`"
            )
        found = {part: _filled(tree, arrays, part) for part, tree in trees.items()}
    require_shapes(found["last"], last, path)
    return found["last"], found["best"], Position(**position)


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their place in the tree: ``params/encoder/embedding/kernel``."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _filled(tree: Any, arrays: Mapping[str, np.ndarray], part: str) -> Any:
    taken: Callable = lambda path, _: arrays[f"{part}/{_name(path)}"]
    return jax.tree_util.tree_map_with_path(taken, tree)


def _empty(tree: Any) -> list[str]:
    """Places of a tree of dicts where there is nothing: networks without batch norms have such."""
    flat = traverse_util.flatten_dict(tree, keep_empty_nodes=True)
    return ["/".join(path) for path, x in flat.items() if x is traverse_util.empty_node]


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
