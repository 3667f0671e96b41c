"""`python -m experiments.pretrain`: the command `crysgnn pretrain`, in a clone."""

from crysgnn_jax.commands import cli
from crysgnn_jax.commands.pretrain import main

if __name__ == "__main__":
    cli.run(main)
