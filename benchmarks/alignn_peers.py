"""ALIGNN of the package ``alignn``, to be timed against this project's on the same graphs.

The package's network without DGL, `ALIGNNAtomWisePure`, normalises by layer where the published
one normalises by batch; otherwise they are the same. It is timed as it is, and with the published
batch norms in its place, when it computes what this project does.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure, ALIGNNAtomWisePureConfig
from alignn.torch_graph_builder import TorchGraph
from torch import nn
from torch.nn import functional as F

from benchmarks.joined import join
from benchmarks.torch_peers import Parameters, Training, copy_linear, copy_norm
from crysgnn_jax.crystals.elements import N_FEATURES, element_features
from crysgnn_jax.graphs.store import GraphStore

WEIGHT_DECAY = 1e-5


class LineBatch(NamedTuple):
    """A batch as the package takes it.

    Attributes:
      graph: crystals; ``atom_features`` ``[N, 92]``, ``r`` ``[E, 3]`` Å from sender to receiver.
      line_graph: of their edges; ``h`` ``[T]``, cosines of the angles between them.
      targets: ``[B]`` float32, standardised.
    """

    graph: TorchGraph
    line_graph: TorchGraph
    targets: torch.Tensor


def make_batch(store: GraphStore, rows: Sequence[int], targets: np.ndarray) -> LineBatch:
    """The crystals ``rows`` of a store of bonds, with ``targets`` ``[len(store)]``."""
    joined = join(store, rows)
    senders, receivers = joined.edge_index
    vectors = -np.asarray(store.vectors[joined.edges])
    first, second = triplets(senders, receivers, len(joined.atoms))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.clip(-np.sum(unit[first] * unit[second], axis=1), -1.0, 1.0)
    species = store.species[joined.atoms]
    tensor = torch.from_numpy
    graph = TorchGraph(
        num_nodes=len(joined.atoms),
        src=tensor(senders),
        dst=tensor(receivers),
        ndata={"atom_features": tensor(element_features()[species])},
        edata={"r": tensor(vectors)},
        batch_num_nodes=tensor(store.n_nodes[rows].astype(np.int64)),
        batch_num_edges=tensor(store.n_edges[rows].astype(np.int64)),
    )
    line_graph = TorchGraph(
        num_nodes=len(senders), src=tensor(first), dst=tensor(second), edata={"h": tensor(cosines)}
    )
    return LineBatch(graph, line_graph, tensor(targets[rows].astype(np.float32)))


def triplets(
    senders: np.ndarray, receivers: np.ndarray, n_node: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of different edges of which the second leaves the atom that the first arrives at.

    Args:
      senders: ``[E]``
      receivers: ``[E]``, ascending.
      n_node: number of atoms.

    Returns:
      Number of the first and of the second edge of each pair, ``[T]`` int64 twice.
    """
    degree = np.bincount(receivers, minlength=n_node)
    arrivals = np.cumsum(degree) - degree
    count = degree[senders]
    second = np.repeat(np.arange(len(senders)), count)
    place = np.arange(len(second)) - np.repeat(np.cumsum(count) - count, count)
    first = arrivals[senders[second]] + place
    different = first != second  # an edge to the atom's own image leaves where it arrives
    return first[different], second[different]


class ALIGNN(nn.Module):
    """The package's network, for one property a crystal.

    Args:
      parameters: of this project's ALIGNN: they give the sizes too.
      batch_norms: put the batch norms of the published network in place of the layer norms.
    """

    def __init__(self, parameters: Parameters, batch_norms: bool):
        super().__init__()
        layers = lambda kind: sum(name.startswith(kind) for name in parameters)
        n_alignn = layers("line_")
        kernel = lambda name: parameters[name]["linear"]["kernel"]
        n_radial, embedding_width = kernel("edge_embedding_0").shape
        n_angular, _ = kernel("angle_embedding_0").shape
        self.network = ALIGNNAtomWisePure(
            ALIGNNAtomWisePureConfig(
                name="alignn_atomwise_pure",
                alignn_layers=n_alignn,
                gcn_layers=layers("crystal_") - n_alignn,
                atom_input_features=N_FEATURES,
                edge_input_features=n_radial,
                triplet_input_features=n_angular,
                embedding_features=embedding_width,
                hidden_features=len(parameters["output"]["kernel"]),
                # A property and no force field: no forces, no repulsion at short distances.
                calculate_gradient=False,
                gradwise_weight=0.0,
                energy_mult_natoms=False,
                use_penalty=False,
                # Angles are known before the clock starts.
                lg_on_fly=False,
            )
        )
        if batch_norms:
            _replace_norms(self.network)
        _copy_network(self.network, parameters)

    def forward(self, batch: LineBatch) -> torch.Tensor:
        """Predictions ``[B]``."""
        return self.network((batch.graph, batch.line_graph, None))["out"]


def _replace_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.LayerNorm):
            setattr(module, name, nn.BatchNorm1d(child.normalized_shape[0]))
        else:
            _replace_norms(child)


def _copy_network(network: ALIGNNAtomWisePure, parameters: Parameters) -> None:
    def layer(target: nn.Module, name: str) -> None:
        copy_linear(target.layer[0], parameters[name]["linear"])
        copy_norm(target.layer[1], parameters[name]["norm"])

    def convolution(target: nn.Module, name: str) -> None:
        own = parameters[name]
        copy_linear(target.src_gate, own["sender_gate"])
        copy_linear(target.dst_gate, own["receiver_gate"])
        copy_linear(target.edge_gate, own["edge_gate"])
        copy_linear(target.src_update, own["update"])
        copy_linear(target.dst_update, own["message"])
        copy_norm(target.bn_nodes, own["node_norm"])
        copy_norm(target.bn_edges, own["edge_norm"])

    layer(network.atom_embedding, "atom_embedding")
    for kind in ("edge", "angle"):
        embedding = getattr(network, f"{kind}_embedding")
        for depth in range(2):
            layer(embedding[1 + depth], f"{kind}_embedding_{depth}")
    for k, target in enumerate(network.alignn_layers):
        convolution(target.node_update, f"crystal_{k}")
        convolution(target.edge_update, f"line_{k}")
    for k, target in enumerate(network.gcn_layers, len(network.alignn_layers)):
        convolution(target, f"crystal_{k}")
    copy_linear(network.fc, parameters["output"])


def _training(parameters: Parameters, batch_norms: bool) -> Training:
    loss = lambda model, batch: F.mse_loss(model(batch), batch.targets)
    return Training(ALIGNN(parameters, batch_norms), loss, WEIGHT_DECAY)


PEERS: dict[str, dict[str, Callable[[Parameters, Parameters], Training]]] = {
    "alignn": {
        "package alignn": lambda student, teacher: _training(student, batch_norms=False),
        "package alignn, batch norms": lambda student, teacher: _training(
            student, batch_norms=True
        ),
    },
}
"""As in `torch_peers`."""
