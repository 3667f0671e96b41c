"""The four losses of the teacher (Das et al., AAAI 2023, section "Pre-training")."""

import dataclasses

import jax
import jax.numpy as jnp
import jraph

from crysgnn_jax.crystals.elements import element_features
from crysgnn_jax.models.graph import masks, multiplicities
from crysgnn_jax.models.layers import softplus
from crysgnn_jax.models.pairs import connection_counts
from crysgnn_jax.models.teacher import TeacherOutputs
from crysgnn_jax.objectives.reduction import Loss, mean_share

CONNECTION_CLASS_WEIGHTS = (0.1, 1.0, 1.0, 1.0, 1.0, 1.0)


def connection_terms(
    logits: jax.Array,
    graph: jraph.GraphsTuple,
    class_weights: tuple[float, ...] = CONNECTION_CLASS_WEIGHTS,
) -> tuple[jax.Array, jax.Array]:
    """Negative log likelihood of the number of edges between two atoms, and its weight.

    Args:
      logits: ``[n_block, 6, TILE, TILE]``, as of `TeacherOutputs.connection_logits`.
      graph: the batch; the target of pair (i, j) is how many of i's neighbours are images of j,
        5 standing for five or more.
      class_weights: weight of each class.

    Returns:
      Both ``[n_block, TILE, TILE]``: the mean over the pairs of atoms that a pair of nodes stands
      for, and the sum of their weights, 0 where there is no pair.
    """
    counts = connection_counts(graph, logits.shape[0])
    by_class = counts * jnp.asarray(class_weights, logits.dtype)[:, None, None]
    weights = jnp.sum(by_class, axis=1)
    share = by_class / jnp.where(weights > 0, weights, 1.0)[:, None]
    return jax.nn.logsumexp(logits, axis=1) - jnp.sum(logits * share, axis=1), weights


def connection_loss(
    logits: jax.Array,
    graph: jraph.GraphsTuple,
    *,
    class_weights: tuple[float, ...] = CONNECTION_CLASS_WEIGHTS,
    axis_name: str | None = None,
) -> jax.Array:
    """Mean of `connection_terms` over all pairs of the batch, weighted."""
    return mean_share(*connection_terms(logits, graph, class_weights), axis_name)


def feature_entropy(logits: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """``[n_node]``: binary cross entropy of the 92 element features, their mean.

    Args:
      logits: ``[n_node, 92]``
      graph: the batch.
    """
    targets = jnp.asarray(element_features())[graph.nodes["species"]]
    return jnp.mean(softplus(logits) - targets * logits, axis=1)


def feature_loss(
    logits: jax.Array, graph: jraph.GraphsTuple, *, axis_name: str | None = None
) -> jax.Array:
    """Mean of `feature_entropy` over the atoms of the batch."""
    return mean_share(feature_entropy(logits, graph), multiplicities(graph).nodes, axis_name)


def space_group_loss(
    logits: jax.Array, graph: jraph.GraphsTuple, *, axis_name: str | None = None
) -> jax.Array:
    """Negative log likelihood of ``globals["space_group"]`` (1…230), logits ``[n_graph, 230]``."""
    targets = jnp.clip(graph.globals["space_group"] - 1, 0)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)[:, 0]
    return mean_share(nll, masks(graph).graphs, axis_name)


def contrastive_loss(
    vectors: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    *,
    temperature: float = 0.07,
    axis_name: str | None = None,
) -> jax.Array:
    """NT-Xent over all ordered pairs (a, p) with the same label, averaged over the pairs.

    ``−log(e^{s_ap/τ} / (e^{s_ap/τ} + Σ_n e^{s_an/τ}))`` with s the cosine and n running over the
    vectors with another label than a; 0 where no two vectors share a label.

    Args:
      vectors: ``[n, d]``
      labels: ``[n]`` integers.
      mask: ``[n]``, 1.0 for real vectors.
      temperature: τ.
      axis_name: device axis; pairs are formed across devices.
    """
    # A crystal vector can be short where its atoms' embeddings point in all directions, never 0.
    norms = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(vectors), axis=1, keepdims=True), 1e-24))
    unit = vectors / norms
    everyone, all_labels, all_mask = unit, labels, mask
    first = 0
    if axis_name is not None:
        everyone, all_labels, all_mask = (
            jax.lax.all_gather(x, axis_name, tiled=True) for x in (unit, labels, mask)
        )
        first = jax.lax.axis_index(axis_name) * len(labels)
    similarity = unit @ everyone.T / temperature
    real = mask[:, None] * all_mask[None, :]
    itself = jnp.arange(len(all_labels))[None, :] == first + jnp.arange(len(labels))[:, None]
    same = labels[:, None] == all_labels[None, :]
    positive = real * (same & ~itself)
    # −1e9 stands for −∞: an anchor without negatives then adds softplus(−1e9 − s) = 0, and no
    # 0 · ∞ arises in the gradient.
    negative = jnp.where((real > 0) & ~same, similarity, -1e9)
    nll = softplus(jax.nn.logsumexp(negative, axis=1, keepdims=True) - similarity)
    return mean_share(nll, positive, axis_name)


@dataclasses.dataclass(frozen=True)
class PretrainingWeights:
    """Weight of each loss in the total."""

    connection: float = 0.25
    feature: float = 0.25
    space_group: float = 0.25
    contrastive: float = 0.25


def pretraining_loss(
    weights: PretrainingWeights = PretrainingWeights(),
    *,
    temperature: float = 0.07,
    axis_name: str | None = None,
) -> Loss:
    """The teacher's loss: the weighted sum of its four.

    The batch carries ``globals["space_group"]`` and ``globals["crystal_system"]`` ``[n_graph]``.
    """

    def loss(outputs: TeacherOutputs, graph: jraph.GraphsTuple):
        parts = {
            "connection": connection_loss(outputs.connection_logits, graph, axis_name=axis_name),
            "feature": feature_loss(outputs.feature_logits, graph, axis_name=axis_name),
            "space_group": space_group_loss(outputs.space_group_logits, graph, axis_name=axis_name),
            "contrastive": contrastive_loss(
                outputs.crystals,
                graph.globals["crystal_system"],
                masks(graph).graphs,
                temperature=temperature,
                axis_name=axis_name,
            ),
        }
        total = sum(getattr(weights, name) * value for name, value in parts.items())
        return total, parts

    return loss


def space_group_accuracy(
    outputs: TeacherOutputs, graph: jraph.GraphsTuple, *, axis_name: str | None = None
) -> jax.Array:
    """Fraction of the crystals whose space group is the head's first guess."""
    guess = jnp.argmax(outputs.space_group_logits, axis=1) + 1
    right = (guess == graph.globals["space_group"]).astype(jnp.float32)
    return mean_share(right, masks(graph).graphs, axis_name)
