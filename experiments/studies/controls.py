"""What the gain of distillation is to be measured against: the same student, by other ways.

python -m experiments.studies.controls ../data --output runs/studies/controls

| control | the student before it sees a label |
|---|---|
| vanilla | random weights |
| distilled | has followed the teacher, 3 passes |
| direct | has learned the teacher's own objectives, without a teacher, 3 passes |
| both | has followed the teacher, from disturbed crystals, and learned its objectives, 3 passes |
| untrained | has followed a teacher that was never trained, 3 passes |
| bundled | has followed a teacher of the bundled crystals alone, 3 passes |
| released | random weights: the paper's pull and objectives, its teacher of the bundled crystals |
| taught | the package's start; five such students tell it the property of 25,000 more crystals |
| tuned | is the teacher itself, of 5 convolutions, under a property head |

All but ``tuned`` are CGCNN of 3 convolutions. Chosen and shown on validation crystals, beside the
test error. ``../data`` is as of `experiments.studies.gain`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from crysgnn_jax.commands import cli, distill, finetune, pretrain
from crysgnn_jax.files import write_json
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.workdir import read_json
from experiments.studies.runs import Job, about, add_flags, epochs_for

CONTROLS = (
    "vanilla", "distilled", "direct", "both", "untrained", "bundled", "released", "taught", "tuned"
)  # fmt: skip
OTHER_TEACHERS = {
    "untrained": ["--limit", 200, "--epochs", 1, "--learning-rate", 1e-12],
    "bundled": [],
    "released": ["--recipe", "released"],
}
"""Control → flags by which its teacher is made; that of the others is the package's."""

CELLS = [
    (name, n) for name in ("formation_energy_per_atom", "band_gap") for n in (300, 1000)
]  # fmt: skip


def teacher_of(output: Path, control: str) -> Path | str:
    """What a control follows."""
    return output / "teachers" / control if control in OTHER_TEACHERS else TEACHER


def starts(data: Path, output: Path, control: str) -> list[Job]:
    """The runs without labels that a control begins with, in their order."""
    tested = ["--exclude", data / "studies" / "held_out.npz"]
    untagged = ["--data", data / "studies" / "untagged.npz", *tested, "--exclude",
                data / "jarvis_1k.npz", "--exclude", "bundled", "--epochs", 3, "--network",
                "cgcnn"]  # fmt: skip
    teacher = teacher_of(output, control)
    flags = {
        "distilled": ["--follow", teacher],
        "direct": [],
        "both": ["--follow", teacher, "--recipe", "chemistry"],
        "untrained": ["--follow", teacher],
        "bundled": ["--follow", teacher],
    }
    found = []
    if control in OTHER_TEACHERS:
        path = output / "teachers" / control
        found.append(Job(path, pretrain, [*OTHER_TEACHERS[control], *tested]))
    if control in flags:
        found.append(Job(output / "starts" / control, pretrain, [*untagged, *flags[control]]))
    return found


def run_of(data: Path, output: Path, control: str, property: str, n: int, seed: int) -> Job:
    """The property stage of a control."""
    epochs = epochs_for(n)
    split = data / "studies" / "splits" / f"{n}_{seed}.json"
    flags = ["--data", data / "studies" / "mp.npz", "--property", property, "--split", split,
             "--seed", seed, "--epochs", epochs, "--patience", epochs]  # fmt: skip
    path = output / "cells" / f"{property}-{n}-{seed}-{control}"
    if control in ("tuned", "direct"):
        source = TEACHER if control == "tuned" else output / "starts" / "direct"
        return Job(path, finetune, ["--teacher", source, *flags])
    flags = ["--student", "cgcnn", *flags]
    if control == "vanilla":
        return Job(path, distill, [*flags, "--vanilla"])
    if control == "taught":
        return Job(path, distill, [*flags, "--weight", 0.1, "--taught-by", 5])
    if control == "released":
        pull = ["--teacher", teacher_of(output, control), "--pull", "released", "--weight", 0.5]
        return Job(path, distill, [*flags, *pull])
    start = ["--teacher", teacher_of(output, control), "--start", output / "starts" / control]
    return Job(path, distill, [*flags, *start, "--weight", 0.1])


def summary(controls: Sequence[str], jobs: dict[tuple, Job]) -> list[dict]:
    """A row a control and cell, with the seeds that are there."""
    rows = []
    for property, n in CELLS:
        for control in controls:
            made = {
                key[3]: job
                for key, job in jobs.items()
                if key[:3] == (control, property, n) and (job.path / "result.json").exists()
            }
            found = {seed: job.result() for seed, job in made.items()}
            if found:
                rows.append(
                    {
                        "control": control,
                        "property": property,
                        "n_train": n,
                        "seeds": list(found),
                        "validation": [x["validation_mae"] for x in found.values()],
                        "test": [x["test_mae"] for x in found.values()],
                        "seconds": [x["seconds"] for x in found.values()],
                        "commit": next(iter(made.values())).commit(),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--controls", nargs="+", default=CONTROLS, choices=CONTROLS)
    parser.add_argument("--only", nargs="+", default=[], help="a property, a number of labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_flags(parser, "controls")
    args = parser.parse_args()
    jobs = {
        (control, property, n, seed): run_of(args.data, args.output, control, property, n, seed)
        for seed in args.seeds
        for property, n in CELLS
        if set(args.only) <= {property, str(n)}
        for control in args.controls
    }
    if not args.collect:
        for control in args.controls:
            for job in starts(args.data, args.output, control):
                print(control, job.path, job.result()["validation_loss"], flush=True)
        for job in jobs.values():
            print(job.path.name, job.result()["validation_mae"], flush=True)
    rows = summary(args.controls, jobs)
    # Beside those of other controls that the record has.
    old = read_json(args.record)["rows"] if args.record.exists() else []
    key = lambda row: (row["property"], row["n_train"], row["control"])
    kept = {key(row): row for row in (*old, *rows)}
    place = {(*cell, control): None for cell in CELLS for control in CONTROLS}
    ordered = [kept[name] for name in place if name in kept]
    write_json(args.record, {**about(), "rows": ordered})
    for row in rows:
        print(row["property"], row["n_train"], row["control"], row["validation"], row["test"])


if __name__ == "__main__":
    cli.run_study(main)
