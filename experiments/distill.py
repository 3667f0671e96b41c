"""`python -m experiments.distill`: the command `crysgnn distill`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["distill", *sys.argv[1:]])
