"""`python -m experiments.dashboard`: the command `crysgnn dashboard`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["dashboard", *sys.argv[1:]])
