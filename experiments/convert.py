"""`python -m experiments.convert`: the command `crysgnn convert`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
