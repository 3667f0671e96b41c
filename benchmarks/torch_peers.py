"""The training steps of the published codes in plain PyTorch, to be timed against this project's.

Written from the formulas (Xie and Grossman 2018; Das et al. 2022; Das et al., AAAI 2023) in the
manner of the published codes: neighbours in a table ``[N, 12]``, one linear layer on the
concatenation v_i ⊕ v_k ⊕ u_ik, `BatchNorm1d`, Adam, and the teacher's pair head on all ordered
pairs at once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from crysgnn_jax.crystals.elements import N_FEATURES, element_features
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.graphs.symmetry import N_SPACE_GROUPS, crystal_system

WIDTH = 64
N_GAUSSIANS = 41
N_CONNECTION_CLASSES = 6
CONNECTION_CLASS_WEIGHTS = torch.tensor([0.1, 1.0, 1.0, 1.0, 1.0, 1.0])
TEMPERATURE = 0.07
SELECTOR_L1 = 0.01
LEARNING_RATE = 1e-3


class TableBatch(NamedTuple):
    """A batch of crystals whose atoms all have the same number of neighbours.

    Attributes:
      atom_features: ``[N, 92]``.
      edge_features: ``[N, 12, 41]``.
      neighbours: ``[N, 12]`` int64, rows of the batch's atoms.
      n_atoms: atoms of each crystal.
      first: ``[P]`` int64, atom i of each ordered pair of atoms of the same crystal.
      second: ``[P]`` int64, atom j.
      connections: ``[P]`` int64, how many of i's neighbours are images of j, 5 for five or more.
      space_groups: ``[B]`` int64, international number − 1.
      crystal_systems: ``[B]`` int64.
      targets: ``[B]`` float32, standardised.
    """

    atom_features: torch.Tensor
    edge_features: torch.Tensor
    neighbours: torch.Tensor
    n_atoms: list[int]
    first: torch.Tensor
    second: torch.Tensor
    connections: torch.Tensor
    space_groups: torch.Tensor
    crystal_systems: torch.Tensor
    targets: torch.Tensor


def make_batch(
    store: GraphStore, rows: Sequence[int], targets: np.ndarray, *, with_pairs: bool = True
) -> TableBatch:
    """The crystals ``rows`` of a store, with ``targets`` ``[len(store)]``; without pairs, which
    take long and only the teacher reads, where not asked for.

    Raises:
      ValueError: an atom has more or fewer neighbours than the others.
    """
    width = store.settings.n_neighbours
    species, distances, neighbours, connections, pairs = [], [], [], [], []
    start = 0
    for row in rows:
        atoms = slice(*store.node_offsets[row : row + 2])
        edges = slice(*store.edge_offsets[row : row + 2])
        n = atoms.stop - atoms.start
        if not (store.degree[atoms] == width).all():
            raise ValueError(f"an atom of {store.ids[row]} has not {width} neighbours")
        table = store.senders[edges].reshape(n, width).astype(np.int64)
        species.append(store.species[atoms])
        distances.append(store.distances[edges].reshape(n, width))
        neighbours.append(start + table)
        n_paired = n if with_pairs else 0
        counts = np.zeros((n_paired, n_paired), np.int64)
        if with_pairs:
            np.add.at(counts, (np.arange(n)[:, None], table), 1)
        connections.append(np.minimum(counts, N_CONNECTION_CLASSES - 1).ravel())
        pairs.append(start + np.indices((n_paired, n_paired)).reshape(2, -1))
        start += n
    space_groups = np.asarray(store.space_group[rows], np.int64)
    first, second = np.concatenate(pairs, axis=1)
    return TableBatch(
        atom_features=torch.from_numpy(element_features()[np.concatenate(species)]),
        edge_features=gaussians(np.concatenate(distances)),
        neighbours=torch.from_numpy(np.concatenate(neighbours)),
        n_atoms=store.n_nodes[rows].tolist(),
        first=torch.from_numpy(first),
        second=torch.from_numpy(second),
        connections=torch.from_numpy(np.concatenate(connections)),
        space_groups=torch.from_numpy(space_groups - 1),
        crystal_systems=torch.from_numpy(crystal_system(space_groups)),
        targets=torch.from_numpy(targets[rows].astype(np.float32)),
    )


def gaussians(distances: np.ndarray) -> torch.Tensor:
    """``[…]`` Å → ``[…, 41]``: exp(−((d − μ)/0.2)²), μ = 0, 0.2 … 8 (Xie and Grossman 2018)."""
    offsets = distances[..., None].astype(np.float64) - np.linspace(0.0, 8.0, N_GAUSSIANS)
    return torch.from_numpy(np.exp(-((offsets / 0.2) ** 2)).astype(np.float32))


def crystal_means(atoms: torch.Tensor, n_atoms: Sequence[int]) -> torch.Tensor:
    """Mean over the atoms of each crystal: ``[N, d]`` → ``[B, d]``."""
    return torch.stack([crystal.mean(dim=0) for crystal in atoms.split(n_atoms)])


class Convolution(nn.Module):
    """Gated convolution (Xie and Grossman 2018, eq. 5) with batch norms."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2 * WIDTH + N_GAUSSIANS, 2 * WIDTH)
        self.edge_norm = nn.BatchNorm1d(2 * WIDTH)
        self.node_norm = nn.BatchNorm1d(WIDTH)

    def forward(self, atoms: torch.Tensor, batch: TableBatch) -> torch.Tensor:
        """``[N, 64]`` → ``[N, 64]``."""
        n, width = batch.neighbours.shape
        centre = atoms[:, None, :].expand(n, width, WIDTH)
        joined = torch.cat([centre, atoms[batch.neighbours], batch.edge_features], dim=2)
        normed = self.edge_norm(self.linear(joined).view(-1, 2 * WIDTH)).view(n, width, -1)
        opening, core = normed.chunk(2, dim=2)
        messages = torch.sum(torch.sigmoid(opening) * F.softplus(core), dim=1)
        return F.softplus(atoms + self.node_norm(messages))


