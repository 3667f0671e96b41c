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

from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.graph import mean_pool, multiplicities
from crysgnn_jax.models.layers import MaskedBatchNorm, atom_features, dense
from crysgnn_jax.models.line_graph import line_graph, triplet_cosines
from crysgnn_jax.models.protocol import Prediction, Student


def radial_basis(values: jax.Array, start: float, stop: float, n: int) -> jax.Array:
    """``[k]`` → ``[k, n]``: exp(−(x − μ)²/s) with ``n`` centres μ from start to stop, s apart.

    The spacing is not squared: with the defaults of ALIGNN each function is several spacings
    wide, and its exponent has the unit of ``values``.
    """
    centres, spacing = np.linspace(start, stop, n, dtype=np.float32, retstep=True)
    return jnp.exp(-jnp.square(values[:, None] - centres) / np.float32(spacing))


class NormedLayer(nn.Module):
    """Linear layer, batch norm, SiLU."""

    width: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, train: bool) -> jax.Array:
        """``[n, d]`` and the rows that each stands for ``[n]``, 0 for padding → ``[n, width]``."""
        x = dense(self.width, x.shape[-1], name="linear")(x)
        return nn.silu(MaskedBatchNorm(self.axis_name, name="norm")(x, weights, train))


class EdgeGatedConvolution(nn.Module):
    """Messages weighted by gates, which become the edges (Bresson and Laurent 2018).

    ``m = A h_sender + B h_receiver + C e``, then
    ``h ← h + SiLU(BN(U h + Σ σ(m) ⊙ V h_sender / Σ σ(m)))`` and ``e ← e + SiLU(BN(m))``. What
    depends on a node is multiplied once a node and not once an edge.

    Attributes:
      axis_name: device axis for batch statistics.
      keep_edges: False for the last convolution, whose edges nobody reads: they are returned as
        they came, while the statistics of m go on being taken, as in the original.
    """

    axis_name: str | None = None
    keep_edges: bool = True

    @nn.compact
    def __call__(
        self,
        nodes: jax.Array,
        edges: jax.Array,
        senders: jax.Array,
        receivers: jax.Array,
        node_weights: jax.Array,
        multiplicity: jax.Array,
        train: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """One round of messages.

        Args:
          nodes: ``[n_node, d]``
          edges: ``[n_edge, d]``
          senders: ``[n_edge]``
          receivers: ``[n_edge]``, in ascending order.
          node_weights: ``[n_node]``, nodes that each stands for; 0 for padding.
          multiplicity: ``[n_edge]``, edges of one such node that each stands for; those of 0 send
            nothing, wherever they lead.
          train: use the batch's statistics, and update the running ones.

        Returns:
          nodes ``[n_node, d]`` and edges ``[n_edge, d]``.
        """
        n_node, width = nodes.shape
        linear = lambda name, x: dense(width, width, name=name)(x)
        norm = lambda name: MaskedBatchNorm(self.axis_name, name=name)
        gates = linear("sender_gate", nodes)[senders] + linear("receiver_gate", nodes)[receivers]
        gates = checkpoint_name(gates + linear("edge_gate", edges), "gates")
        opening = nn.sigmoid(gates) * multiplicity[:, None]
        messages = opening * linear("message", nodes)[senders]
        total = lambda x: jax.ops.segment_sum(x, receivers, n_node, indices_are_sorted=True)
        # 1e-6 as in the original: a receiver without edges divides by it.
        average = total(messages) / (total(opening) + 1e-6)
        update = norm("node_norm")(linear("update", nodes) + average, node_weights, train)
        nodes = (nodes + nn.silu(update)) * (node_weights > 0)[:, None]
        edge_weights = multiplicity * node_weights[receivers]
        if self.keep_edges:
            edges = edges + nn.silu(norm("edge_norm")(gates, edge_weights, train))
        else:
            norm("edge_norm")(jax.lax.stop_gradient(gates), edge_weights, train)
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
      n_triplet: static number of triplets of a batch: its budget's, see `extra_sizes`. A batch of
        full graphs with more is predicted as NaN.
      remat: keep of each convolution its input and m for the backward pass and compute the rest
        again, which is cheap: a quarter of the memory, on accelerators. (On CPUs XLA finds the two
        computations equal and keeps the first.)
      axis_name: device axis for batch statistics.
    """

    width: int = 256
    embedding_width: int = 64
    n_alignn: int = 4
    n_gcn: int = 4
    n_radial: int = 80
    n_angular: int = 40
    cutoff: float = 8.0
    n_triplet: int = 0
    remat: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch.

        ``graph.edges`` holds ``distances`` ``[n_edge]`` and, unless the graphs are reduced,
        ``vectors`` ``[n_edge, 3]``, Å.
        """
        atom_weights, multiplicity = multiplicities(graph)
        bond_weights = multiplicity * atom_weights[graph.receivers]
        line = line_graph(graph, self.n_triplet)
        convolution, layer = EdgeGatedConvolution, NormedLayer
        if self.remat:
            policy = jax.checkpoint_policies.save_only_these_names("gates")
            convolution = nn.remat(convolution, static_argnums=(7,), policy=policy)
            layer = nn.remat(layer, static_argnums=(3,))

        def embed(name: str, x: jax.Array, weights: jax.Array) -> jax.Array:
            for depth, width in enumerate((self.embedding_width, self.width)):
                x = layer(width, self.axis_name, name=f"{name}_{depth}")(x, weights, train)
            return x

        features = atom_features(graph.nodes["species"])
        nodes = layer(self.width, self.axis_name, name="atom_embedding")(
            features, atom_weights, train
        )
        lengths = radial_basis(graph.edges["distances"], 0.0, self.cutoff, self.n_radial)
        edges = embed("edge_embedding", lengths, bond_weights)
        angles = embed(
            "angle_embedding",
            radial_basis(triplet_cosines(graph, line), -1.0, 1.0, self.n_angular),
            line.multiplicity * bond_weights[line.receivers],
        )

        on_crystal = (graph.senders, graph.receivers, atom_weights, multiplicity, train)
        on_line = (line.senders, line.receivers, bond_weights, line.multiplicity, train)
        n_layers = self.n_alignn + self.n_gcn
        for k in range(n_layers):
            nodes, edges = convolution(self.axis_name, k < n_layers - 1, name=f"crystal_{k}")(
                nodes, edges, *on_crystal
            )
            if k < self.n_alignn:
                edges, angles = convolution(
                    self.axis_name, k < self.n_alignn - 1, name=f"line_{k}"
                )(edges, angles, *on_line)
        crystals = mean_pool(nodes, graph)
        prediction = dense(1, self.width, name="output")(crystals)[:, 0]
        # A quietly wrong number would be worse.
        complete = line.total <= self.n_triplet
        return Prediction(jnp.where(complete, prediction, jnp.nan), nodes)


def extra_sizes(store: GraphStore) -> dict[str, np.ndarray]:
    """What ALIGNN lays out besides atoms and edges of reduced graphs.

    Raises:
      UserError: the graphs are not of bonds, of which alone angles are kept.
    """
    if store.settings.rule != "bonds":
        raise UserError(
            f"ALIGNN sees angles between bonds; graphs of --rule {store.settings.rule} have none: "
            "leave the flag out, or give --rule bonds"
        )
    return {"n_triplet": store.reduced.lists["n_triplet"].lengths}


STUDENT = Student(
    ALIGNN,
    loss="mse",
    learning_rate=0.001,
    batch_size=16,
    weight_decay=1e-5,
    graphs={"rule": "bonds"},
    reduced=True,
    extra_sizes=extra_sizes,
    not_settings=("n_triplet",),
)
