"""`python -m experiments.convert`: the command `crysgnn convert`, in a clone."""

from crysgnn_jax.commands import cli, convert

if __name__ == "__main__":
    cli.run(convert)
