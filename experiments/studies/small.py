"""Students of so few labels that they might as well have said the mean.

python -m experiments.studies.small

Three properties of the bundled sets, on 20, 50 and 100 crystals: 80 % to learn from and 10 % to
choose the epoch by, which is what a user with so many has. The errors are those on 300 others, for
the last 10 % would say nothing. Runs are made once; the same command goes on, and ``--collect``
writes the record of those that are there.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.commands import cli, distill
from crysgnn_jax.crystals.named import load_named
from experiments.studies.runs import Job, about, add_flags

N_TEST = 300
SEEDS = (0, 1, 2)


class Cell(NamedTuple):
    """A row of the table: a property of a bundled set, so many crystals and so long a run."""

    data: str
    property: str
    n: int
    epochs: int


CELLS = [
    Cell(data, property, n, epochs)
    for epochs in (60, 6)
    for data, property in (
        ("elastic", "bulk_modulus_vrh"),
        ("dielectric", "band_gap"),
        ("formation_energy", "formation_energy_per_atom"),
    )
    for n in (20, 50, 100)
]


def write_split(path: Path, cell: Cell, seed: int) -> Path:
    """``splits.json`` of the crystals of a cell, and `N_TEST` others to test on.

    The smaller sets of a seed lie within the larger ones, and are tested on the same crystals.
    """
    source = load_named(cell.data)
    ids = source.ids()
    assert ids is not None
    drawn = np.random.default_rng(seed).permutation(ids[source.labelled(cell.property)])
    few, n_validation = drawn[N_TEST : N_TEST + cell.n], cell.n // 10
    parts = {
        "train": few[2 * n_validation :],
        "validation": few[:n_validation],
        "test": drawn[:N_TEST],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: part.tolist() for name, part in parts.items()}))
    return path


def jobs(output: Path, student: str, cell: Cell) -> list[Job]:
    """The runs of a cell, seed by seed."""
    found = []
    for seed in SEEDS:
        split = output / "splits" / f"{cell.data}-{cell.n}-{seed}.json"
        name = f"{student}-{cell.data}-{cell.n}-{cell.epochs}-{seed}"
        flags = ["--student", student, "--vanilla", "--data", cell.data, "--property",
                 cell.property, "--split", write_split(split, cell, seed), "--seed", seed,
                 "--epochs", cell.epochs]  # fmt: skip
        found.append(Job(output / name, distill, flags))
    return found


def summary(runs: list[Job]) -> dict[str, Any]:
    """Errors of a cell, seed by seed, and those of predicting the mean."""
    results = [job.result() for job in runs]
    of = lambda name: [result[name] for result in results]
    return {
        "unit": results[0]["unit"],
        "n_train": results[0]["n_train"],
        "n_validation": results[0]["n_validation"],
        "n_test": results[0]["n_test"],
        "test_mae": of("test_mae"),
        "test_mae_of_mean": of("test_mae_of_mean"),
        "train_mae": of("train_mae"),
        "best_epoch": of("best_epoch"),
        "steps": of("steps"),
        "seconds": of("seconds"),
    }


def markdown(cells: dict[str, Any]) -> str:
    """A row a cell: both errors, and by how much the student's is lower, seed by seed."""
    lines = [
        "| property | crystals | epochs | MAE of the mean | MAE | lower by, % |",
        "|---|---|---|---|---|---|",
    ]
    show = lambda x, digits: f"{np.mean(x):.{digits}g} ± {np.std(x, ddof=1):.2g}"
    for name, cell in cells.items():
        _, _, property, n, epochs = name.split()
        errors = [np.array(cell[x]) for x in ("test_mae_of_mean", "test_mae")]
        lower = 100 * (1 - errors[1] / errors[0])
        title = f"{property.replace('_', ' ')}, {cell['unit']}"
        lines.append(
            f"| {title} | {n} | {epochs} | {show(errors[0], 3)} | {show(errors[1], 3)} | "
            f"{np.mean(lower):.0f} ± {np.std(lower, ddof=1):.0f} |".replace("| -", "| −")
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--student", default="cgcnn")
    parser.add_argument("--only", nargs="+", default=[], help="words that a cell's name has")
    add_flags(parser, "small")
    args = parser.parse_args()
    record = {}
    for cell in CELLS:
        name = f"{args.student} {cell.data} {cell.property} {cell.n} {cell.epochs}"
        if not all(word in name.split() for word in args.only):
            continue
        runs = jobs(args.output, args.student, cell)
        made = all((job.path / "result.json").exists() for job in runs)
        if made or not args.collect:
            record[name] = found = summary(runs)
            print(name, *(f"{x:.4g}" for x in found["test_mae"]), "mean:",
                  *(f"{x:.4g}" for x in found["test_mae_of_mean"]), flush=True)  # fmt: skip
    if args.collect:
        args.record.write_text(json.dumps({**about(), "cells": record}, indent=1) + "\n")
    print(markdown(record))


if __name__ == "__main__":
    cli.run_study(main)
