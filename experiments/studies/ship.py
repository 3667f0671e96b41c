"""Put a finished run among the networks that come with the package.

python -m experiments.studies.ship runs/teacher crysgnn-mp
"""

import argparse
from pathlib import Path

from crysgnn_jax.training.shipped import FOLDER, ship


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("name")
    args = parser.parse_args()
    folder = FOLDER / args.name
    ship(args.workdir, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