class Encoder(nn.Module):
    """Linear layer and convolutions."""

    def __init__(self, n_convolutions: int, bias: bool):
        super().__init__()
        self.embedding = nn.Linear(N_FEATURES, WIDTH, bias=bias)
        self.convolutions = nn.ModuleList(Convolution() for _ in range(n_convolutions))

    def forward(self, batch: TableBatch, selector: torch.Tensor | None = None) -> torch.Tensor:
        """Atom vectors, ``[N, 64]``; ``selector``, ``[92]``, weights the element features."""
        features = batch.atom_features
        atoms = self.embedding(features if selector is None else features * selector)
        for convolution in self.convolutions:
            atoms = convolution(atoms, batch)
        return atoms


class CGCNN(nn.Module):
    """Three convolutions, mean pool, one hidden layer.

    Attributes:
      selector: ``[92]``, weights of the element features, which make it CrysXPP; None without.
    """

    def __init__(self, with_selector: bool = False):
        super().__init__()
        self.selector = nn.Parameter(torch.ones(N_FEATURES)) if with_selector else None
        self.encoder = Encoder(3, bias=True)
        self.hidden = nn.Linear(WIDTH, 128)
        self.output = nn.Linear(128, 1)

    def forward(self, batch: TableBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Predictions ``[B]`` and atom vectors ``[N, 64]``."""
        atoms = self.encoder(batch, self.selector)
        crystals = F.softplus(crystal_means(atoms, batch.n_atoms))
        return self.output(F.softplus(self.hidden(crystals)))[:, 0], atoms


class Teacher(nn.Module):
    """Five convolutions and four heads.

    Attributes:
      materialise_pairs: the pair head takes both atom vectors of every pair, ``[P, 64]`` twice,
        as released; else it is one product a crystal, which gives the same scores.
    """

    def __init__(self, materialise_pairs: bool = True):
        super().__init__()
        self.materialise_pairs = materialise_pairs
        self.encoder = Encoder(5, bias=False)
        self.bilinear = nn.Bilinear(WIDTH, WIDTH, N_CONNECTION_CLASSES)
        self.connection = nn.Linear(N_CONNECTION_CLASSES, N_CONNECTION_CLASSES)
        self.features = nn.Linear(WIDTH, N_FEATURES)
        self.space_group = nn.Linear(WIDTH, N_SPACE_GROUPS)

    def embed(self, batch: TableBatch) -> torch.Tensor:
        """Atom vectors of length 1, ``[N, 64]``."""
        return F.normalize(self.encoder(batch))

    def forward(self, batch: TableBatch) -> tuple[torch.Tensor, ...]:
        """Embeddings ``[N, 64]``, crystal vectors ``[B, 64]``, and log-probabilities or logits of
        the heads: ``[P, 6]``, ``[N, 92]``, ``[B, 230]``."""
        atoms = self.embed(batch)
        crystals = crystal_means(atoms, batch.n_atoms)
        scores = self.connection(self._pair_scores(atoms, batch))
        return (
            atoms,
            crystals,
            F.log_softmax(scores, dim=1),
            self.features(atoms),
            F.log_softmax(self.space_group(crystals), dim=1),
        )

    def _pair_scores(self, atoms: torch.Tensor, batch: TableBatch) -> torch.Tensor:
        if self.materialise_pairs:
            return self.bilinear(atoms[batch.first], atoms[batch.second])
        halves = torch.einsum("nd,kde->nke", atoms, self.bilinear.weight)
        return self.bilinear.bias + torch.cat(
            [
                torch.einsum("ike,je->ijk", half, crystal).reshape(-1, N_CONNECTION_CLASSES)
                for half, crystal in zip(halves.split(batch.n_atoms), atoms.split(batch.n_atoms))
            ]
        )


def pretraining_loss(teacher: Teacher, batch: TableBatch) -> torch.Tensor:
    """A quarter of each of the four losses."""
    _, crystals, connections, features, space_groups = teacher(batch)
    return 0.25 * (
        F.nll_loss(connections, batch.connections, weight=CONNECTION_CLASS_WEIGHTS)
        + F.binary_cross_entropy_with_logits(features, batch.atom_features)
        + F.nll_loss(space_groups, batch.space_groups)
        + contrastive_loss(crystals, batch.crystal_systems)
    )


def contrastive_loss(vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """NT-Xent over all ordered pairs with the same label; negatives are the other labels."""
    unit = F.normalize(vectors)
    similarity = unit @ unit.T / TEMPERATURE
    same = labels[:, None] == labels[None, :]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    negatives = torch.logsumexp(similarity.masked_fill(same, -math.inf), dim=1, keepdim=True)
    return (torch.logaddexp(similarity, negatives) - similarity)[positive].mean()


def property_loss(student: CGCNN, batch: TableBatch) -> torch.Tensor:
    """Mean squared error on standardised targets, and the L1 penalty of the selector."""
    loss = F.mse_loss(student(batch)[0], batch.targets)
    if student.selector is not None:
        loss = loss + SELECTOR_L1 * student.selector.abs().mean()
    return loss


def distillation_loss(
    student: CGCNN, batch: TableBatch, teacher_embeddings: torch.Tensor
) -> torch.Tensor:
    """Half the property loss, half the mean over crystals of the embeddings' mean squared error."""
    predictions, atoms = student(batch)
    squares = (F.normalize(atoms) - teacher_embeddings).square().mean(dim=1, keepdim=True)
    pull = crystal_means(squares, batch.n_atoms).mean()
    return 0.5 * F.mse_loss(predictions, batch.targets) + 0.5 * pull


class Training:
    """A training step: loss, gradients, Adam.

    Args:
      model: what is trained.
      loss: ``(model, batch) → loss``.
      weight_decay: decoupled.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], torch.Tensor],
        weight_decay: float = 0.0,
    ):
        self._model = model
        self._loss = loss
        optimiser = torch.optim.AdamW if weight_decay else torch.optim.Adam
        self._optimiser = optimiser(model.parameters(), lr=LEARNING_RATE, weight_decay=weight_decay)

    def step(self, batch: Any) -> None:
        self._optimiser.zero_grad()
        self._loss(self._model, batch).backward()
        self._optimiser.step()

    def check(self, batch: Any) -> dict[str, float]:
        """Loss and norm of the gradient, to be compared with this project's."""
        self._optimiser.zero_grad()
        loss = self._loss(self._model, batch)
        loss.backward()
        # The loss does not depend on all that ALIGNN has.
        gradients = [parameter.grad for parameter in self._model.parameters()]
        norms = [gradient.norm() for gradient in gradients if gradient is not None]
        return {"loss": loss.item(), "gradient_norm": torch.stack(norms).norm().item()}


class ReleasedDistillation(Training):
    """Distillation as released: the whole teacher runs inside the step, in training mode and with
    gradients, though only its embeddings are used."""

    def __init__(self, student: CGCNN, teacher: Teacher):
        super().__init__(
            student, lambda model, batch: distillation_loss(model, batch, teacher(batch)[0])
        )
        self._teacher = teacher

    def check(self, batch: TableBatch) -> dict[str, float]:
        """As in `Training`, with the teacher in evaluation mode, as this project's always is."""
        self._teacher.eval()
        numbers = super().check(batch)
        self._teacher.train()
        return numbers


class FrozenDistillation(Training):
    """Distillation without the needless work: the teacher's encoder alone, without gradients."""

    def __init__(self, student: CGCNN, teacher: Teacher):
        embedding = Embedding(teacher)
        super().__init__(
            student, lambda model, batch: distillation_loss(model, batch, embedding.step(batch))
        )


class Embedding:
    """The teacher's embeddings alone, in evaluation mode."""

    def __init__(self, teacher: Teacher):
        self._teacher = teacher.eval()

    @torch.no_grad()
    def step(self, batch: TableBatch) -> torch.Tensor:
        return self._teacher.embed(batch)

    def check(self, batch: TableBatch) -> dict[str, float]:
        """Norm of the mean embedding, to be compared with this project's."""
        return {"embedding_norm": self.step(batch).mean(dim=0).norm().item()}


Parameters = Mapping[str, Any]
"""Parameters of one of this project's models: nested mappings of arrays."""

PEERS: dict[str, dict[str, Callable[[Parameters, Parameters], Training | Embedding]]] = {
    "pretrain": {
        "as released": lambda student, teacher: Training(
            teacher_from(teacher, materialise_pairs=True), pretraining_loss
        ),
        "pair head as an einsum": lambda student, teacher: Training(
            teacher_from(teacher, materialise_pairs=False), pretraining_loss
        ),
    },
    "cgcnn": {
        "as released": lambda student, teacher: Training(cgcnn_from(student), property_loss),
    },
    "crysxpp": {
        "as released": lambda student, teacher: Training(cgcnn_from(student), property_loss),
    },
    "distilled": {
        "as released": lambda student, teacher: ReleasedDistillation(
            cgcnn_from(student), teacher_from(teacher)
        ),
        "frozen teacher's encoder": lambda student, teacher: FrozenDistillation(
            cgcnn_from(student), teacher_from(teacher)
        ),
    },
    "embed": {
        "encoder without gradients": lambda student, teacher: Embedding(teacher_from(teacher)),
    },
}
"""Job → name of the peer → the peer with given parameters of student and teacher."""


def cgcnn_from(parameters: Parameters) -> CGCNN:
    """CGCNN, or CrysXPP, with the parameters of this project's."""
    model = CGCNN(with_selector="selector" in parameters)
    if model.selector is not None:
        copy(model.selector, parameters["selector"])
    _copy_encoder(model.encoder, parameters["encoder"])
    copy_linear(model.hidden, parameters["hidden_0"])
    copy_linear(model.output, parameters["output"])
    return model


def teacher_from(parameters: Parameters, materialise_pairs: bool = True) -> Teacher:
    """The teacher with the parameters of this project's."""
    model = Teacher(materialise_pairs)
    _copy_encoder(model.encoder, parameters["encoder"])
    head = parameters["connection"]
    copy(model.bilinear.weight, head["bilinear"])
    copy(model.bilinear.bias, head["bilinear_bias"])
    copy_linear(model.connection, head)
    copy_linear(model.features, parameters["features"])
    copy_linear(model.space_group, parameters["space_group"])
    return model


def _copy_encoder(encoder: Encoder, parameters: Parameters) -> None:
    copy_linear(encoder.embedding, parameters["embedding"])
    for layer, convolution in enumerate(encoder.convolutions):
        own = parameters[f"convolution_{layer}"]
        kernel, bias = (
            np.concatenate([own[f"gate_{name}"], own[f"core_{name}"]], axis=-1)
            for name in ("kernel", "bias")
        )
        copy_linear(convolution.linear, {"kernel": kernel, "bias": bias})
        gate, core = own["gate_norm"], own["core_norm"]
        both = {name: np.concatenate([gate[name], core[name]]) for name in ("scale", "bias")}
        copy_norm(convolution.edge_norm, both)
        copy_norm(convolution.node_norm, own["node_norm"])


def copy_norm(norm: nn.BatchNorm1d, parameters: Parameters) -> None:
    """Scale and bias of one of this project's batch norms."""
    copy(norm.weight, parameters["scale"])
    copy(norm.bias, parameters["bias"])


def copy_linear(linear: nn.Module, parameters: Parameters) -> None:
    """Kernel and bias of one of this project's linear layers; a layer without bias takes none."""
    copy(linear.weight, np.asarray(parameters["kernel"]).T)
    if linear.bias is not None:
        copy(linear.bias, parameters["bias"])


@torch.no_grad()
def copy(tensor: torch.Tensor, values: np.ndarray) -> None:
    """
    Raises:
      ValueError: the shapes differ.
    """
    values = torch.from_numpy(np.array(values))
    if tensor.shape != values.shape:
        raise ValueError(f"parameters {list(values.shape)} do not fit {list(tensor.shape)}")
    tensor.copy_(values)
