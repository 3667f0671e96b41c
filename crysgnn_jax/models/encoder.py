"""The crystal graph encoder that the teacher, CGCNN and their relatives share."""

import flax.linen as nn
import jax
import jraph

from crysgnn_jax.models.layers import (
    Edges,
    GatedConvolution,
    atom_features,
    dense,
    gaussian_basis,
)


class CrystalEncoder(nn.Module):
    """Element features → linear layer → gated convolutions over the crystal graph.

    Attributes:
      width: length of an atom's vector.
      n_convolutions: rounds of messages.
      use_bias: whether the linear layer has a bias (CGCNN: yes, the teacher: no).
      cutoff: Å, last centre of the distance basis.
      axis_name: device axis for batch statistics.
    """

    width: int = 64
    n_convolutions: int = 3
    use_bias: bool = True
    cutoff: float = 8.0
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, graph: jraph.GraphsTuple, train: bool, features: jax.Array | None = None
    ) -> jax.Array:
        """Atom vectors of a batch.

        Args:
          graph: with ``nodes["species"]`` ``[n_node]`` and ``edges["distances"]`` ``[n_edge]``, Å.
          train: use and update batch statistics.
          features: ``[n_node, f]``, instead of the 92 element features.

        Returns:
          ``[n_node, width]``
        """
        if features is None:
            features = atom_features(graph.nodes["species"])
        nodes = dense(self.width, features.shape[-1], use_bias=self.use_bias, name="embedding")(
            features
        )
        basis = gaussian_basis(graph.edges["distances"], stop=self.cutoff)
        edges = Edges.of(basis, graph)
        if train:
            # There are no devices to sum over while parameters are being made.
            edges = edges.with_moments(None if self.is_initializing() else self.axis_name)
        for layer in range(self.n_convolutions):
            nodes = GatedConvolution(self.axis_name, name=f"convolution_{layer}")(
                nodes, edges, train
            )
        return nodes
