"""ALIGNN: atomistic line graph neural network (Choudhary and DeCost 2021).

Messages pass along bonds, and along the angles between bonds: every ALIGNN layer is one
edge-gated convolution on the crystal graph and one on its line graph. Nearly all work is on arrays
``[n_triplet, width]``.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.batches.views import Batch, Links, Rows
from crysgnn_jax.models.layers import atom_features, dense
from crysgnn_jax.models.network import Network, Prediction, Recipe
from crysgnn_jax.models.norms import BatchNorm


def radial_basis(values: jax.Array, start: float, stop: float, n: int) -> jax.Array:
    """``[k]`` → ``[k, n]``: exp(−(x − μ)²/s) with ``n`` centres μ from start to stop, s apart.

    The spacing is not squared: with the defaults of ALIGNN each function is several spacings
    wide, and its exponent has the unit of ``values``.
    """
    centres, spacing = np.linspace(start, stop, n, dtype=np.float32, retstep=True)
    return jnp.exp(-jnp.square(values[:, None] - centres) / np.float32(spacing))


class NormedLayer(nn.Module):
    """Linear layer, batch norm, SiLU.

    Attributes:
      width: of the result.
      train: use the batch's statistics, and update the running ones.
    """

    width: int
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """``[n, d]`` → ``[n, width]``."""
        x = dense(self.width, x.shape[-1], name="linear")(x)
        return nn.silu(BatchNorm(name="norm")(x, rows, self.train))


class EdgeGatedConvolution(nn.Module):
    """Messages weighted by gates, which become the edges (Bresson and Laurent 2018).

    ``m = A h_sender + B h_receiver + C e``, then
    ``h ← h + SiLU(BN(U h + Σ σ(m) ⊙ V h_sender / Σ σ(m)))`` and ``e ← e + SiLU(BN(m))``. What
    depends on a node is multiplied once a node and not once an edge.

    Attributes:
      train: use the batch's statistics, and update the running ones.
      keep_edges: False for the last convolution, whose edges nobody reads: they are returned as
        they came, while the statistics of m go on being taken, as in the original.
    """

    train: bool
    keep_edges: bool = True

    @nn.compact
    def __call__(
        self, nodes: jax.Array, edges: jax.Array, links: Links
    ) -> tuple[jax.Array, jax.Array]:
        """One round of messages, on a crystal graph or a line graph.

        Args:
          nodes: ``[n_node, d]``
          edges: ``[n_edge, d]``
          links: the graph's edges.

        Returns:
          nodes ``[n_node, d]`` and edges ``[n_edge, d]``.
        """
        width = nodes.shape[1]
        linear = lambda name, x: dense(width, width, name=name)(x)
        norm = lambda name, x, rows: BatchNorm(name=name)(x, rows, self.train)
        of_senders, of_receivers = linear("sender_gate", nodes), linear("receiver_gate", nodes)
        gates = of_senders[links.senders] + of_receivers[links.receivers]
        gates = checkpoint_name(gates + linear("edge_gate", edges), "gates")
        opening = nn.sigmoid(gates)
        messages = opening * linear("message", nodes)[links.senders]
        # 1e-6 as in the original: a receiver without edges divides by it.
        average = links.sum(messages) / (links.sum(opening) + 1e-6)
        update = norm("node_norm", linear("update", nodes) + average, links.ends)
        nodes = links.ends.blank(nodes + nn.silu(update))
        if self.keep_edges:
            edges = edges + nn.silu(norm("edge_norm", gates, links.rows))
        else:
            norm("edge_norm", jax.lax.stop_gradient(gates), links.rows)
        return nodes, edges


class ALIGNN(nn.Module):
    """4,026,753 parameters with the defaults, as released.

    Attributes:
      width: length of the vectors of atoms, bonds and angles.
      embedding_width: of the first layer that bonds and angles pass.
      n_alignn: layers that convolve crystal graph and line graph.
      n_gcn: layers after them, on the crystal graph alone.
      n_radial: functions on which a bond length is laid out, from 0 to the cutoff.
      n_angular: functions on which the cosine of an angle is laid out.
      cutoff: Å, of the graphs.
      remat: keep of each convolution its input and m for the backward pass and compute the rest
        again, which is cheap: a quarter of the memory, on accelerators. (On CPUs XLA finds the two
        computations equal and keeps the first.)
    """

    width: int = 256
    embedding_width: int = 64
    n_alignn: int = 4
    n_gcn: int = 4
    n_radial: int = 80
    n_angular: int = 40
    cutoff: float = 8.0
    remat: bool = True

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch, which carries triplets."""
        batch = Batch(graph)
        atoms, bonds, angles = batch.atoms, batch.edges, batch.triplets
        convolution, layer = EdgeGatedConvolution, NormedLayer
        if self.remat:
            policy = jax.checkpoint_policies.save_only_these_names("gates")
            convolution, layer = nn.remat(convolution, policy=policy), nn.remat(layer)

        def embed(name: str, x: jax.Array, rows: Rows) -> jax.Array:
            for depth, width in enumerate((self.embedding_width, self.width)):
                x = layer(width, train, name=f"{name}_{depth}")(x, rows)
            return x

        features = atom_features(batch.species)
        of_atoms = layer(self.width, train, name="atom_embedding")(features, atoms)
        lengths = radial_basis(batch.distances, 0.0, self.cutoff, self.n_radial)
        of_bonds = embed("edge_embedding", lengths, bonds.rows)
        cosines = radial_basis(batch.cosines, -1.0, 1.0, self.n_angular)
        of_angles = embed("angle_embedding", cosines, angles.rows)

        n_layers = self.n_alignn + self.n_gcn
        for k in range(n_layers):
            on_crystal = convolution(train, k < n_layers - 1, name=f"crystal_{k}")
            of_atoms, of_bonds = on_crystal(of_atoms, of_bonds, bonds)
            if k < self.n_alignn:
                on_line = convolution(train, k < self.n_alignn - 1, name=f"line_{k}")
                of_bonds, of_angles = on_line(of_bonds, of_angles, angles)
        crystals = batch.mean_of_atoms(of_atoms)
        prediction = dense(1, self.width, name="output")(crystals)[:, 0]
        return Prediction(prediction, of_atoms)


NETWORK = Network(
    ALIGNN,
    Needs(lists=("triplets",), reduced=True, graphs={"rule": "bonds"}),
    Recipe(learning_rate=0.001, batch_size=16, weight_decay=1e-5),
)
