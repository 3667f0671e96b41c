"""A trained network as one file: safetensors, with its settings and result in the header."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from crysgnn_jax.errors import UserError
from crysgnn_jax.files import whole, written
from crysgnn_jax.training import shipped
from crysgnn_jax.training.checkpoints import restore_best
from crysgnn_jax.training.workdir import (
    CHECKPOINTS,
    CONFIG,
    MEMORY,
    REFERENCE,
    RESULT,
    in_terms_of_today,
    read_json,
)

FORMAT = "crysgnn_jax 1"
SUFFIX = ".safetensors"
"""Of such files, by which a wildcard knows them; one that is named may have any."""


class ModelFile(NamedTuple):
    """What `export` wrote.

    Attributes:
      made_with: settings, as of ``config.json``.
      result: content of ``result.json``.
      variables: the best weights, as NumPy arrays.
      reference: content of ``reference.npz``; None where the run had none.
      memory: content of ``memory.npz``, likewise.
    """

    made_with: dict[str, Any]
    result: dict[str, Any]
    variables: dict[str, Any]
    reference: bytes | None = None
    memory: bytes | None = None


def export(source: Path, path: Path) -> None:
    """Write the best weights of a finished run, with its settings and result and what it keeps of
    its training crystals, to one file.

    Data, and what else it was made from, are named without where they lay.

    Args:
      source: of the run, of a network that comes with the package, or of such a file.
      path: of the file.

    Raises:
      UserError: the run is not there any more, or the file cannot be written.
    """
    from safetensors.numpy import save

    if source.is_file():
        content = source.read_bytes()
    else:
        config = shipped.without_places(read_json(source / CONFIG))
        result = read_json(source / RESULT)
        weights = source / shipped.WEIGHTS
        variables = (
            shipped.read_weights(weights)
            if weights.exists()
            else restore_best(source / CHECKPOINTS)
        )
        tensors = {
            name: np.ascontiguousarray(value)
            for name, value in traverse_util.flatten_dict(variables, sep="/").items()
        }
        for name in (REFERENCE, MEMORY):
            if (source / name).exists():
                tensors[name] = np.frombuffer((source / name).read_bytes(), np.uint8)
        content = save(
            tensors,
            {
                "format": FORMAT,
                "config": json.dumps(config),
                "result": json.dumps(result),
                "checksum": _checksum(tensors),
            },
        )
    try:
        with whole(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise UserError(written(error, path)) from error


def read_model(path: Path, parameter: str = "model") -> ModelFile:
    """The network in a file that `export` wrote.

    Args:
      path: of the file.
      parameter: by which the user named it, for messages.

    Raises:
      UserError: it is no such file, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    about = f"`{parameter}` {path}"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{about} is no file of a network, as `export` writes it ({error})"
        ) from None
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{about} is of the format {metadata.get('format', 'of another program')!r}, not "
            f"{FORMAT!r}; write it with `export`"
        )
    if metadata.get("checksum") != _checksum(tensors):
        raise UserError(f"{about} is damaged: its weights are not as written; export it again")
    try:
        config, result = json.loads(metadata["config"]), json.loads(metadata["result"])
        made_with = in_terms_of_today(config["made_with"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{about} is damaged ({error!r}); export it again") from None
    reference, memory = (tensors.pop(name, None) for name in (REFERENCE, MEMORY))
    tree = traverse_util.unflatten_dict(tensors, sep="/")
    return ModelFile(
        made_with,
        result,
        {"params": {}, "batch_stats": {}, **tree},
        None if reference is None else reference.tobytes(),
        None if memory is None else memory.tobytes(),
    )


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
