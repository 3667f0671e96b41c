"""`python -m experiments.nearest`: the command `crysgnn nearest`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["nearest", *sys.argv[1:]])
