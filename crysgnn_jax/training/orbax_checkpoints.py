"""Checkpoints of runs of version 0.2 and before, which were written by orbax: reading alone."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from crysgnn_jax.array_files import Damaged

_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OSError)
"""What orbax raises for checkpoints with missing, cut or foreign files."""


def read(path: Path, trees: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A save: ``last`` and ``best`` in the structure of given trees, and the position.

    Args:
      path: the folder of the step.
      trees: by the names ``last`` and ``best``.

    Raises:
      Damaged: a file is missing or cut, or of another structure.
    """
    args = {
        name: ocp.args.StandardRestore(jax.tree.map(np.asarray, tree))
        for name, tree in trees.items()
    }
    with _opened(path) as manager:
        found = manager.restore(
            int(path.name), args=ocp.args.Composite(**args, position=ocp.args.JsonRestore())
        )
        return {name: found[name] for name in trees}, found.position


def read_best(path: Path) -> Any:
    """The best variables, as NumPy arrays.

    Raises:
      Damaged: a file is missing or cut.
    """
    with _opened(path) as manager:
        metadata = manager.item_metadata(int(path.name))["best"]
        target = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype), getattr(metadata, "tree", metadata)
        )
        args = ocp.args.Composite(best=ocp.args.StandardRestore(target))
        return manager.restore(int(path.name), args=args).best


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ocp.CheckpointManager]:
    options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
    handlers: dict[str, Any] = {
        "last": ocp.StandardCheckpointHandler(),
        "best": ocp.StandardCheckpointHandler(),
        "position": ocp.JsonCheckpointHandler(),
    }
    logger = logging.getLogger("absl")
    level = logger.level
    # That what is opened for reading is read only is nothing to warn of.
    logger.setLevel(logging.ERROR)
    try:
        with ocp.CheckpointManager(path.parent, item_handlers=handlers, options=options) as manager:
            yield manager
    except _DAMAGE as error:
        first = str(error).strip().split("\n")[0]
        raise Damaged(first or type(error).__name__) from error
    finally:
        logger.setLevel(level)
