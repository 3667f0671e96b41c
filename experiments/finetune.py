"""`python -m experiments.finetune`: the command `crysgnn finetune`, in a clone."""

import sys

from crysgnn_jax.__main__ import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
