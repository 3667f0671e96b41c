"""`python -m experiments.convert`: the command `crysgnn convert`, in a clone."""

from crysgnn_jax.commands import cli
from crysgnn_jax.commands.convert import main

if __name__ == "__main__":
    cli.run(main)
