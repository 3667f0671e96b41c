"""`python -m experiments.distill`: the command `crysgnn distill`, in a clone."""

from crysgnn_jax.commands import cli, distill

if __name__ == "__main__":
    cli.run(distill)
