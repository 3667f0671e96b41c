"""Write ``crysgnn_jax/crystals/oxidation_states.csv`` from the periodic table of pymatgen (MIT).

    pip install pymatgen
    python scripts/convert_oxidation_states.py

Common states are those that pymatgen calls so; rarer ones are the others that occur in the
structures of the Inorganic Crystal Structure Database.
"""

import csv
import math

from pymatgen.core import Element

from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.oxidation import TABLE_PATH


def main() -> None:
    with open(TABLE_PATH, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", "symbol", "electronegativity", "common", "rarer"])
        for number, symbol in enumerate(SYMBOLS[1:], 1):
            element = Element(symbol)
            common = [state for state in element.common_oxidation_states if state]
            rarer = [x for x in element.icsd_oxidation_states if x and x not in common]
            value = "" if math.isnan(element.X) else element.X
            states = (" ".join(map(str, found)) for found in (common, rarer))
            writer.writerow([number, symbol, value, *states])


if __name__ == "__main__":
    main()
