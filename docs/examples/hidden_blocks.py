"""A pre-training objective of one's own: guess the blocks of the elements that were not shown.

    python docs/examples/hidden_blocks.py my_cifs/ --workdir runs/blocks

To have it among the package's own, for ``--objectives hidden_blocks=0.5``: this class in a file of
`crysgnn_jax/pretraining/`, and a line in `catalogue.py` there.
"""

import argparse
import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import crysgnn_jax as cg

# The first element of each stretch of the periodic table, and its block: s, p, d or f is 0 to 3.
FIRST = [0, 5, 11, 13, 19, 21, 31, 37, 39, 49, 55, 57, 72, 81, 87, 89]
BLOCKS = np.repeat([0, 1, 0, 1, 0, 2, 1, 0, 2, 1, 0, 3, 2, 1, 0, 3], np.diff([*FIRST, 101]))


@dataclasses.dataclass(frozen=True)
class HiddenBlocks(cg.Objective):
    """Cross entropy of the blocks of hidden elements, mean over their atoms.

    Attributes:
      fraction: of the kinds of atoms that are hidden in a step.
    """

    name: ClassVar[str] = "hidden_blocks"
    fraction: float = 0.15

    def head(self, width: int) -> nn.Module:
        return nn.Dense(4)

    def corrupt(self, batch: cg.Batch, key: jax.Array) -> cg.Batch:
        hidden = jax.random.bernoulli(key, self.fraction, batch.species.shape)
        return batch.with_nodes(species=jnp.where(hidden, 0, batch.species))

    def loss(self, outputs: jax.Array, batch: cg.Batch, seen: cg.Batch) -> jax.Array:
        right = jax.nn.one_hot(jnp.asarray(BLOCKS)[batch.species], 4)
        nll = -jnp.sum(right * jax.nn.log_softmax(outputs), axis=1)
        return batch.atoms.only(seen.species != batch.species).mean(nll)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", default="bundled")
    parser.add_argument("--workdir", default="runs/blocks")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    objectives = [(HiddenBlocks(), 0.5), *cg.objectives_of("chemistry")]
    cg.pretrain(args.data, objectives=objectives, workdir=args.workdir, epochs=args.epochs)
