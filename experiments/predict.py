"""`python -m experiments.predict`: the command `crysgnn predict`, in a clone."""

from crysgnn_jax.commands import cli
from crysgnn_jax.commands.predict import main

if __name__ == "__main__":
    cli.run(main)
