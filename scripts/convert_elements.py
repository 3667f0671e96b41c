"""Write ``crysgnn_jax/crystals/elements.csv`` from the element table that jarvis-tools ships.

    pip download --no-deps jarvis-tools==2026.6.12
    python scripts/convert_elements.py jarvis_tools-2026.6.12-py2.py3-none-any.whl

The table is the one of CGCNN (Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018)): nine
properties an element, each cut into bins, 92 bins in all. As 0/1 vectors it is 28 kB of JSON;
as bin numbers, one column a property, it is readable.
"""

import argparse
import csv
import json
import zipfile

import numpy as np
from ase.data import chemical_symbols

from crysgnn_jax.crystals.elements import PROPERTY_BINS, TABLE_PATH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", help="the jarvis-tools wheel")
    wheel = zipfile.ZipFile(parser.parse_args().wheel)
    table = json.loads(wheel.read("jarvis/core/atom_init.json"))
    edges = np.cumsum([0, *PROPERTY_BINS.values()])
    with open(TABLE_PATH, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", "symbol", *PROPERTY_BINS])
        for number in range(1, len(table) + 1):
            features = np.array(table[str(number)])
            bins = [np.flatnonzero(features[a:b]).tolist() for a, b in zip(edges, edges[1:])]
            assert max(map(len, bins)) <= 1, f"element {number} has two bins in one property"
            writer.writerow([number, chemical_symbols[number], *(b[0] if b else "" for b in bins)])


if __name__ == "__main__":
    main()
