"""GATGNN: global attention graph neural network (Louis et al. 2020)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from crysgnn_jax.models.graph import multiplicities, node_graph_ids
from crysgnn_jax.models.layers import (
    MaskedBatchNorm,
    atom_features,
    dense,
    gaussian_basis,
    softplus,
    torch_uniform,
)
from crysgnn_jax.models.protocol import Prediction, Student

N_ELEMENTS = 103
"""Elements of a composition, H … Lr."""


def segment_softmax(
    scores: jax.Array, segments: jax.Array, n_segment: int, counts: jax.Array | None = None
) -> jax.Array:
    """Softmax over the rows of each segment, column by column, without overflow.

    Args:
      scores: ``[n, d]``
      segments: ``[n]``, the segment of each row, in ascending order.
      n_segment: how many segments there are; they may be empty.
      counts: ``[n]``, rows that each row stands for; 0.0 for rows whose weight is to be 0 exactly.

    Returns:
      ``[n, d]``, of each row the sum over those that it stands for.
    """
    if counts is not None:
        # Finite: in a segment of masked rows alone, ∞ − ∞ would arise.
        scores = jnp.where(counts[:, None] > 0, scores, -1e9)
    highest = jax.lax.stop_gradient(
        jax.ops.segment_max(scores, segments, n_segment, indices_are_sorted=True)
    )
    weights = jnp.exp(scores - highest[segments])
    if counts is not None:
        weights = weights * counts[:, None]
    total = jax.ops.segment_sum(weights, segments, n_segment, indices_are_sorted=True)
    # A segment of masked rows alone divides 0 by this and not by 0.
    return weights / (total + 1e-16)[segments]


def composition(graph: jraph.GraphsTuple) -> jax.Array:
    """``[n_graph, 103]``: the fraction of each element, H … Lr, among the atoms of a crystal."""
    counts = jnp.zeros((len(graph.n_node), 1 + N_ELEMENTS))
    atoms = multiplicities(graph).nodes
    counts = counts.at[node_graph_ids(graph), graph.nodes["species"]].add(atoms)
    # Column 0 is that of padding atoms.
    return counts[:, 1:] / jnp.maximum(jnp.sum(counts, axis=1, keepdims=True), 1.0)


class AugmentedAttention(nn.Module):
    """Attention over the bonds of an atom, aware of the bonds' features (Louis et al. 2020).

    With ``p = softplus([x_i, e]·W)`` and ``q = softplus([x_j, e]·W)`` for a bond from centre i to
    neighbour j, in each head: ``s = softplus(BN(softplus(a·[p, q])))``; ``α`` is the softmax of s
    over the bonds of i, and the result the mean over heads of ``Σ α q``, and a bias.

    Attributes:
      n_heads: heads, each as wide as an atom's vector.
      axis_name: device axis for batch statistics.
    """

    n_heads: int
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        nodes: jax.Array,
        edges: jax.Array,
        senders: jax.Array,
        receivers: jax.Array,
        multiplicity: jax.Array,
        weights: jax.Array,
        train: bool,
    ) -> jax.Array:
        """One round of messages.

        Args:
          nodes: ``[n_node, d]``
          edges: ``[n_edge, e]``
          senders: ``[n_edge]``, neighbour j of each edge.
          receivers: ``[n_edge]``, centre i of each edge, in ascending order.
          multiplicity: ``[n_edge]``, edges of one atom that each stands for; 0 for padding.
          weights: ``[n_edge]``, edges of all atoms that each stands for.
          train: use the batch's statistics, and update the running ones.

        Returns:
          ``[n_node, d]``; the bias alone for atoms without neighbours.
        """
        (n_node, width), n_heads = nodes.shape, self.n_heads
        glorot = nn.initializers.glorot_uniform()
        kernel = self.param("kernel", glorot, (width + edges.shape[-1], n_heads * width))
        attention = self.param("attention", glorot, (n_heads, 2 * width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        scores, neighbours = [], []
        # One head at a time, as slicing one wide tensor costs a copy in the backward pass; W in
        # two parts: atoms are multiplied once an atom, bonds once for both of their ends.
        for weight, attend in zip(jnp.split(kernel, n_heads, axis=1), attention):
            of_atoms, of_bonds = nodes @ weight[:width], edges @ weight[width:]
            centre = softplus(of_atoms[receivers] + of_bonds)
            neighbour = softplus(of_atoms[senders] + of_bonds)
            scores.append(centre @ attend[:width] + neighbour @ attend[width:])
            neighbours.append(neighbour)
        norm = MaskedBatchNorm(self.axis_name, name="score_norm")
        scores = softplus(norm(softplus(jnp.stack(scores, axis=1)), weights, train))
        shares = segment_softmax(scores, receivers, n_node, multiplicity) / n_heads
        # The mean over heads before the sum over bonds: fewer numbers to add up.
        messages = sum(shares[:, head, None] * x for head, x in enumerate(neighbours))
        return jax.ops.segment_sum(messages, receivers, n_node, indices_are_sorted=True) + bias


class CompositionAttention(nn.Module):
    """How much each atom counts in its crystal, from its vector and the crystal's composition.

    Linear → softplus → linear → softmax over the atoms of a crystal.

    Attributes:
      hidden_width: outputs of the first layer.
    """

    hidden_width: int = 32

    @nn.compact
    def __call__(self, nodes: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
        """``[n_node, d]`` → ``[n_node, 1]``, adding up to 1 over a crystal: of each node, the sum
        over the atoms that it stands for."""
        width = nodes.shape[-1]
        fan_in = width + N_ELEMENTS
        kernel = self.param("kernel", torch_uniform(fan_in), (fan_in, self.hidden_width))
        bias = self.param("bias", torch_uniform(fan_in), (self.hidden_width,))
        crystal = node_graph_ids(graph)
        of_crystals = composition(graph) @ kernel[width:]
        hidden = softplus(nodes @ kernel[:width] + of_crystals[crystal] + bias)
        scores = dense(1, self.hidden_width, name="output")(hidden)
        return segment_softmax(scores, crystal, len(graph.n_node), multiplicities(graph).nodes)


class GATGNN(nn.Module):
    """Attention over bonds, then over atoms.

    122,874 parameters with the defaults: the released 134,154 without those that it never uses.

    Of the released attentions over atoms only the default, by composition, is here. Those by
    fixed, random or learned clusters of atoms are left out: the paper's results do not rest on
    them, and no formula was at hand to check them against.

    Attributes:
      width: length of an atom's vector, and of a bond's.
      n_layers: rounds of messages.
      n_heads: attention heads a round.
      attention: over the atoms of a crystal; "composition".
      cutoff: Å, of the graphs; last centre of the distance basis.
      axis_name: device axis for batch statistics.
    """

    width: int = 64
    n_layers: int = 3
    n_heads: int = 4
    attention: str = "composition"
    cutoff: float = 8.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch.

        Raises:
          ValueError: the attention is not one there is.
        """
        if self.attention != "composition":
            raise ValueError(f"attention {self.attention!r}: there is 'composition'")
        nodes, edges = multiplicities(graph)
        edge_weights = edges * nodes[graph.receivers]
        features = atom_features(graph.nodes["species"])
        atoms = dense(self.width, features.shape[-1], name="embedding")(features)
        basis = gaussian_basis(graph.edges["distances"], stop=self.cutoff)
        bonds = dense(self.width, basis.shape[-1], name="edge_embedding")(basis)
        bonds = jax.nn.leaky_relu(bonds, 0.2)
        for layer in range(self.n_layers):
            atoms = AugmentedAttention(self.n_heads, self.axis_name, name=f"attention_{layer}")(
                atoms, bonds, graph.senders, graph.receivers, edges, edge_weights, train
            )
            norm = MaskedBatchNorm(self.axis_name, name=f"norm_{layer}")
            atoms = softplus(norm(atoms, nodes, train))
        weights = CompositionAttention(name="composition_attention")(atoms, graph)
        crystals = jax.ops.segment_sum(
            weights * atoms, node_graph_ids(graph), len(graph.n_node), indices_are_sorted=True
        )
        for layer in range(2):
            crystals = softplus(dense(self.width, self.width, name=f"hidden_{layer}")(crystals))
        prediction = dense(1, self.width, name="output")(crystals)[:, 0]
        return Prediction(prediction, atoms)


STUDENT = Student(
    GATGNN,
    loss="smooth_l1",
    learning_rate=0.005,
    weight_decay=0.1,
    reduced=True,
)
