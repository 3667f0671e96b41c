"""`python -m experiments.finetune`: the command `crysgnn finetune`, in a clone."""

from crysgnn_jax.commands import cli, finetune

if __name__ == "__main__":
    cli.run(finetune)
