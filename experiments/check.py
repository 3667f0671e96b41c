"""`python -m experiments.check`: the command `crysgnn check`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["check", *sys.argv[1:]])
