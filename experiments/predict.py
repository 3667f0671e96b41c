"""`python -m experiments.predict`: the command `crysgnn predict`, in a clone."""

from crysgnn_jax.commands import cli, predict

if __name__ == "__main__":
    cli.run(predict)
