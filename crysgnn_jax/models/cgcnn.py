"""CGCNN: crystal graph convolutional neural network (Xie and Grossman 2018)."""

import flax.linen as nn
import jax
import jraph

from crysgnn_jax.models.encoder import CrystalEncoder
from crysgnn_jax.models.graph import mean_pool
from crysgnn_jax.models.layers import dense, softplus
from crysgnn_jax.models.protocol import Prediction


class CGCNN(nn.Module):
    """80,833 parameters with the defaults, as released.

    Attributes:
      width: length of an atom's vector.
      n_convolutions: rounds of messages.
      head_width: width of the hidden layers after pooling.
      n_hidden: number of those layers.
      cutoff: Å, of the graphs; last centre of the distance basis.
      axis_name: device axis for batch statistics.
    """

    width: int = 64
    n_convolutions: int = 3
    head_width: int = 128
    n_hidden: int = 1
    cutoff: float = 8.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch."""
        atoms = CrystalEncoder(
            self.width,
            self.n_convolutions,
            cutoff=self.cutoff,
            axis_name=self.axis_name,
            name="encoder",
        )(graph, train)
        crystals: jax.Array = softplus(mean_pool(atoms, graph))
        for layer in range(self.n_hidden):
            crystals = softplus(
                dense(self.head_width, crystals.shape[-1], name=f"hidden_{layer}")(crystals)
            )
        prediction = dense(1, self.head_width, name="output")(crystals)[:, 0]
        return Prediction(prediction, atoms)
