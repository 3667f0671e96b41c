"""The loss of the crystal auto-encoder: two of the teacher's, crystal by crystal."""

import dataclasses

import jax
import jax.numpy as jnp
import jraph

from crysgnn_jax.models.crysae import AutoencoderOutputs
from crysgnn_jax.models.graph import masks, mean_pool, node_graph_ids
from crysgnn_jax.models.pairs import pair_blocks
from crysgnn_jax.objectives.pretraining import connection_terms, feature_entropy
from crysgnn_jax.objectives.reduction import Loss, mean_share


def connection_by_crystal(logits: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """``[n_graph]``: weighted mean over the pairs of each crystal; 0 for empty ones.

    Args:
      logits: ``[n_block, 6, TILE, TILE]``, as of `AutoencoderOutputs.connection_logits`.
      graph: the batch.
    """
    nll, weights = connection_terms(logits, graph)
    # A block belongs to one crystal, and its first pair is real where the block is used at all.
    crystal = node_graph_ids(graph)[pair_blocks(graph, len(logits)).rows[:, 0]]
    sums = jnp.stack([jnp.sum(nll * weights, axis=(1, 2)), jnp.sum(weights, axis=(1, 2))], axis=1)
    sums = jax.ops.segment_sum(sums, crystal, len(graph.n_node))
    return sums[:, 0] / jnp.where(sums[:, 1] > 0, sums[:, 1], 1.0)


@dataclasses.dataclass(frozen=True)
class AutoencoderWeights:
    """Weight of each loss in the total."""

    connection: float = 0.9
    feature: float = 0.1


def autoencoder_loss(
    weights: AutoencoderWeights = AutoencoderWeights(), *, axis_name: str | None = None
) -> Loss:
    """The auto-encoder's loss: mean over crystals, each of which weighs the same.

    The mean over real crystals: the released script divides by the nominal size of a batch, also
    where the last one is short.
    """

    def loss(outputs: AutoencoderOutputs, graph: jraph.GraphsTuple):
        entropy = feature_entropy(outputs.feature_logits, graph)
        by_crystal = {
            "connection": connection_by_crystal(outputs.connection_logits, graph),
            "feature": mean_pool(entropy[:, None], graph)[:, 0],
        }
        real = masks(graph).graphs
        parts = {name: mean_share(x, real, axis_name) for name, x in by_crystal.items()}
        total = sum(getattr(weights, name) * value for name, value in parts.items())
        return total, parts

    return loss
