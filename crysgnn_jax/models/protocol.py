"""What a property predictor gives back."""

from typing import NamedTuple

import jax


class Prediction(NamedTuple):
    """Output of a student.

    Attributes:
      prediction: ``[n_graph]``, the property in standardised units.
      embeddings: ``[n_node, d]``, the atom vectors after the last convolution, any ``d``.
    """

    prediction: jax.Array
    embeddings: jax.Array
