"""GATGNN: global attention graph neural network (Louis et al. 2020)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.batches.views import Batch, Links
from crysgnn_jax.models.layers import (
    atom_features,
    dense,
    gaussian_basis,
    softplus,
    torch_uniform,
)
from crysgnn_jax.models.network import Network, Prediction, Recipe
from crysgnn_jax.models.norms import BatchNorm

N_ELEMENTS = 103
"""Elements of a composition, H … Lr."""


def composition(batch: Batch) -> jax.Array:
    """``[n_graph, 103]``: the fraction of each element, H … Lr, among the atoms of a crystal."""
    counts = jnp.zeros((len(batch.crystals.weights), 1 + N_ELEMENTS))
    counts = counts.at[batch.crystal_of_node, batch.species].add(batch.atoms.weights)
    # Column 0 is that of padding atoms.
    return counts[:, 1:] / jnp.maximum(jnp.sum(counts, axis=1, keepdims=True), 1.0)


class AugmentedAttention(nn.Module):
    """Attention over the bonds of an atom, aware of the bonds' features (Louis et al. 2020).

    With ``p = softplus([x_i, e]·W)`` and ``q = softplus([x_j, e]·W)`` for a bond from centre i to
    neighbour j, in each head: ``s = softplus(BN(softplus(a·[p, q])))``; ``α`` is the softmax of s
    over the bonds of i, and the result the mean over heads of ``Σ α q``, and a bias.

    Attributes:
      n_heads: heads, each as wide as an atom's vector.
    """

    n_heads: int

    @nn.compact
    def __call__(self, nodes: jax.Array, edges: jax.Array, links: Links, train: bool) -> jax.Array:
        """One round of messages.

        Args:
          nodes: ``[n_node, d]``
          edges: ``[n_edge, e]``
          links: from neighbour j to centre i.
          train: use the batch's statistics, and update the running ones.

        Returns:
          ``[n_node, d]``; the bias alone for atoms without neighbours.
        """
        width, n_heads = nodes.shape[1], self.n_heads
        glorot = nn.initializers.glorot_uniform()
        kernel = self.param("kernel", glorot, (width + edges.shape[-1], n_heads * width))
        attention = self.param("attention", glorot, (n_heads, 2 * width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        of_heads, neighbours = [], []
        # One head at a time, as slicing one wide tensor costs a copy in the backward pass; W in
        # two parts: atoms are multiplied once an atom, bonds once for both of their ends.
        for weight, attend in zip(jnp.split(kernel, n_heads, axis=1), attention):
            of_atoms, of_bonds = nodes @ weight[:width], edges @ weight[width:]
            centre = softplus(of_atoms[links.receivers] + of_bonds)
            neighbour = softplus(of_atoms[links.senders] + of_bonds)
            of_heads.append(centre @ attend[:width] + neighbour @ attend[width:])
            neighbours.append(neighbour)
        norm = BatchNorm(name="score_norm")
        scores = softplus(norm(softplus(jnp.stack(of_heads, axis=1)), links.rows, train))
        shares = links.softmax(scores) / n_heads
        # The mean over heads before the sum over bonds: fewer numbers to add up.
        messages = [shares[:, head, None] * x for head, x in enumerate(neighbours)]
        return links.sum(functools.reduce(jnp.add, messages)) + bias


class CompositionAttention(nn.Module):
    """How much each atom counts in its crystal, from its vector and the crystal's composition.

    Linear → softplus → linear → softmax over the atoms of a crystal.

    Attributes:
      hidden_width: outputs of the first layer.
    """

    hidden_width: int = 32

    @nn.compact
    def __call__(self, nodes: jax.Array, batch: Batch) -> jax.Array:
        """``[n_node, d]`` → ``[n_node, 1]``, adding up to 1 over the atoms of a crystal."""
        width = nodes.shape[-1]
        fan_in = width + N_ELEMENTS
        kernel = self.param("kernel", torch_uniform(fan_in), (fan_in, self.hidden_width))
        bias = self.param("bias", torch_uniform(fan_in), (self.hidden_width,))
        of_crystals = composition(batch) @ kernel[width:]
        hidden = nodes @ kernel[:width] + of_crystals[batch.crystal_of_node] + bias
        scores = dense(1, self.hidden_width, name="output")(softplus(hidden))
        return batch.members.softmax(scores)


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
    """

    width: int = 64
    n_layers: int = 3
    n_heads: int = 4
    attention: str = "composition"
    cutoff: float = 8.0

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch.

        Raises:
          ValueError: the attention is not one there is.
        """
        if self.attention != "composition":
            raise ValueError(f"attention {self.attention!r}: there is 'composition'")
        batch = Batch(graph)
        features = atom_features(batch.species)
        atoms = dense(self.width, features.shape[-1], name="embedding")(features)
        basis = gaussian_basis(batch.distances, stop=self.cutoff)
        bonds = dense(self.width, basis.shape[-1], name="edge_embedding")(basis)
        bonds = jax.nn.leaky_relu(bonds, 0.2)
        for layer in range(self.n_layers):
            attention = AugmentedAttention(self.n_heads, name=f"attention_{layer}")
            atoms = attention(atoms, bonds, batch.edges, train)
            atoms = softplus(BatchNorm(name=f"norm_{layer}")(atoms, batch.atoms, train))
        shares = CompositionAttention(name="composition_attention")(atoms, batch)
        crystals = batch.members.sum(shares * atoms)
        for layer in range(2):
            crystals = softplus(dense(self.width, self.width, name=f"hidden_{layer}")(crystals))
        prediction = dense(1, self.width, name="output")(crystals)[:, 0]
        return Prediction(prediction, atoms)


NETWORK = Network(
    GATGNN,
    Needs(reduced=True),
    Recipe(loss="smooth_l1", learning_rate=0.005, weight_decay=0.1),
)
