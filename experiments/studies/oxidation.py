"""How many crystals have no band gap, by how their formula is made neutral.

    python -m experiments.studies.oxidation ../data/studies/mp.npz

The table has the property ``band_gap``, eV; below 0.01 eV it counts as none.
"""

import argparse
from pathlib import Path

import numpy as np

from crysgnn_jax.commands import cli
from crysgnn_jax.commands.data import crystals_of
from crysgnn_jax.crystals.oxidation import CLASSES, OxidationTable
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.files import write_json
from experiments.studies.runs import about

NO_GAP = 0.01
"""eV."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--record", type=Path, default=Path("results/oxidation.json"))
    args = parser.parse_args()
    known = [x for x in crystals_of(read(args.data)) if "band_gap" in x.labels]
    table = OxidationTable(np.array([x.reduced_formula for x in known]))
    kinds = table(np.arange(len(known)), np.array([x.species[0] for x in known]))[:, 1]
    gaps = np.array([x.labels["band_gap"] for x in known])
    classes = {}
    for kind, name in enumerate(CLASSES):
        of_kind = gaps[kinds == kind]
        classes[name] = {
            "crystals": len(of_kind),
            "without_gap": round(float((of_kind < NO_GAP).mean()), 4),
            "mean_gap": round(float(of_kind.mean()), 4),
        }
        print(name, *classes[name].values())
    write_json(args.record, {**about(), "classes": classes})


if __name__ == "__main__":
    cli.run_study(main)
