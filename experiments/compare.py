"""`python -m experiments.compare`: the command `crysgnn compare`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
