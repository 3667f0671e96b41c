"""`python -m experiments.pretrain`: the command `crysgnn pretrain`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["pretrain", *sys.argv[1:]])
