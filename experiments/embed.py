"""`python -m experiments.embed`: the command `crysgnn embed`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["embed", *sys.argv[1:]])
