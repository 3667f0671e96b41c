"""The crystals that the studies are made with: tables, splits, and what no teacher may see.

    python -m experiments.studies.crystals FOLDER --output runs/studies

``FOLDER`` holds ``mp_36k.npz``, ``mp_155k.npz`` (Materials Project, CC-BY 4.0), ``perov_5.npz`` and
``carbon_24.npz``, as crystal tables. Written are

``untagged.npz``
    every crystal of ``mp_155k``, those of ``mp_36k`` that it lacks, perovskites, carbons, without
    any label
``mp.npz``
    the crystals of ``mp_36k`` of at most 40 atoms that have a formation energy and a band gap
``held_out.npz``
    2,500 of them, whose formulas occur nowhere else in ``mp.npz``: what students are chosen by and
    tested on; to be left out of ``untagged.npz`` by formula (``pretrain --exclude``)
``splits/N_SEED.json``
    N of the others to learn from, 500 and 2,000 of ``held_out.npz`` to choose by and to test on.
    The smaller sets of a seed lie within the larger ones; test and validation are the same for all
"""

import argparse
import json
from pathlib import Path

import numpy as np

N_VALIDATION, N_TEST = 500, 2000
SIZES = (100, 300, 1000, 3000, 4000, 10000)
SEEDS = (0, 1, 2)
LABELS = ("formation_energy_per_atom", "band_gap", "log10_bulk_modulus", "log10_shear_modulus")


class Table:
    """A crystal table in memory."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as file:
            self.columns = {name: file[name] for name in file.files}
        self.n_atoms = self.columns["n_atoms"]
        self.ends = np.cumsum(self.n_atoms)

    def chosen(self, rows: np.ndarray, labels=(), prefix: str = "") -> dict[str, np.ndarray]:
        """The structures of some rows, with some of their columns."""
        starts = self.ends[rows] - self.n_atoms[rows]
        atoms = np.concatenate(
            [np.arange(a, b) for a, b in zip(starts, self.ends[rows])]
            if len(rows)
            else [np.empty(0, int)]
        )
        out = {name: self.columns[name][rows] for name in ("n_atoms", "lattice", *labels)}
        out |= {name: self.columns[name][atoms] for name in ("numbers", "frac_coords")}
        out["ids"] = np.char.add(prefix, self.columns["ids"][rows].astype(str))
        return out


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Several tables of the same columns as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/studies"))
    args = parser.parse_args()
    (args.output / "splits").mkdir(parents=True, exist_ok=True)

    mp, many = Table(args.folder / "mp_36k.npz"), Table(args.folder / "mp_155k.npz")
    parts = [many.chosen(np.arange(len(many.n_atoms)))]
    new = ~np.isin(mp.columns["ids"], many.columns["ids"])
    parts.append(mp.chosen(np.flatnonzero(new)))
    for name in ("perov_5", "carbon_24"):
        table = Table(args.folder / f"{name}.npz")
        parts.append(table.chosen(np.arange(len(table.n_atoms)), prefix=f"{name}-"))
    np.savez(args.output / "untagged.npz", **joined(parts))

    known = np.isfinite(mp.columns["formation_energy_per_atom"])
    known &= np.isfinite(mp.columns["band_gap"])
    rows = np.flatnonzero(known & (mp.n_atoms <= 40))
    np.savez(args.output / "mp.npz", **mp.chosen(rows, LABELS))

    # Whole formulas, in random order, until there are enough crystals.
    groups = mp.columns["formula_group"][rows]
    order = np.random.default_rng(0).permutation(np.unique(groups))
    place = np.empty(order.max() + 1, int)
    place[order] = np.arange(len(order))
    by_place = rows[np.argsort(place[groups], kind="stable")]
    held_out, pool = by_place[: N_VALIDATION + N_TEST], by_place[N_VALIDATION + N_TEST :]
    last = mp.columns["formula_group"][held_out[-1]]
    pool = pool[mp.columns["formula_group"][pool] != last]
    np.savez(args.output / "held_out.npz", **mp.chosen(held_out, LABELS))

    ids = mp.columns["ids"]
    sides = {
        "validation": ids[held_out[:N_VALIDATION]].tolist(),
        "test": ids[held_out[N_VALIDATION:]].tolist(),
    }
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(pool)
        for size in (*SIZES, len(pool)):
            name = "all" if size == len(pool) else str(size)
            split = {"train": ids[order[:size]].tolist(), **sides}
            (args.output / "splits" / f"{name}_{seed}.json").write_text(json.dumps(split))
        # Moduli are known of one crystal in four, and split among those alone.
        moduli = order[np.isfinite(mp.columns["log10_bulk_modulus"][order])]
        for size in (1000, len(moduli)):
            name = "all" if size == len(moduli) else str(size)
            split = {"train": ids[moduli[:size]].tolist(), **sides}
            (args.output / "splits" / f"moduli_{name}_{seed}.json").write_text(json.dumps(split))
    print(f"{len(rows)} crystals with labels, {len(pool)} of them to learn from")


if __name__ == "__main__":
    main()
