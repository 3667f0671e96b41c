"""`python -m experiments.explain`: the command `crysgnn explain`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["explain", *sys.argv[1:]])
