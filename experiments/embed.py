"""`python -m experiments.embed`: the command `crysgnn embed`, in a clone."""

from crysgnn_jax.commands import cli, embed

if __name__ == "__main__":
    cli.run(embed)
