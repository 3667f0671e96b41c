"""Training steps in PyTorch Geometric, to be timed against this project's.

CGCNN is built from the package's own layer, `CGConv`, which is not quite the published one (see
`CGCNN`). GATGNN is written from the formulas (Louis et al. 2020), as a `MessagePassing` layer that
forms what it needs for each edge, in the manner of the published code.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import CGConv, MessagePassing, global_add_pool, global_mean_pool
from torch_geometric.utils import softmax

from benchmarks.joined import join
from benchmarks.torch_peers import (
    N_GAUSSIANS,
    WIDTH,
    Parameters,
    Training,
    copy,
    copy_linear,
    copy_norm,
    gaussians,
)
from crysgnn_jax.crystals.elements import N_FEATURES, element_features
from crysgnn_jax.graphs.store import GraphStore

N_ELEMENTS = 103
N_HEADS = 4
N_LAYERS = 3
GATGNN_WEIGHT_DECAY = 0.1


class GraphBatch(NamedTuple):
    """A batch as PyTorch Geometric takes it.

    Attributes:
      atom_features: ``[N, 92]``.
      edge_features: ``[E, 41]``.
      edge_index: ``[2, E]`` int64: neighbour j, centre i.
      crystal: ``[N]`` int64, the crystal of each atom.
      composition: ``[B, 103]``, the fraction of each element, H … Lr, among a crystal's atoms.
      targets: ``[B]`` float32, standardised.
    """

    atom_features: torch.Tensor
    edge_features: torch.Tensor
    edge_index: torch.Tensor
    crystal: torch.Tensor
    composition: torch.Tensor
    targets: torch.Tensor


def make_batch(store: GraphStore, rows: Sequence[int], targets: np.ndarray) -> GraphBatch:
    """The crystals ``rows`` of a store, with ``targets`` ``[len(store)]``."""
    joined = join(store, rows)
    species = store.species[joined.atoms].astype(np.int64)
    composition = np.zeros((len(rows), N_ELEMENTS), np.float32)
    np.add.at(composition, (joined.crystal, species - 1), 1.0)
    return GraphBatch(
        atom_features=torch.from_numpy(element_features()[species]),
        edge_features=gaussians(store.distances[joined.edges]),
        edge_index=torch.from_numpy(joined.edge_index),
        crystal=torch.from_numpy(joined.crystal),
        composition=torch.from_numpy(composition / composition.sum(axis=1, keepdims=True)),
        targets=torch.from_numpy(targets[rows].astype(np.float32)),
    )


class CGCNN(nn.Module):
    """CGCNN of `CGConv` layers, of the same widths and depth.

    `CGConv` has no batch norm on gate and core, so that this network has 768 parameters fewer than
    the published one and other numbers. All else is equal: the batch norm of the sum, the
    softplus of the residual, the head.
    """

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(N_FEATURES, WIDTH)
        self.convolutions = nn.ModuleList(
            CGConv(WIDTH, dim=N_GAUSSIANS, batch_norm=True) for _ in range(N_LAYERS)
        )
        self.hidden = nn.Linear(WIDTH, 128)
        self.output = nn.Linear(128, 1)

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        """Predictions ``[B]``."""
        atoms = self.embedding(batch.atom_features)
        for convolution in self.convolutions:
            atoms = F.softplus(convolution(atoms, batch.edge_index, batch.edge_features))
        crystals = F.softplus(global_mean_pool(atoms, batch.crystal, len(batch.targets)))
        return self.output(F.softplus(self.hidden(crystals)))[:, 0]


class AugmentedAttention(MessagePassing):
    """Attention of four heads over the edges of an atom, which see both atoms and the edge."""

    def __init__(self):
        super().__init__(aggr="add", node_dim=0)
        self.kernel = nn.Parameter(torch.empty(2 * WIDTH, N_HEADS * WIDTH))
        self.attention = nn.Parameter(torch.empty(1, N_HEADS, 2 * WIDTH))
        self.bias = nn.Parameter(torch.empty(WIDTH))
        self.score_norm = nn.BatchNorm1d(N_HEADS)

    def forward(
        self, atoms: torch.Tensor, edge_index: torch.Tensor, edges: torch.Tensor
    ) -> torch.Tensor:
        """``[N, 64]``, ``[2, E]`` and ``[E, 64]`` → ``[N, 64]``."""
        heads = self.propagate(edge_index, x=atoms, edges=edges)
        return heads.mean(dim=1) + self.bias

    def message(
        self,
        x_i: torch.Tensor,
        x_j: torch.Tensor,
        edges: torch.Tensor,
        index: torch.Tensor,
        size_i: int,
    ) -> torch.Tensor:
        """``[E, 4, 64]``."""
        part = lambda x: F.softplus(torch.cat([x, edges], dim=1) @ self.kernel).view(
            -1, N_HEADS, WIDTH
        )
        centre, neighbour = part(x_i), part(x_j)
        scores = (torch.cat([centre, neighbour], dim=2) * self.attention).sum(dim=2)
        scores = F.softplus(self.score_norm(F.softplus(scores)))
        return neighbour * softmax(scores, index, num_nodes=size_i)[:, :, None]


class GATGNN(nn.Module):
    """Three layers of augmented attention, attention over atoms by composition, two layers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(N_FEATURES, WIDTH)
        self.edge_embedding = nn.Linear(N_GAUSSIANS, WIDTH)
        self.attentions = nn.ModuleList(AugmentedAttention() for _ in range(N_LAYERS))
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(N_LAYERS))
        self.score_hidden = nn.Linear(WIDTH + N_ELEMENTS, 32)
        self.score = nn.Linear(32, 1)
        self.hidden = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.output = nn.Linear(WIDTH, 1)

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        """Predictions ``[B]``."""
        n_crystals = len(batch.targets)
        atoms = self.embedding(batch.atom_features)
        edges = F.leaky_relu(self.edge_embedding(batch.edge_features), 0.2)
        for attention, norm in zip(self.attentions, self.norms):
            atoms = F.softplus(norm(attention(atoms, batch.edge_index, edges)))
        seen = torch.cat([atoms, batch.composition[batch.crystal]], dim=1)
        scores = self.score(F.softplus(self.score_hidden(seen)))
        weights = softmax(scores, batch.crystal, num_nodes=n_crystals)
        crystals = global_add_pool(weights * atoms, batch.crystal, n_crystals)
        for layer in self.hidden:
            crystals = F.softplus(layer(crystals))
        return self.output(crystals)[:, 0]


