"""The crystal graph encoder that the teacher, CGCNN and their relatives share."""

import flax.linen as nn
import jax

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.models.layers import GatedConvolution, atom_features, dense, gaussian_basis
from crysgnn_jax.models.norms import EdgeTerms


class CrystalEncoder(nn.Module):
    """Element features → linear layer → gated convolutions over the crystal graph.

    Attributes:
      width: length of an atom's vector.
      n_convolutions: rounds of messages.
      use_bias: whether the linear layer has a bias (CGCNN: yes, the teacher: no).
      cutoff: Å, last centre of the distance basis.
    """

    width: int = 64
    n_convolutions: int = 3
    use_bias: bool = True
    cutoff: float = 8.0

    @nn.compact
    def __call__(self, batch: Batch, train: bool, features: jax.Array | None = None) -> jax.Array:
        """Atom vectors of a batch.

        Args:
          batch: with species and distances.
          train: use and update batch statistics.
          features: ``[n_node, f]``, instead of the 92 element features.

        Returns:
          ``[n_node, width]``
        """
        if features is None:
            features = atom_features(batch.species)
        nodes = dense(self.width, features.shape[-1], use_bias=self.use_bias, name="embedding")(
            features
        )
        basis = gaussian_basis(batch.distances, stop=self.cutoff)
        edges = EdgeTerms.of(batch.edges, basis, train)
        for layer in range(self.n_convolutions):
            nodes = GatedConvolution(name=f"convolution_{layer}")(nodes, edges, train)
        return nodes
