"""Weights of the original ALIGNN → variables of `models.alignn.ALIGNN`.

Of a convolution, the original calls ``dst_update`` what the sender sends, and ``src_update`` what
the receiver makes of its own state.
"""

from typing import Any

import numpy as np

from crysgnn_jax.crystals.elements import N_FEATURES
from crysgnn_jax.interop.state import State, Tree

_CONVOLUTION = {
    "src_gate": "sender_gate",
    "dst_gate": "receiver_gate",
    "edge_gate": "edge_gate",
    "src_update": "update",
    "dst_update": "message",
}
_NORMS = {"bn_nodes": "node_norm", "bn_edges": "edge_norm"}


def read_alignn(state: State) -> tuple[dict[str, Any], Tree]:
    """Settings of the module, read off the shapes, and its variables."""
    width, _ = state.shape("atom_embedding.layer.0.weight", 2)
    embedding_width, n_radial = state.shape("edge_embedding.1.layer.0.weight", 2)
    _, n_angular = state.shape("angle_embedding.1.layer.0.weight", 2)
    settings: dict[str, Any] = {
        "width": width,
        "embedding_width": embedding_width,
        "n_alignn": state.count("alignn_layers"),
        "n_gcn": state.count("gcn_layers"),
        "n_radial": n_radial,
        "n_angular": n_angular,
    }
    if "edge_embedding.0.centers" in state:
        settings["cutoff"] = float(np.max(state.take("edge_embedding.0.centers", n_radial)))
    state.drop("edge_embedding.0.")
    state.drop("angle_embedding.0.")
    params: Tree = {}
    stats: Tree = {}

    def layer(name: str, prefix: str, n_in: int, n_out: int) -> None:
        norm, statistics = state.norm(f"{prefix}.layer.1", n_out)
        params[name] = {"linear": state.linear(f"{prefix}.layer.0", n_in, n_out), "norm": norm}
        stats[name] = {"norm": statistics}

    def convolution(name: str, prefix: str) -> None:
        params[name] = {
            ours: state.linear(f"{prefix}.{theirs}", width, width)
            for theirs, ours in _CONVOLUTION.items()
        }
        stats[name] = {}
        for theirs, ours in _NORMS.items():
            params[name][ours], stats[name][ours] = state.norm(f"{prefix}.{theirs}", width)

    layer("atom_embedding", "atom_embedding", N_FEATURES, width)
    for kind, n_basis in (("edge", n_radial), ("angle", n_angular)):
        layer(f"{kind}_embedding_0", f"{kind}_embedding.1", n_basis, embedding_width)
        layer(f"{kind}_embedding_1", f"{kind}_embedding.2", embedding_width, width)
    n_alignn = settings["n_alignn"]
    for k in range(n_alignn):
        convolution(f"crystal_{k}", f"alignn_layers.{k}.node_update")
        convolution(f"line_{k}", f"alignn_layers.{k}.edge_update")
    for k in range(settings["n_gcn"]):
        convolution(f"crystal_{n_alignn + k}", f"gcn_layers.{k}")
    params["output"] = state.linear("fc", width, 1)
    return settings, {"params": params, "batch_stats": stats}
