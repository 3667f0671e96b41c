"""`python -m experiments.models`: the command `crysgnn models`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["models", *sys.argv[1:]])
