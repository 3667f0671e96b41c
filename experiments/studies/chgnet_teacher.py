"""CHGNet, which knows labels of the crystals it is tested on, as the teacher of the same students.

python -m experiments.studies.chgnet_teacher ../data --output runs/studies/chgnet

CGCNN learns formation energies from 300 and 1,000 labels, as in `experiments.studies.gain`, after
an untagged stage of `PASSES` passes over the crystals of ``labelled.npz`` that are not tested and
those of ``unlabelled.npz``: the same for CHGNet and for CrysGNN's teacher, which is given as a file
of its embeddings, so that no start comes with the package. Beside them stand the vanilla student
and that of the shipped start, with the same labels, out of ``results/gain.json``. Runs are made
once, and the same command goes on.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.commands import cli, distill, embed
from crysgnn_jax.files import write_json
from crysgnn_jax.training.chgnet import CHGNET
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.workdir import read_json
from experiments.studies.crystals import SEEDS, Table
from experiments.studies.runs import Job, about, add_flags, epochs_for, interval_of_gain

PROPERTY = "formation_energy_per_atom"
SIZES = (300, 1000)
TEACHERS = (TEACHER, CHGNET)
N_UNLABELLED = 8000
MAX_ATOMS = 40
PASSES = 5


def write_crystals(data: Path, output: Path) -> None:
    """``labelled.npz``: all that is learned from, chosen by and tested on, with any seed;
    ``unlabelled.npz``: others of `MAX_ATOMS` at most, drawn at random, that ``mp.npz`` lacks."""
    studies = data / "studies"
    if (output / "unlabelled.npz").exists():
        return
    output.mkdir(parents=True, exist_ok=True)
    mp, untagged = Table(studies / "mp.npz"), Table(studies / "untagged.npz")
    chosen: set[str] = set()
    for seed in SEEDS:
        split = json.loads((studies / "splits" / f"{max(SIZES)}_{seed}.json").read_text())
        chosen.update(*split.values())
    rows = np.flatnonzero(np.isin(mp.columns["ids"], sorted(chosen)))
    np.savez(output / "labelled.npz", **mp.chosen(rows, (PROPERTY,)))
    others = (untagged.n_atoms <= MAX_ATOMS) & ~np.isin(untagged.columns["ids"], mp.columns["ids"])
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(others))[:N_UNLABELLED]
    np.savez(output / "unlabelled.npz", **untagged.chosen(np.sort(drawn)))


def job(data: Path, output: Path, teacher: str, n: int, seed: int) -> Job:
    """A run of the table."""
    epochs = epochs_for(n)
    known = output / "crysgnn.npz" if teacher == TEACHER else teacher
    flags = ["--student", "cgcnn", "--data", output / "labelled.npz", "--property", PROPERTY,
             "--split", data / "studies" / "splits" / f"{n}_{seed}.json", "--seed", seed,
             "--epochs", epochs, "--patience", epochs, "--weight", 0.1, "--teacher", known,
             "--unlabelled", output / "unlabelled.npz", "--untagged-epochs",
             PASSES]  # fmt: skip
    return Job(output / "cells" / f"{n}-{seed}-{teacher}", distill, flags)


def summary(jobs: dict[tuple[str, int, int], Job], gain: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a number of labels and a teacher, with the seeds that both teachers have."""
    rows = []
    for n in SIZES:
        seeds = [
            seed
            for seed in SEEDS
            if all((jobs[x, n, seed].path / "result.json").exists() for x in TEACHERS)
        ]
        if not seeds:
            continue
        cell = gain[f"cgcnn mp {PROPERTY} {n}"]
        for name in ("vanilla", "distilled"):
            test = [cell[name][seed] for seed in seeds]
            rows.append({"n_train": n, "teacher": name, "of": "gain.json", "commit": cell["commit"],
                         "seeds": seeds, "test": test})  # fmt: skip
        for teacher in TEACHERS:
            chosen = [jobs[teacher, n, seed] for seed in seeds]
            found = [job.result() for job in chosen]
            rows.append(
                {
                    "n_train": n,
                    "teacher": teacher,
                    "commit": chosen[0].commit(),
                    "seeds": seeds,
                    "test": [x["test_mae"] for x in found],
                    "validation": [x["validation_mae"] for x in found],
                    "seconds": [x["seconds"] for x in found],
                    "epochs": found[0]["epochs"],
                    "start": [x["start"] for x in found],
                }
            )
        ways = ([jobs[teacher, n, seed].path for seed in seeds] for teacher in TEACHERS)
        rows[-1]["lower_than_by_crysgnn_mp_interval"] = interval_of_gain(*ways)
        vanilla = np.mean([cell["vanilla"][seed] for seed in seeds])
        for row in rows:
            if row["n_train"] == n:
                row["gain"] = float(100 * (1 - np.mean(row["test"]) / vanilla))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, choices=SEEDS)
    add_flags(parser, "chgnet")
    args = parser.parse_args()
    jobs = {
        (teacher, n, seed): job(args.data, args.output, teacher, n, seed)
        for seed in SEEDS
        for n in SIZES
        for teacher in TEACHERS
    }
    if not args.collect:
        write_crystals(args.data, args.output)
        tables = [args.output / "labelled.npz", args.output / "unlabelled.npz"]
        if not (args.output / "crysgnn.npz").exists():
            output = ["--output", args.output / "crysgnn.npz"]
            cli.call(embed, ["--model", TEACHER, *map(str, [*tables, *output])])
        for (_, _, seed), one in jobs.items():
            if seed in args.seeds:
                print(one.path.name, one.result()["test_mae"], flush=True)
    gain = read_json(args.record.with_name("gain.json"))["cells"]
    rows = summary(jobs, gain)
    counts = {
        "n_unlabelled": N_UNLABELLED,
        "passes": PASSES,
        "property": PROPERTY,
        "packages": {name: importlib.metadata.version(name) for name in ("chgnet", "torch")},
    }
    write_json(args.record, {**about(), **counts, "rows": rows})
    for row in rows:
        print(row["n_train"], row["teacher"], np.mean(row["test"]), f"{row['gain']:.1f} %")


if __name__ == "__main__":
    cli.run_study(main)
