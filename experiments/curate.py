"""`python -m experiments.curate`: the command `crysgnn curate`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["curate", *sys.argv[1:]])
