"""CrysXPP: CGCNN behind a feature selector that explains it (Das et al. 2022)."""

import flax.linen as nn
import jax.numpy as jnp
import jraph
import numpy as np

from crysgnn_jax.crystals.elements import N_FEATURES, PROPERTY_BINS
from crysgnn_jax.models.encoder import CrystalEncoder
from crysgnn_jax.models.heads import property_head
from crysgnn_jax.models.layers import atom_features
from crysgnn_jax.models.protocol import Prediction, Student


class CrysXPP(nn.Module):
    """80,925 parameters with the defaults, as released.

    The element features are multiplied by a learned weight each, the parameter ``selector``
    ``[92]``, which an L1 penalty makes sparse: what is left of it tells which features a
    prediction rests on (`element_property_weights`). Otherwise CGCNN, whose convolutions are
    meant to start from those of a pre-trained `CrysAE`: they have the same names and shapes.

    Attributes:
      width: length of an atom's vector.
      n_convolutions: rounds of messages.
      head_width: width of the hidden layers after pooling.
      n_hidden: number of those layers.
      selector_l1: weight of the mean absolute selector in the loss. 0.01 is the published value;
        the released script leaves the term out, which is 0 here.
      cutoff: Å, of the graphs; last centre of the distance basis.
      axis_name: device axis for batch statistics.
    """

    width: int = 64
    n_convolutions: int = 3
    head_width: int = 128
    n_hidden: int = 1
    selector_l1: float = 0.01
    cutoff: float = 8.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch."""
        selector = self.param("selector", nn.initializers.ones, (N_FEATURES,))
        encoder = CrystalEncoder(
            self.width,
            self.n_convolutions,
            cutoff=self.cutoff,
            axis_name=self.axis_name,
            name="encoder",
        )
        atoms = encoder(graph, train, atom_features(graph.nodes["species"]) * selector)
        outputs = property_head(atoms, graph, width=self.head_width, n_hidden=self.n_hidden)
        penalty = None
        if self.selector_l1:
            penalty = self.selector_l1 * jnp.mean(jnp.abs(selector))
        return Prediction(outputs[:, 0], atoms, penalty)


def element_property_weights(selector: np.ndarray) -> list[tuple[str, float]]:
    """How much each of the nine element properties counts, the most important one first.

    Args:
      selector: ``[92]``, the parameter of a trained `CrysXPP`.

    Returns:
      (property, mean absolute weight over its bins), as named in `elements.PROPERTY_BINS`.
    """
    ends = np.cumsum(list(PROPERTY_BINS.values()))
    parts = np.split(np.abs(np.asarray(selector)), ends[:-1])
    weights = [(name, float(np.mean(part))) for name, part in zip(PROPERTY_BINS, parts)]
    return sorted(weights, key=lambda pair: -pair[1])


STUDENT = Student(
    CrysXPP,
    starts_from="crysae",
    reduced=True,
    explanation=lambda params: element_property_weights(params["selector"]),
)
