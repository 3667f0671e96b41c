"""A pre-training objective of one's own: guess the elements that the encoder was not shown.

    python docs/examples/masked_elements.py my_cifs/ --workdir runs/masked

Published for molecules by Hu et al. (ICLR 2020). To have it among the package's own, as a flag
``--masked-elements-weight``: this class in a file of `crysgnn_jax/pretraining/`, and a line in
`catalogue.py` there.
"""

import argparse
import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

import crysgnn_jax as cg


@dataclasses.dataclass(frozen=True)
class MaskedElements(cg.Objective):
    """Cross entropy of the hidden elements, mean over their atoms.

    Attributes:
      fraction: of the kinds of atoms that are hidden in a step.
    """

    name: ClassVar[str] = "masked_elements"
    fraction: float = 0.15

    def head(self, width: int) -> nn.Module:
        return nn.Dense(101)

    def corrupt(self, batch: cg.Batch, key: jax.Array) -> cg.Batch:
        hidden = jax.random.bernoulli(key, self.fraction, batch.species.shape)
        return batch.with_nodes(species=jnp.where(hidden, 0, batch.species))

    def loss(self, outputs: jax.Array, batch: cg.Batch, seen: cg.Batch) -> jax.Array:
        chances = jax.nn.log_softmax(outputs)
        nll = -jnp.take_along_axis(chances, batch.species[:, None], axis=1)[:, 0]
        return batch.atoms.only(seen.species != batch.species).mean(nll)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", default="bundled")
    parser.add_argument("--workdir", default="runs/masked")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    objectives = [(MaskedElements(), 0.5), *cg.objectives_of("crysgnn", {"feature": 0.0})]
    cg.pretrain(args.data, objectives=objectives, workdir=args.workdir, epochs=args.epochs)
