"""The heads that several networks share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from crysgnn_jax.models.graph import mean_pool
from crysgnn_jax.models.layers import dense, softplus, torch_uniform
from crysgnn_jax.models.pairs import N_CONNECTION_CLASSES, pair_blocks


def property_head(
    atoms: jax.Array, graph: jraph.GraphsTuple, *, width: int, n_hidden: int, n_outputs: int = 1
) -> jax.Array:
    """Mean over the atoms → softplus → hidden layers → linear, for each crystal.

    To be called inside the ``nn.compact`` method of a module, which its layers become parts of:
    ``hidden_0`` …, and ``output``.

    Args:
      atoms: ``[n_node, d]``
      graph: the batch.
      width: of the hidden layers.
      n_hidden: number of them.
      n_outputs: numbers a crystal.

    Returns:
      ``[n_graph, n_outputs]``
    """
    crystals = softplus(mean_pool(atoms, graph))
    for layer in range(n_hidden):
        crystals = softplus(dense(width, crystals.shape[-1], name=f"hidden_{layer}")(crystals))
    return dense(n_outputs, crystals.shape[-1], name="output")(crystals)


class ConnectionHead(nn.Module):
    """Bilinear(d, d → 6) and Linear(6 → 6) on every ordered pair of atoms of a crystal."""

    @nn.compact
    def __call__(self, atoms: jax.Array, graph: jraph.GraphsTuple, n_block: int) -> jax.Array:
        """``[n_node, d]`` → ``[n_block, 6, TILE, TILE]``."""
        width, classes = atoms.shape[-1], N_CONNECTION_CLASSES
        bilinear = self.param("bilinear", torch_uniform(width), (classes, width, width))
        bilinear_bias = self.param("bilinear_bias", torch_uniform(width), (classes,))
        kernel = self.param("kernel", torch_uniform(classes), (classes, classes))
        bias = self.param("bias", torch_uniform(classes), (classes,))
        # Two linear maps in a row are one: mix the six matrices, not the scores of every pair.
        mixed = jnp.einsum("cij,ck->kij", bilinear, kernel)
        mixed_bias = bilinear_bias @ kernel + bias
        blocks = pair_blocks(graph, n_block)

        columns = atoms[blocks.columns]

        # One class at a time: the rows of all six in one tensor would be nearly as large as
        # pairs × width.
        def scores(matrix: jax.Array) -> jax.Array:
            return jnp.einsum("bid,bjd->bij", (atoms @ matrix)[blocks.rows], columns)

        logits = jnp.stack([scores(matrix) for matrix in mixed], axis=1)
        return logits + mixed_bias[:, None, None]
