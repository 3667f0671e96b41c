"""The poster's table: every property and student, with and without the teacher.

python -m experiments.studies.gain ../data --students cgcnn --output runs/studies

ALIGNN is a small one: two of each of its layers in place of four, 64 wide in place of 256. No start
of it comes with the package, so it is made first.

``../data`` holds the folder ``studies`` that `experiments.studies.crystals` has made, and
``jarvis_1k.npz``. Runs are made once; the same command goes on, and ``--collect`` writes the cells
of those that are there into the record, beside the others that it has. Each cell says by which
commit its runs were made.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.commands import cli, distill, pretrain
from crysgnn_jax.files import write_json
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.workdir import CONFIG, read_json
from experiments.studies.runs import Job, about, add_flags, epochs_for, interval_of_gain

JARVIS = (
    "formation_energy_peratom", "optb88vdw_bandgap", "optb88vdw_total_energy", "ehull",
    "mbj_bandgap", "spillage", "bulk_modulus_kv", "shear_modulus_gv",
)  # fmt: skip


STUDENTS = ("cgcnn", "crysxpp", "gatgnn", "alignn")


class Cell(NamedTuple):
    """A row of the table: a property, at one number of labels."""

    data: str
    property: str
    n: int | str
    seeds: int


CELLS = [
    *(Cell("mp", name, n, 3) for name in ("formation_energy_per_atom", "band_gap") for n in
      (300, 1000, 4000, "all")),
    *(Cell("mp", f"log10_{name}_modulus", n, 3) for name in ("bulk", "shear") for n in
      (1000, "all")),
    *(Cell("jarvis_1k", name, "", 5) for name in JARVIS),
]  # fmt: skip

N_LABELS = {"spillage": 294, "mbj_bandgap": 568, "ehull": 929}
"""Of JARVIS's crystals; 881 to 940 of the others."""

ALL = {"log10_bulk_modulus": 6230, "log10_shear_modulus": 6230}
"""Labels that there are to learn from in ``mp.npz``; 23,721 of the others."""

SMALL_ALIGNN = ["--set", "width=64", "--set", "n_alignn=2", "--set", "n_gcn=2"]
"""The whole one takes an hour for 300 labels on two cores."""


def start_of_alignn(data: Path, output: Path) -> Job:
    """Small ALIGNN follows the teacher over ``mp.npz``, for as many passes as `distill` makes."""
    data = data / "studies"
    flags = ["--network", "alignn", *SMALL_ALIGNN, "--follow", TEACHER, "--data", data / "mp.npz",
             "--exclude", data / "held_out.npz", "--epochs", 5]  # fmt: skip
    return Job(output / "starts" / "alignn", pretrain, flags)


def jobs(data: Path, output: Path, student: str, cell: Cell) -> Iterator[tuple[Job, Job]]:
    """The twins of a cell, seed by seed."""
    for seed in range(cell.seeds):
        name = f"{cell.data}-{cell.property}-{cell.n}-{seed}-{student}"
        if cell.data == "mp":
            prefix = "moduli_" if "modulus" in cell.property else ""
            table = data / "studies" / "mp.npz"
            split = data / "studies" / "splits" / f"{prefix}{cell.n}_{seed}.json"
            n = ALL.get(cell.property, 23_721) if cell.n == "all" else int(cell.n)
            epochs = epochs_for(n)
        else:
            table, split = data / f"{cell.data}.npz", Path("formula")
            epochs = epochs_for(round(0.8 * N_LABELS.get(cell.property, 900)))
        flags = ["--student", student, "--data", table, "--property", cell.property, "--split",
                 split, "--seed", seed, "--epochs", epochs, "--patience", epochs]  # fmt: skip
        start = []
        if student == "alignn":
            # Batches of 16 and not of 64: still more steps than the others have.
            flags += [*SMALL_ALIGNN, "--epochs", epochs // 3, "--patience", epochs // 3]
            start = ["--start", start_of_alignn(data, output).path]
        vanilla = Job(output / name / "vanilla", distill, [*flags, "--vanilla"])
        distilled = [*flags, *start, "--weight", 0.1]
        yield vanilla, Job(output / name / "distilled", distill, distilled)


def summary(pairs: list[tuple[Job, Job]]) -> dict[str, Any]:
    """Errors of a cell, over its seeds."""
    vanilla, distilled = ([job.result() for job in column] for column in zip(*pairs))
    before, after = (np.array([x["test_mae"] for x in of]) for of in (vanilla, distilled))
    low, high = interval_of_gain(*([job.path for job in column] for column in zip(*pairs)))
    return {
        "unit": vanilla[0]["unit"],
        "n_train": vanilla[0]["n_train"],
        "n_test": vanilla[0]["n_test"],
        "epochs": vanilla[0]["epochs"],
        "vanilla": before.tolist(),
        "distilled": after.tolist(),
        "validation": {
            "vanilla": [x["validation_mae"] for x in vanilla],
            "distilled": [x["validation_mae"] for x in distilled],
        },
        "gain": float(100 * (1 - after.mean() / before.mean())),
        "gain_interval": [low, high],
        "of_mean": float(np.mean([x["test_mae_of_mean"] for x in vanilla])),
        "seconds": {
            "vanilla": round(float(np.mean([x["seconds"] for x in vanilla])), 1),
            "distilled": round(float(np.mean([x["seconds"] for x in distilled])), 1),
        },
        "start": distilled[0].get("start"),
        "teacher": read_json(pairs[0][1].path / CONFIG)["made_with"]["teacher"],
        "commit": pairs[0][1].commit(),
    }


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Cells of a record with those that were made anew, in the order of the table."""
    cells = {**old, **new}
    place = {
        f"{student} {cell.data} {cell.property} {cell.n}".strip(): (s, c)
        for s, student in enumerate(STUDENTS)
        for c, cell in enumerate(CELLS)
    }
    return {name: cells[name] for name in sorted(cells, key=lambda name: place[name])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--students", nargs="+", default=STUDENTS, choices=STUDENTS)
    parser.add_argument("--only", nargs="+", default=[], help="words that a cell's name has")
    add_flags(parser, "gain")
    args = parser.parse_args()
    record = {}
    for student in args.students:
        for cell in CELLS:
            name = f"{student} {cell.data} {cell.property} {cell.n}".strip()
            if not all(word in name.split() for word in args.only):
                continue
            pairs = list(jobs(args.data, args.output, student, cell))
            made = all((job.path / "result.json").exists() for pair in pairs for job in pair)
            if not args.collect:
                if student == "alignn":
                    start_of_alignn(args.data, args.output).result()
                for job in (job for pair in pairs for job in pair):
                    print(name, job.path.name, job.result()["test_mae"], flush=True)
            if made or not args.collect:
                record[name] = summary(pairs)
    if args.collect:
        old = read_json(args.record)["cells"] if args.record.exists() else {}
        write_json(args.record, {**about(), "cells": merged(old, record)})
    for name, x in record.items():
        low, high = x["gain_interval"]
        means = " → ".join(f"{np.mean(x[v]):.4f}" for v in ("vanilla", "distilled"))
        print(f"{name}: {means}, {x['gain']:.1f} % ({low:.1f} … {high:.1f})")


if __name__ == "__main__":
    cli.run_study(main)
