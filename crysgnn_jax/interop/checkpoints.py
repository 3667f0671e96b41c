"""Checkpoints of other implementations on disk → plain arrays."""

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.errors import UserError

_STATE_DICTS = ("state_dict", "model_state_dict", "model")
"""Where in a checkpoint the authors of such code put the weights."""


def read_checkpoint(path: Path | str) -> dict[str, np.ndarray]:
    """The weights in a file, and what else it tells about them.

    ``.npz`` is read by NumPy; any other file as one of ``torch.save``, for which PyTorch must be
    installed. No code in the file is run: of a pickle, only arrays and plain values are let in.

    Returns:
      ``params/<name in the state dict>``, ``normalizer/mean``, ``normalizer/std`` and
      ``args/<name>``, as far as they are there, each an array. Names in a ``.npz`` are left as
      they are.

    Raises:
      UserError: the file is missing, damaged, no checkpoint, or holds more than plain values; or
        PyTorch is needed and missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return _read_npz(path) if path.suffix == ".npz" else _flatten(_read_torch(path), path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    # Depending on which bytes are wrong, zipfile, zlib, and NumPy's parser of headers raise
    # nearly anything.
    except Exception as error:
        raise UserError(
            f"{path} is damaged, or no .npz archive of plain arrays; make or fetch it again"
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: reading it needs PyTorch: pip install 'crysgnn-jax[torch]'"
        ) from None
    try:
        with torch.serialization.safe_globals(_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise _damaged(path) from error
        raise UserError(
            f"{path} holds {found[1]}, which is not let in because it could run code; where the "
            "file is trusted, load it with its own program and save its state_dict alone"
        ) from None
    except Exception as error:  # as above
        raise _damaged(path) from error


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged, or no checkpoint of PyTorch; make or fetch it again")


def _allowed() -> list:
    """What an honest checkpoint may name beside tensors: parsed arguments, NumPy numbers and
    arrays."""
    reconstruct: Any = np.zeros(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    return [
        argparse.Namespace,
        np.dtype,
        np.ndarray,
        *{type(np.dtype(code)) for code in "?bhilqBHILQefdUS"},
        # The module has one name in files of NumPy 1 and another in those of NumPy 2.
        *[
            (function, f"numpy.{core}.multiarray.{function.__name__}")
            for core in ("core", "_core")
            for function in (reconstruct, scalar)
        ],
    ]


def _flatten(checkpoint: Any, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a loaded checkpoint, under the names that `read_checkpoint` promises."""
    if not isinstance(checkpoint, Mapping):
        raise UserError(
            f"{path} holds a {type(checkpoint).__name__}, not a state dict; save the state_dict "
            "of its network"
        )
    inside = (checkpoint[name] for name in _STATE_DICTS if name in checkpoint)
    state = next((x for x in inside if isinstance(x, Mapping)), checkpoint)
    arrays: dict[str, Any] = {
        f"params/{k}": _array(v) for k, v in state.items() if hasattr(v, "detach")
    }
    if not arrays:
        raise UserError(f"{path} holds no state dict; save the state_dict of its network")
    # Networks that were trained on several GPUs are wrapped in one called "module".
    if all(name.startswith("params/module.") for name in arrays):
        arrays = {name.replace("module.", "", 1): array for name, array in arrays.items()}
    for group in ("normalizer", "args"):
        values = checkpoint.get(group, {})
        values = vars(values) if isinstance(values, argparse.Namespace) else values
        if isinstance(values, Mapping):
            for name, value in values.items():
                if (array := _array(value)) is not None:
                    arrays[f"{group}/{name}"] = array
    return arrays


def _array(value: Any) -> np.ndarray | None:
    """A tensor, number or text as an array; None for anything else."""
    if hasattr(value, "detach"):
        value = value.detach()
        # NumPy has no bfloat16.
        return (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value) if isinstance(value, (bool, int, float, str, np.generic)) else None
