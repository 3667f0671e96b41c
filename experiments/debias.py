"""`python -m experiments.debias`: the command `crysgnn debias`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["debias", *sys.argv[1:]])
