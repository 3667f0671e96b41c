"""CrysAE: the crystal auto-encoder whose convolutions CrysXPP starts from (Das et al. 2022)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jraph

from crysgnn_jax.crystals.elements import N_FEATURES
from crysgnn_jax.models.encoder import CrystalEncoder
from crysgnn_jax.models.heads import ConnectionHead
from crysgnn_jax.models.layers import dense


class AutoencoderOutputs(NamedTuple):
    """What the heads say; see `TeacherOutputs`.

    Attributes:
      embeddings: ``[n_node, width]``, atom vectors of any length.
      connection_logits: ``[n_block, 6, TILE, TILE]``
      feature_logits: ``[n_node, 92]``
    """

    embeddings: jax.Array
    connection_logits: jax.Array
    feature_logits: jax.Array


class CrysAE(nn.Module):
    """102,924 parameters with the defaults, as released.

    The teacher's encoder and its two node-level heads, which here see the atom vectors as they
    are, not scaled to length 1.

    Attributes:
      width: length of an atom's vector.
      n_convolutions: rounds of messages.
      cutoff: Å, of the graphs; last centre of the distance basis.
      axis_name: device axis for batch statistics.
    """

    width: int = 64
    n_convolutions: int = 3
    cutoff: float = 8.0
    axis_name: str | None = None

    def setup(self):
        self.encoder = CrystalEncoder(
            self.width, self.n_convolutions, False, self.cutoff, axis_name=self.axis_name
        )
        self.connection = ConnectionHead()
        self.features = dense(N_FEATURES, self.width)

    def embed(self, graph: jraph.GraphsTuple, train: bool = False) -> jax.Array:
        """Atom vectors alone: ``[n_node, width]``, of any length."""
        return self.encoder(graph, train)

    def __call__(
        self, graph: jraph.GraphsTuple, train: bool, *, n_block: int
    ) -> AutoencoderOutputs:
        """Run the encoder and both heads.

        Args:
          graph: a padded batch.
          train: use and update batch statistics.
          n_block: static number of pair blocks, see `pairs.pair_blocks`.
        """
        atoms = self.embed(graph, train)
        return AutoencoderOutputs(
            embeddings=atoms,
            connection_logits=self.connection(atoms, graph, n_block),
            feature_logits=self.features(atoms),
        )
