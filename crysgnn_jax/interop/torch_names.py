"""Weights under the names of the authors' PyTorch modules → variables of this project's modules.

A PyTorch ``Linear`` holds ``weight [out, in]``, a Flax ``Dense`` ``kernel [in, out]``; gate and
core of a gated convolution are stacked there and two tensors here; the counters of batch norms
(``num_batches_tracked``) have no counterpart.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from crysgnn_jax.batches.pairs import N_CONNECTION_CLASSES
from crysgnn_jax.crystals.elements import N_FEATURES
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.symmetry import N_SPACE_GROUPS
from crysgnn_jax.interop.alignn import read_alignn
from crysgnn_jax.interop.state import State, Tree
from crysgnn_jax.models.gatgnn import N_ELEMENTS

SPACING = 0.2
"""Å between the centres of the distance basis, in all these models."""


@dataclasses.dataclass(frozen=True)
class Converted:
    """A network from elsewhere.

    Attributes:
      network: its name here: a key of `registry.STUDENTS`, `registry.OTHERS` or
        `pretraining.registry.PRETRAINED`.
      settings: attributes of the Flax module, read off the shapes.
      variables: of the module, NumPy float32.
      mean: of the targets that it was trained on, in the property's unit; None if not stored, as
        with a network that predicts the property itself or none at all.
      std: likewise.
      property: name of the property, if the arrays tell.
    """

    network: str
    settings: dict[str, Any]
    variables: Tree
    mean: float | None = None
    std: float | None = None
    property: str | None = None


def convert(
    kind: str, arrays: Mapping[str, np.ndarray], *, source: str = "the checkpoint"
) -> Converted:
    """Turn a network's arrays into the variables and settings of its module here.

    Args:
      kind: name in `KINDS`.
      arrays: name → array, as `checkpoints.read_checkpoint` gives them, or a bare state dict
        (names without ``params/``).
      source: what the arrays are from, for messages.

    Raises:
      UserError: there is no such kind; or an array is missing, left over or of an unexpected
        shape: it names the first one.
    """
    if kind not in KINDS:
        raise UserError(f"`kind` {kind}: there is {', '.join(KINDS)}")
    state = State(arrays, f"{source} does not fit `kind` {kind}")
    settings, variables = KINDS[kind](state)
    state.require_empty()
    scalar = lambda name: np.asarray(arrays[name]).item() if name in arrays else None
    property = arrays.get("args/target_column")
    # CGCNN's two networks differ in the number of outputs alone.
    is_classifier = kind == "cgcnn" and variables["params"]["output"]["bias"].shape == (2,)
    return Converted(
        "cgcnn-classifier" if is_classifier else kind,
        settings,
        variables,
        scalar("normalizer/mean"),
        scalar("normalizer/std"),
        None if property is None else str(property),
    )


def _cutoff(n_centres: int) -> float:
    return round((n_centres - 1) * SPACING, 6)


def _half(tree: Tree, half: slice) -> Tree:
    return {name: array[half] for name, array in tree.items()}


def _convolution(state: State, prefix: str, width: int, n_basis: int) -> tuple[Tree, Tree]:
    """One gated convolution: parameters and statistics."""
    weight = state.take(f"{prefix}.fc_full.weight", 2 * width, 2 * width + n_basis)
    bias = state.take(f"{prefix}.fc_full.bias", 2 * width)
    norm, norm_stats = state.norm(f"{prefix}.bn1", 2 * width)
    params: Tree = {}
    stats: Tree = {}
    for name, half in {"gate": slice(0, width), "core": slice(width, None)}.items():
        params[f"{name}_kernel"] = weight[half].T
        params[f"{name}_bias"] = bias[half]
        params[f"{name}_norm"] = _half(norm, half)
        stats[f"{name}_norm"] = _half(norm_stats, half)
    params["node_norm"], stats["node_norm"] = state.norm(f"{prefix}.bn2", width)
    return params, stats


def _encoder(state: State, *, use_bias: bool) -> tuple[dict[str, Any], Tree, Tree]:
    """The encoder that all but GATGNN and ALIGNN share: settings, parameters, statistics."""
    width, _ = state.shape("embedding.weight", 2)
    _, fan_in = state.shape("convs.0.fc_full.weight", 2)
    n_basis = max(fan_in - 2 * width, 1)
    settings: dict[str, Any] = {
        "width": width,
        "n_convolutions": state.count("convs"),
        "cutoff": _cutoff(n_basis),
    }
    params = {"embedding": state.linear("embedding", N_FEATURES, width, use_bias=use_bias)}
    stats = {}
    for layer in range(settings["n_convolutions"]):
        name = f"convolution_{layer}"
        params[name], stats[name] = _convolution(state, f"convs.{layer}", width, n_basis)
    return settings, params, stats


def _property_head(state: State, width: int, n_outputs: int) -> tuple[dict[str, Any], Tree]:
    """Settings and parameters of `heads.property_head`."""
    head_width, _ = state.shape("conv_to_fc.weight", 2)
    n_more = state.count("fcs")
    params = {"hidden_0": state.linear("conv_to_fc", width, head_width)}
    for layer in range(n_more):
        params[f"hidden_{layer + 1}"] = state.linear(f"fcs.{layer}", head_width, head_width)
    params["output"] = state.linear("fc_out", head_width, n_outputs)
    return {"head_width": head_width, "n_hidden": 1 + n_more}, params


def _cgcnn(state: State) -> tuple[dict[str, Any], Tree]:
    use_bias = "embedding.bias" in state
    settings, encoder, stats = _encoder(state, use_bias=use_bias)
    n_outputs = 2 if state.shape("fc_out.weight", 2)[0] == 2 else 1
    head_settings, head = _property_head(state, settings["width"], n_outputs)
    settings = {**settings, **head_settings, "embedding_bias": use_bias}
    return settings, {"params": {"encoder": encoder, **head}, "batch_stats": {"encoder": stats}}


def _crysxpp(state: State) -> tuple[dict[str, Any], Tree]:
    selector = state.take("mask", N_FEATURES)
    settings, encoder, stats = _encoder(state, use_bias=True)
    head_settings, head = _property_head(state, settings["width"], 1)
    params = {"selector": selector, "encoder": encoder, **head}
    return {**settings, **head_settings}, {"params": params, "batch_stats": {"encoder": stats}}


def _pretrained(state: State, *, space_group: bool) -> tuple[dict[str, Any], Tree]:
    """The teacher, or the auto-encoder, which has no head for the space group."""
    settings, encoder, stats = _encoder(state, use_bias=False)
    width, classes = settings["width"], N_CONNECTION_CLASSES
    params = {
        "encoder": encoder,
        "connection": {
            "bilinear": state.take("fc_adj.weight", classes, width, width),
            "bilinear_bias": state.take("fc_adj.bias", classes),
            **state.linear("fc1", classes, classes),
        },
        "features": state.linear("fc_atom_feature", width, N_FEATURES),
    }
    if space_group:
        params["space_group"] = state.linear("fc_sg", width, N_SPACE_GROUPS)
    return settings, {"params": params, "batch_stats": {"encoder": stats}}


def _gatgnn(state: State) -> tuple[dict[str, Any], Tree]:
    for unused in ("embed_comp.", "cluster_att."):
        state.drop(unused)
    width, _ = state.shape("embed_n.weight", 2)
    _, n_basis = state.shape("embed_e.weight", 2)
    _, n_heads, _ = state.shape("node_att.0.att", 3)
    hidden_width, _ = state.shape("comp_atten.node_layer1.weight", 2)
    settings: dict[str, Any] = {
        "width": width,
        "n_layers": state.count("node_att"),
        "n_heads": n_heads,
        "cutoff": _cutoff(n_basis),
    }
    params = {
        "embedding": state.linear("embed_n", N_FEATURES, width),
        "edge_embedding": state.linear("embed_e", n_basis, width),
        "composition_attention": {
            **state.linear("comp_atten.node_layer1", width + N_ELEMENTS, hidden_width),
            "output": state.linear("comp_atten.atten_layer", hidden_width, 1),
        },
        "hidden_0": state.linear("linear1", width, width),
        "hidden_1": state.linear("linear2", width, width),
        "output": state.linear("out", width, 1),
    }
    stats = {}
    for layer in range(settings["n_layers"]):
        prefix, name = f"node_att.{layer}", f"attention_{layer}"
        state.drop(f"{prefix}.prelu.")
        score_norm, score_stats = state.norm(f"{prefix}.bn1", n_heads)
        params[name] = {
            "kernel": state.take(f"{prefix}.W", 2 * width, n_heads * width),
            "attention": state.take(f"{prefix}.att", 1, n_heads, 2 * width)[0],
            "bias": state.take(f"{prefix}.bias", width),
            "score_norm": score_norm,
        }
        stats[name] = {"score_norm": score_stats}
        norm = f"norm_{layer}"
        params[norm], stats[norm] = state.norm(f"batch_norm.{layer}", width)
    return settings, {"params": params, "batch_stats": stats}


KINDS: dict[str, Callable[[State], tuple[dict[str, Any], Tree]]] = {
    "cgcnn": _cgcnn,
    "crysgnn": functools.partial(_pretrained, space_group=True),
    "crysae": functools.partial(_pretrained, space_group=False),
    "crysxpp": _crysxpp,
    "gatgnn": _gatgnn,
    "alignn": read_alignn,
}
"""Name for ``kind`` → how its arrays are read: (settings of the module, variables)."""
