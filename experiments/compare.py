"""`python -m experiments.compare`: the command `crysgnn compare`, in a clone."""

from crysgnn_jax.commands import cli
from crysgnn_jax.commands.compare import main

if __name__ == "__main__":
    cli.run(main)