PEERS: dict[str, dict[str, Callable[[Parameters, Parameters], Training]]] = {
    "cgcnn": {
        "PyTorch Geometric's CGConv": lambda student, teacher: Training(
            cgcnn_from(student), lambda model, batch: F.mse_loss(model(batch), batch.targets)
        ),
    },
    "gatgnn": {
        "in PyTorch Geometric": lambda student, teacher: Training(
            gatgnn_from(student),
            lambda model, batch: F.smooth_l1_loss(model(batch), batch.targets),
            GATGNN_WEIGHT_DECAY,
        ),
    },
}
"""As in `torch_peers`."""


def cgcnn_from(parameters: Parameters) -> CGCNN:
    """CGCNN with the parameters of this project's, as far as it has them."""
    model = CGCNN()
    encoder = parameters["encoder"]
    copy_linear(model.embedding, encoder["embedding"])
    for layer, convolution in enumerate(model.convolutions):
        own = encoder[f"convolution_{layer}"]
        for linear, name in ((convolution.lin_f, "gate"), (convolution.lin_s, "core")):
            copy_linear(linear, {kind: own[f"{name}_{kind}"] for kind in ("kernel", "bias")})
        copy_norm(convolution.bn, own["node_norm"])
    copy_linear(model.hidden, parameters["hidden_0"])
    copy_linear(model.output, parameters["output"])
    return model


def gatgnn_from(parameters: Parameters) -> GATGNN:
    """GATGNN with the parameters of this project's."""
    model = GATGNN()
    copy_linear(model.embedding, parameters["embedding"])
    copy_linear(model.edge_embedding, parameters["edge_embedding"])
    for layer in range(N_LAYERS):
        attention, own = model.attentions[layer], parameters[f"attention_{layer}"]
        copy(attention.kernel, own["kernel"])
        copy(attention.attention, own["attention"][None])
        copy(attention.bias, own["bias"])
        copy_norm(attention.score_norm, own["score_norm"])
        copy_norm(model.norms[layer], parameters[f"norm_{layer}"])
    over_atoms = parameters["composition_attention"]
    copy_linear(model.score_hidden, over_atoms)
    copy_linear(model.score, over_atoms["output"])
    for layer, linear in enumerate(model.hidden):
        copy_linear(linear, parameters[f"hidden_{layer}"])
    copy_linear(model.output, parameters["output"])
    return model
