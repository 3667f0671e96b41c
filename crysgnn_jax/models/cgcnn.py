"""CGCNN: crystal graph convolutional neural network (Xie and Grossman 2018), and two like it."""

import flax.linen as nn
import jax
import jraph

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.models.encoder import CrystalEncoder
from crysgnn_jax.models.heads import property_head
from crysgnn_jax.models.network import Network, Prediction


class CGCNN(nn.Module):
    """80,833 parameters with the defaults, as released.

    Attributes:
      width: length of an atom's vector.
      n_convolutions: rounds of messages.
      head_width: width of the hidden layers after pooling.
      n_hidden: number of those layers.
      embedding_bias: whether the input layer has a bias; without, the encoder is the teacher's.
      cutoff: Å, of the graphs; last centre of the distance basis.
    """

    width: int = 64
    n_convolutions: int = 3
    head_width: int = 128
    n_hidden: int = 1
    embedding_bias: bool = True
    cutoff: float = 8.0

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch."""
        batch = Batch(graph)
        atoms = self.encode(batch, train)
        return Prediction(self.outputs(atoms, batch)[:, 0], atoms)

    def encode(self, batch: Batch, train: bool, features: jax.Array | None = None) -> jax.Array:
        """Atom vectors ``[n_node, width]``, as of `CrystalEncoder`; a part of ``__call__``."""
        encoder = CrystalEncoder(
            self.width, self.n_convolutions, self.embedding_bias, self.cutoff, name="encoder"
        )
        return encoder(batch, train, features)

    def outputs(self, atoms: jax.Array, batch: Batch, n_outputs: int = 1) -> jax.Array:
        """``[n_graph, n_outputs]`` from atom vectors; a part of ``__call__``."""
        return property_head(
            atoms, batch, width=self.head_width, n_hidden=self.n_hidden, n_outputs=n_outputs
        )


class CGCNNClassifier(CGCNN):
    """The published classifier of metals: two outputs, of which the softmax is taken.

    The prediction is the probability of class 1, metal. For evaluation only: the dropout in front
    of the last layer, which training would need, and which does nothing in evaluation, is left out.
    """

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict the probability of class 1 for each crystal of a padded batch."""
        batch = Batch(graph)
        atoms = self.encode(batch, train)
        return Prediction(jax.nn.softmax(self.outputs(atoms, batch, 2))[:, 1], atoms)


class FineTuned(CGCNN):
    """A pre-trained encoder under CGCNN's property head: the approach that distillation is to beat.

    Attributes:
      freeze_encoder: keep the encoder as it is: it runs in evaluation mode, without statistics of
        the batch, and no gradient reaches it.
    """

    freeze_encoder: bool = False

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch."""
        batch = Batch(graph)
        atoms = self.encode(batch, train and not self.freeze_encoder)
        if self.freeze_encoder:
            atoms = jax.lax.stop_gradient(atoms)
        return Prediction(self.outputs(atoms, batch)[:, 0], atoms)


NETWORK = Network(CGCNN, Needs(reduced=True))
CLASSIFIER = Network(CGCNNClassifier, Needs(reduced=True))
FINE_TUNED = Network(FineTuned, Needs(reduced=True))
