"""`python -m experiments.pretrain`: the command `crysgnn pretrain`, in a clone."""

from crysgnn_jax.commands import cli, pretrain

if __name__ == "__main__":
    cli.run(pretrain)
