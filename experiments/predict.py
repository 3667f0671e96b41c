"""`python -m experiments.predict`: the command `crysgnn predict`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
