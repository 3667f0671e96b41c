"""`python -m experiments.distill`: the command `crysgnn distill`, in a clone."""

from crysgnn_jax.commands import cli
from crysgnn_jax.commands.distill import main

if __name__ == "__main__":
    cli.run(main)
