"""`python -m experiments.compare`: the command `crysgnn compare`, in a clone."""

from crysgnn_jax.commands import cli, compare

if __name__ == "__main__":
    cli.run(compare)
