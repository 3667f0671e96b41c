"""What each part of the method gives: one part left out or changed at a time.

    python -m experiments.studies.ablations ../data --output runs/studies/ablations

A teacher learns 20,000 untagged crystals for 6 epochs, CGCNN follows it for 3, and then learns
1,000 labels with the pull beside them. A variant is all of this with one thing or two changed;
``6k``, ``80k`` and ``all crystals`` change the number of untagged crystals. ``../data`` is as of
`experiments.studies.gain`. Runs are made once; ``--collect`` writes the record of those that are
whole. What a variant is worth shows on the validation crystals; test errors stand beside them.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.commands import cli, distill, pretrain
from crysgnn_jax.files import write_json
from experiments.studies.runs import Job, about, add_flags, epochs_for

CHEMISTRY = ("masked_elements", "hidden_scale", "hidden_distances")
PROPERTIES = ("formation_energy_per_atom", "band_gap")
N_LABELS = 1000
N_UNTAGGED = 20_000


@dataclasses.dataclass(frozen=True)
class Variant:
    """The method with one thing changed.

    Attributes:
      teacher: further flags of `pretrain`, of a teacher of its own; None for that of ``whole``.
      untagged: crystals without labels, None for all.
      follows: whether the student follows the teacher before it sees a label.
      pull: flags of `distill` for the pull beside the labels.
    """

    teacher: tuple[Any, ...] | None = None
    untagged: int | None = N_UNTAGGED
    follows: bool = True
    pull: tuple[Any, ...] = ("--weight", 0.1)


EQUAL = ("--objectives", "oxidation_states=1")
NO_OXIDATION = "oxidation_states=0"

VARIANTS = {
    "whole": Variant(EQUAL),
    "without masked_elements": Variant((*EQUAL, "masked_elements=0")),
    "without oxidation_states": Variant(("--objectives", NO_OXIDATION)),
    **{
        f"without oxidation_states and {name}": Variant(("--objectives", NO_OXIDATION, f"{name}=0"))
        for name in CHEMISTRY
    },
    "released objectives": Variant(("--recipe", "released")),
    "6k, without oxidation_states": Variant(("--objectives", NO_OXIDATION), 6000),
    "80k": Variant(EQUAL, 80_000),
    "all crystals": Variant(EQUAL, None),
    "no untagged stage": Variant(follows=False),
    "no untagged stage, weight 1": Variant(follows=False, pull=("--weight", 1)),
    "released pull, no untagged stage": Variant(
        follows=False, pull=("--pull", "released", "--weight", 0.5)
    ),
    "no pull beside the labels": Variant(pull=("--weight", 1e-6)),
    "pull of weight 1 beside the labels": Variant(pull=("--weight", 1)),
}


def without_labels(data: Path, variant: Variant) -> list[Any]:
    """The crystals of the teacher and of the untagged stage."""
    flags = ["--data", data / "studies" / "untagged.npz", "--exclude",
             data / "studies" / "held_out.npz", "--exclude", data / "jarvis_1k.npz",
             "--exclude", "bundled"]  # fmt: skip
    return flags if variant.untagged is None else [*flags, "--limit", variant.untagged]


def teacher_of(data: Path, output: Path, name: str) -> Job:
    """The pre-training of a variant's teacher."""
    variant = VARIANTS[name]
    if variant.teacher is None:
        name, variant = "whole", VARIANTS["whole"]
    flags = [*without_labels(data, variant), "--epochs", 6, *variant.teacher]
    return Job(output / "teachers" / name.replace(" ", "_"), pretrain, flags)


def start_of(data: Path, output: Path, name: str) -> Job | None:
    """The untagged stage of a variant's student; None where it has none."""
    variant = VARIANTS[name]
    if not variant.follows:
        return None
    teacher = teacher_of(data, output, name)
    flags = [*without_labels(data, variant), "--epochs", 3, "--network", "cgcnn",
             "--follow", teacher.path]  # fmt: skip
    return Job(output / "starts" / teacher.path.name, pretrain, flags)


def student_of(data: Path, output: Path, name: str, property: str, seed: int) -> Job:
    """The stage with labels."""
    epochs = epochs_for(N_LABELS)
    split = data / "studies" / "splits" / f"{N_LABELS}_{seed}.json"
    flags = ["--student", "cgcnn", "--data", data / "studies" / "mp.npz", "--split", split,
             "--property", property, "--seed", seed, "--epochs", epochs,
             "--patience", epochs]  # fmt: skip
    start = start_of(data, output, name)
    first = ["--untagged-epochs", 0] if start is None else ["--start", start.path]
    teacher = ["--teacher", teacher_of(data, output, name).path]
    path = output / "students" / f"{property}-{seed}-{name.replace(' ', '_')}"
    return Job(path, distill, [*flags, *teacher, *first, *VARIANTS[name].pull])


def vanilla(data: Path, output: Path, property: str, seed: int) -> Job:
    """The student without any of it."""
    job = student_of(data, output, "no untagged stage", property, seed)
    cut = list(job.flags).index("--teacher")
    return Job(job.path.with_name(f"{property}-{seed}-vanilla"), distill,
               [*job.flags[:cut], "--vanilla"])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    names = ("vanilla", *VARIANTS)
    parser.add_argument("--variants", nargs="+", default=list(names), choices=names)
    parser.add_argument("--properties", nargs="+", default=list(PROPERTIES), choices=PROPERTIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_flags(parser, "ablations")
    args = parser.parse_args()
    rows = []
    for name in args.variants:
        for property in args.properties:
            jobs = [
                vanilla(args.data, args.output, property, seed)
                if name == "vanilla"
                else student_of(args.data, args.output, name, property, seed)
                for seed in args.seeds
            ]
            if not args.collect:
                if name != "vanilla":
                    teacher_of(args.data, args.output, name).result()
                    if (start := start_of(args.data, args.output, name)) is not None:
                        start.result()
                for job in jobs:
                    print(job.path.name, job.result()["validation_mae"], flush=True)
            if all((job.path / "result.json").exists() for job in jobs):
                found = [job.result() for job in jobs]
                rows.append(
                    {
                        "variant": name,
                        "property": property,
                        "n_train": N_LABELS,
                        "validation": [x["validation_mae"] for x in found],
                        "test": [x["test_mae"] for x in found],
                        "commit": jobs[0].commit(),
                    }
                )
    if args.collect:
        write_json(args.record, {**about(), "rows": rows})
    for row in rows:
        errors = np.array(row["validation"])
        print(
            f"{row['property']}, {row['variant']}: validation {errors.mean():.4f} of {len(errors)}"
        )


if __name__ == "__main__":
    cli.run_study(main)
