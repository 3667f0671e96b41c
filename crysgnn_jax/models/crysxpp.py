"""CrysXPP: CGCNN behind a feature selector that explains it (Das et al. 2022)."""

import flax.linen as nn
import jax.numpy as jnp
import jraph
import numpy as np

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.elements import N_FEATURES, PROPERTY_BINS
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.models.layers import atom_features
from crysgnn_jax.models.network import Network, Prediction


class CrysXPP(CGCNN):
    """80,925 parameters with the defaults, as released.

    The element features are multiplied by a learned weight each, the parameter ``selector``
    ``[92]``, which an L1 penalty makes sparse: what is left of it tells which features a
    prediction rests on (`element_property_weights`). Otherwise CGCNN, whose convolutions are
    meant to start from those of the pre-trained auto-encoder ``crysae``: they have the same names
    and shapes.

    Attributes:
      selector_l1: weight of the mean absolute selector in the loss. 0.01 is the published value;
        the released script leaves the term out, which is 0 here.
    """

    selector_l1: float = 0.01

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, train: bool) -> Prediction:
        """Predict one property for each crystal of a padded batch."""
        batch = Batch(graph)
        selector = self.param("selector", nn.initializers.ones, (N_FEATURES,))
        atoms = self.encode(batch, train, atom_features(batch.species) * selector)
        penalty = None
        if self.selector_l1:
            penalty = self.selector_l1 * jnp.mean(jnp.abs(selector))
        return Prediction(self.outputs(atoms, batch)[:, 0], atoms, penalty)


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


NETWORK = Network(
    CrysXPP,
    Needs(reduced=True),
    starts_from="crysae",
    explanation=lambda params: element_property_weights(params["selector"]),
)
