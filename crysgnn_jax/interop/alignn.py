"""Weights of the original ALIGNN → variables of `models.alignn.ALIGNN`.

Of a convolution, the original calls ``dst_update`` what the sender sends, and ``src_update`` what
the receiver makes of its own state.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from crysgnn_jax.data.elements import N_FEATURES
from crysgnn_jax.errors import UserError

_CONVOLUTION = {
    "src_gate": "sender_gate",
    "dst_gate": "receiver_gate",
    "edge_gate": "edge_gate",
    "src_update": "update",
    "dst_update": "message",
}
_NORMS = {"bn_nodes": "node_norm", "bn_edges": "edge_norm"}

Tree = dict[str, Any]


def alignn_settings(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Attributes of the module, read off the shapes of the arrays.

    Args:
      arrays: name in the state dict → array.

    Raises:
      UserError: one of the arrays that tell is missing or is no matrix.
    """
    width, _ = _matrix(arrays, "atom_embedding.layer.0.weight")
    embedding_width, n_radial = _matrix(arrays, "edge_embedding.1.layer.0.weight")
    _, n_angular = _matrix(arrays, "angle_embedding.1.layer.0.weight")
    layers = lambda kind: len({name.split(".")[1] for name in arrays if name.startswith(kind)})
    settings = {
        "width": width,
        "embedding_width": embedding_width,
        "n_alignn": layers("alignn_layers."),
        "n_gcn": layers("gcn_layers."),
        "n_radial": n_radial,
        "n_angular": n_angular,
    }
    centres = arrays.get("edge_embedding.0.centers")
    return settings if centres is None else {**settings, "cutoff": float(np.max(centres))}


def alignn_variables(arrays: Mapping[str, np.ndarray]) -> dict[str, Tree]:
    """``{"params": …, "batch_stats": …}`` of the module with `alignn_settings`, float32.

    Args:
      arrays: name in the state dict → array. Gradients will do for the weights.

    Raises:
      UserError: an array is missing, left over, or of another shape; it names the first one.
    """
    settings = alignn_settings(arrays)
    width, embedding_width = settings["width"], settings["embedding_width"]
    unused = ("num_batches_tracked", ".centers")
    left = {name: array for name, array in arrays.items() if not name.endswith(unused)}
    params: Tree = {}
    stats: Tree = {}

    def take(name: str, *shape: int) -> np.ndarray:
        if name not in left:
            raise UserError(f"these are no weights of ALIGNN: {name} is missing")
        array = left.pop(name)
        if array.shape != shape:
            raise UserError(
                f"these are no weights of ALIGNN: {name} is {array.shape} and should be {shape}"
            )
        return array.astype(np.float32)

    def linear(prefix: str, n_in: int, n_out: int) -> Tree:
        return {
            "kernel": take(f"{prefix}.weight", n_out, n_in).T,
            "bias": take(f"{prefix}.bias", n_out),
        }

    def norm(prefix: str, n: int) -> tuple[Tree, Tree]:
        return (
            {"scale": take(f"{prefix}.weight", n), "bias": take(f"{prefix}.bias", n)},
            {"mean": take(f"{prefix}.running_mean", n), "var": take(f"{prefix}.running_var", n)},
        )

    def layer(name: str, prefix: str, n_in: int, n_out: int) -> None:
        params[name] = {"linear": linear(f"{prefix}.layer.0", n_in, n_out)}
        params[name]["norm"], statistics = norm(f"{prefix}.layer.1", n_out)
        stats[name] = {"norm": statistics}

    def convolution(name: str, prefix: str) -> None:
        params[name] = {
            ours: linear(f"{prefix}.{theirs}", width, width)
            for theirs, ours in _CONVOLUTION.items()
        }
        stats[name] = {}
        for theirs, ours in _NORMS.items():
            params[name][ours], stats[name][ours] = norm(f"{prefix}.{theirs}", width)

    layer("atom_embedding", "atom_embedding", N_FEATURES, width)
    for kind, n_basis in (("edge", settings["n_radial"]), ("angle", settings["n_angular"])):
        layer(f"{kind}_embedding_0", f"{kind}_embedding.1", n_basis, embedding_width)
        layer(f"{kind}_embedding_1", f"{kind}_embedding.2", embedding_width, width)
    n_alignn = settings["n_alignn"]
    for k in range(n_alignn):
        convolution(f"crystal_{k}", f"alignn_layers.{k}.node_update")
        convolution(f"line_{k}", f"alignn_layers.{k}.edge_update")
    for k in range(settings["n_gcn"]):
        convolution(f"crystal_{n_alignn + k}", f"gcn_layers.{k}")
    params["output"] = linear("fc", width, 1)
    if left:
        raise UserError(f"these are no weights of ALIGNN: it has no use for {next(iter(left))}")
    return {"params": params, "batch_stats": stats}


def _matrix(arrays: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
    """Shape of a matrix among the arrays."""
    if name not in arrays or arrays[name].ndim != 2:
        raise UserError(f"these are no weights of ALIGNN: it has no matrix {name}")
    return arrays[name].shape
