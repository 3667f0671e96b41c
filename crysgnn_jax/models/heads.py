"""The heads that several networks share."""

import jax

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.models.layers import dense, softplus


def property_head(
    atoms: jax.Array, batch: Batch, *, width: int, n_hidden: int, n_outputs: int = 1
) -> jax.Array:
    """Mean over the atoms → softplus → hidden layers → linear, for each crystal.

    To be called inside the ``nn.compact`` method of a module, which its layers become parts of:
    ``hidden_0`` …, and ``output``.

    Args:
      atoms: ``[n_node, d]``
      batch: that they are of.
      width: of the hidden layers.
      n_hidden: number of them.
      n_outputs: numbers a crystal.

    Returns:
      ``[n_graph, n_outputs]``
    """
    crystals = softplus(batch.mean_of_atoms(atoms))
    for layer in range(n_hidden):
        crystals = softplus(dense(width, crystals.shape[-1], name=f"hidden_{layer}")(crystals))
    return dense(n_outputs, crystals.shape[-1], name="output")(crystals)
