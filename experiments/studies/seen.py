"""What the shipped networks have seen: elements and sizes, counted over their crystals; and hashes
of their formulas, by which a student is warned whose test crystals are among them.

    python -m experiments.studies.seen UNTAGGED --exclude bundled --exclude jarvis_1k.npz \
        --exclude held_out.npz

``UNTAGGED`` is ``untagged.npz`` of `experiments.studies.crystals`; what is excluded is left out by
reduced formula, as `pretrain --exclude` did. ``crysgnn check`` compares a user's crystals with it.
"""

import argparse
from pathlib import Path

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import formulas_of
from crysgnn_jax.errors import InvalidCrystal
from crysgnn_jax.files import write_json
from crysgnn_jax.training.memory import Memory
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.shipped import FOLDER, SEEN
from crysgnn_jax.training.workdir import MEMORY

QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("untagged", type=Path)
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--output", type=Path, default=FOLDER / TEACHER / SEEN)
    args = parser.parse_args()
    excluded = {formula for name in args.exclude for formula in formulas_of(read(name))}
    elements = np.zeros(101, np.int64)
    sizes: list[int] = []
    volumes: list[float] = []
    formulas: set[str] = set()
    n_excluded = 0
    source = read(args.untagged)
    for start in range(0, len(source), 1000):
        for item in source.items(start, min(start + 1000, len(source))):
            try:
                crystal: Crystal = source.decode(item)
            except InvalidCrystal:
                continue
            if crystal.reduced_formula in excluded:
                n_excluded += 1
                continue
            elements[np.unique(crystal.species)] += 1
            sizes.append(len(crystal.species))
            formulas.add(crystal.reduced_formula)
            volumes.append(abs(np.linalg.det(crystal.lattice)) / len(crystal.species))
    quantiles = lambda values, digits: {
        f"{q:g}": round(float(np.quantile(values, q)), digits) for q in QUANTILES
    }
    write_json(
        args.output,
        {
            "n_crystals": len(sizes),
            "crystals_by_atomic_number": {str(z): int(n) for z, n in enumerate(elements) if n},
            "quantiles_of_n_atoms": quantiles(sizes, 1),
            "quantiles_of_volume_per_atom": quantiles(volumes, 3),
        },
    )
    Memory.of_formulas(formulas).save(args.output.with_name(MEMORY))
    print(f"{len(sizes)} crystals, {n_excluded} excluded by formula: {args.output}")


if __name__ == "__main__":
    main()
