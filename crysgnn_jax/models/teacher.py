"""CrysGNN, the teacher: an encoder and four heads that need no property labels.

Das et al., AAAI 2023, arXiv 2301.05852.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jraph

from crysgnn_jax.crystals.elements import N_FEATURES
from crysgnn_jax.models.encoder import CrystalEncoder
from crysgnn_jax.models.graph import l2_normalise, mean_pool
from crysgnn_jax.models.heads import ConnectionHead
from crysgnn_jax.models.layers import dense

N_SPACE_GROUPS = 230


class TeacherOutputs(NamedTuple):
    """What the heads say.

    Attributes:
      embeddings: ``[n_node, width]``, atom vectors of length 1: what is distilled.
      crystals: ``[n_graph, width]``, mean of the embeddings.
      connection_logits: ``[n_block, 6, TILE, TILE]``, number of edges j → i (5: five or more)
        of each pair, in the layout of `pairs.pair_blocks`.
      feature_logits: ``[n_node, 92]``, element features.
      space_group_logits: ``[n_graph, 230]``.
    """

    embeddings: jax.Array
    crystals: jax.Array
    connection_logits: jax.Array
    feature_logits: jax.Array
    space_group_logits: jax.Array


class Teacher(nn.Module):
    """162,162 parameters with the defaults, as released.

    Attributes:
      width: length of an embedding.
      n_convolutions: rounds of messages.
      cutoff: Å, of the graphs; last centre of the distance basis.
      axis_name: device axis for batch statistics.
    """

    width: int = 64
    n_convolutions: int = 5
    cutoff: float = 8.0
    axis_name: str | None = None

    def setup(self):
        self.encoder = CrystalEncoder(
            self.width, self.n_convolutions, False, self.cutoff, axis_name=self.axis_name
        )
        self.connection = ConnectionHead()
        self.features = dense(N_FEATURES, self.width)
        self.space_group = dense(N_SPACE_GROUPS, self.width)

    def embed(self, graph: jraph.GraphsTuple, train: bool = False) -> jax.Array:
        """Embeddings alone: ``[n_node, width]``, each of length 1."""
        return l2_normalise(self.encoder(graph, train))

    def __call__(self, graph: jraph.GraphsTuple, train: bool, *, n_block: int) -> TeacherOutputs:
        """Run the encoder and all heads.

        Args:
          graph: a padded batch.
          train: use and update batch statistics.
          n_block: static number of pair blocks, see `pairs.pair_blocks`.
        """
        atoms = self.embed(graph, train)
        crystals = mean_pool(atoms, graph)
        return TeacherOutputs(
            embeddings=atoms,
            crystals=crystals,
            connection_logits=self.connection(atoms, graph, n_block),
            feature_logits=self.features(atoms),
            space_group_logits=self.space_group(crystals),
        )
