"""CGCNN: crystal graph convolutional neural network (Xie and Grossman 2018)."""

import flax.linen as nn
import jax
import jraph

from crysgnn_jax.models.encoder import CrystalEncoder
from crysgnn_jax.models.heads import property_head
from crysgnn_jax.models.protocol import Prediction, Student


class CGCNN(nn.Module):
    """80,833 parameters with the defaults, as released.

    Attributes:
      width: length of an atom's vector.
      n_convolutions: rounds of messages.
      head_width: width of the hidden layers after pooling.
      n_hidden: number of those layers.
      embedding_bias: whether the input layer has a bias; without, the encoder is the teacher's.
      freeze_encoder: keep the encoder as it is: it runs in evaluation mode, without statistics of
        the batch, and no gradient reaches it. (Fine-tuning the head of a pre-trained encoder.)
      classification: two outputs instead of one, of which the softmax is taken, as in the
        published classifier of metals; the prediction is the probability of class 1, metal. For
        evaluation only: the dropout in front of the last layer, which training would need, and
        which does nothing in evaluation, is left out.
      cutoff: Å, of the graphs; last centre of the distance basis.
      axis_name: device axis for batch statistics.
    """

    width: int = 64
    n_convolutions: int = 3
    head_width: int = 128
    n_hidden: int = 1
    embedding_bias: bool = True
    freeze_encoder: bool = False
    classification: bool = False
    cutoff: float = 8.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch."""
        encoder = CrystalEncoder(
            self.width,
            self.n_convolutions,
            self.embedding_bias,
            cutoff=self.cutoff,
            axis_name=self.axis_name,
            name="encoder",
        )
        atoms = encoder(graph, train and not self.freeze_encoder)
        if self.freeze_encoder:
            atoms = jax.lax.stop_gradient(atoms)
        outputs = property_head(
            atoms,
            graph,
            width=self.head_width,
            n_hidden=self.n_hidden,
            n_outputs=2 if self.classification else 1,
        )
        if self.classification:
            return Prediction(jax.nn.softmax(outputs)[:, 1], atoms)
        return Prediction(outputs[:, 0], atoms)


STUDENT = Student(CGCNN, reduced=True, not_settings=("classification", "freeze_encoder"))
