"""Train a property predictor with and without the teacher, and compare them.

python -m experiments.distill --student cgcnn
python -m experiments.distill --student cgcnn --data elastic --property shear_modulus_vrh
python -m experiments.distill --student cgcnn --data my_cifs/ --weight 0.3 --workdir runs/mine
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crysgnn_jax.data.source import Source
from experiments import cli

DEFAULT_WEIGHT = 0.5


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(prog="python -m experiments.distill", description=__doc__.split("\n")[0])
    out.add_argument("--student", required=True, metavar="NAME", help="predictor to train: cgcnn")
    out.add_argument(
        "--teacher",
        type=Path,
        default=Path("runs/teacher"),
        metavar="DIR",
        help="a pre-training run (default runs/teacher)",
    )
    out.add_argument(
        "--data",
        default="formation_energy",
        metavar="NAME|PATH",
        help="data set or path of crystals with labels (default formation_energy)",
    )
    out.add_argument(
        "--property",
        metavar="NAME",
        help="label to predict (default: the data set's own, or the only one there is)",
    )
    which = out.add_mutually_exclusive_group()
    which.add_argument(
        "--weight",
        type=cli.fraction,
        metavar="X",
        help="weight of the teacher's pull, 0 to 1: trains one student (default: both twins, one "
        f"with 0 and one with {DEFAULT_WEIGHT}, in DIR/vanilla and DIR/distilled)",
    )
    which.add_argument(
        "--vanilla",
        action="store_true",
        help="train without a teacher; the same as --weight 0 (graphs are then made as the flags "
        "below say, not as the teacher's were)",
    )
    out.add_argument(
        "--split",
        default="random",
        metavar="RULE|FILE",
        help="80/10/10 %% by seed: random, or formula (no reduced formula on two sides); or "
        "column:NAME of the data, such as column:mp2018_split; or the splits.json of another run "
        "(default random)",
    )
    cli.add_run_flags(out, "runs/STUDENT-DATA-PROPERTY")
    out.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="also write the results, with the command, settings and versions, to a JSON file",
    )
    cli.add_training_flags(out, epochs=60, batch_size=64, learning_rate=0.005)
    out.add_argument(
        "--patience",
        type=cli.positive(int),
        default=30,
        metavar="N",
        help="stop after N epochs without a lower validation MAE (default 30)",
    )
    cli.add_data_flags(out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    # Imported once the flags are known to be good: JAX takes seconds to start.
    import numpy as np

    from crysgnn_jax.data.datasets import unit_of
    from crysgnn_jax.data.settings import FeaturiserSettings
    from crysgnn_jax.data.splits import make_split
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.models.registry import STUDENTS
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.trained import TrainedTeacher
    from crysgnn_jax.training.workdir import CONFIG

    if args.student not in STUDENTS:
        raise UserError(f"--student {args.student}: there is {', '.join(STUDENTS)}")
    weights = {"vanilla": 0.0, "distilled": DEFAULT_WEIGHT}
    if args.vanilla or args.weight == 0.0:
        weights = {"vanilla": 0.0}
    elif args.weight is not None:
        weights = {"distilled": args.weight}
    if args.record is not None:
        cli.require_writable(args.record)
    source = cli.open_data([args.data])
    property = _property(args, source)
    devices = Devices(args.devices)
    needs_teacher = any(weight > 0 for weight in weights.values())
    teacher = TrainedTeacher.load(args.teacher) if needs_teacher else None
    featuriser = cli.featuriser_of(args, teacher.featuriser if teacher else FeaturiserSettings())
    if teacher is not None:
        featuriser.require(teacher.featuriser, f"the teacher in {args.teacher}")
    store = cli.graphs(args, source, featuriser, label=property)
    rows = np.flatnonzero(np.isfinite(store.labels(property)))
    split = make_split(store, rows, args.split, args.seed)
    devices.require(len(split.train))
    base = args.workdir or Path("runs") / f"{args.student}-{Path(args.data).stem}-{property}"
    # A single student given its own --workdir is that directory; otherwise twins lie side by
    # side, so that training the second later completes the pair.
    alone = args.workdir is not None and len(weights) == 1
    if not alone and (base / CONFIG).exists():
        raise UserError(f"--workdir {base} holds a single run; name another directory for twins")
    results = {
        name: _train(
            args,
            base if alone else base / name,
            weight,
            property,
            unit_of(property),
            store,
            split,
            teacher if weight > 0 else None,
            featuriser,
            devices,
        )
        for name, weight in weights.items()
    }
    _report(results, base)
    if args.record is not None:
        _record(args, results, base, alone)


def _record(
    args: argparse.Namespace, results: dict[str, dict[str, Any]], base: Path, alone: bool
) -> None:
    """One file with everything that a reader of a published number asks for."""
    import shlex
    import sys

    from crysgnn_jax.training.workdir import CONFIG, read_json, write_json

    runs = {
        name: {"result": result, "config": read_json((base if alone else base / name) / CONFIG)}
        for name, result in results.items()
    }
    command = shlex.join(["python", *sys.orig_argv[1:]])
    write_json(args.record, {"command": command, "runs": runs})


def _property(args: argparse.Namespace, source: Source) -> str:
    """The label to predict, checked before any work is done."""
    from crysgnn_jax.data.datasets import NAMED
    from crysgnn_jax.errors import UserError

    names = list(source.label_names)
    choice = args.property
    if choice is None and args.data in NAMED:
        choice = NAMED[args.data].default_property
    if choice is None and len(names) == 1:
        choice = names[0]
    listed = ", ".join(names) or "none"
    if choice is None:
        raise UserError(f"--data {args.data} has the properties {listed}; choose with --property")
    if choice not in names:
        raise UserError(f"--property {choice}: {args.data} has {listed}")
    return choice


def _train(
    args,
    path: Path,
    weight: float,
    property: str,
    unit: str,
    store,
    split,
    teacher,
    featuriser,
    devices,
) -> dict[str, Any]:
    """One student; its result, from an earlier run if there is one."""
    from crysgnn_jax.models.registry import STUDENTS
    from crysgnn_jax.training.devices import AXIS
    from crysgnn_jax.training.logs import Progress
    from crysgnn_jax.training.students import StudentSettings, train_student
    from crysgnn_jax.training.workdir import Workdir

    settings = StudentSettings(
        student=args.student,
        property=property,
        unit=unit,
        weight=weight,
        epochs=args.epochs,
        patience=args.patience,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
    )
    made_with = {
        "command": "distill",
        "data": args.data,
        "limit": args.limit,
        "graphs": store.fingerprint,
        "featuriser": dataclasses.asdict(featuriser),
        "split": {"rule": args.split, "ids": split.fingerprint(store)},
        "settings": dataclasses.asdict(settings),
        "teacher": teacher.fingerprint if teacher else None,
        "devices": len(devices),
    }
    with Workdir(path, made_with, overwrite=args.overwrite) as workdir:
        result = workdir.result
        if result is not None:
            print(f"{path} holds a finished run")
        else:
            cli.announce(devices)
            cli.write_skipped(store, path / "skipped.csv")
            title = f"{args.student} {'distilled' if weight > 0 else 'vanilla'}"
            result = train_student(
                store,
                split,
                workdir,
                STUDENTS[args.student](cutoff=featuriser.cutoff, axis_name=AXIS),
                settings,
                teacher,
                devices,
                Progress(settings.epochs, title),
                log_every=args.log_every,
                checkpoint_seconds=args.checkpoint_seconds,
            )
            _draw(path, result, title)
            workdir.finish(result)
    return {**result, "files": str(path)}


def _draw(path: Path, result: dict[str, Any], title: str) -> None:
    import csv

    import numpy as np

    from crysgnn_jax.reporting.figures import loss_curves, parity
    from crysgnn_jax.training.logs import MetricsLog

    metrics = ["loss", "mae", *(["embedding"] if result["distilled"] else [])]
    lines = MetricsLog(path / "metrics.jsonl").read()
    loss_curves({"": lines}, path / "loss.png", metrics, unit=result["unit"])
    with open(path / "predictions.csv", newline="") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    parity(
        np.array([float(row["target"]) for row in test]),
        np.array([float(row["prediction"]) for row in test]),
        path / "parity.png",
        property=result["property"],
        unit=result["unit"],
        title=title,
    )


def _report(results: dict[str, dict[str, Any]], base: Path) -> None:
    from crysgnn_jax.data.datasets import PROPERTY_UNITS
    from crysgnn_jax.reporting.tables import text_table
    from crysgnn_jax.training.workdir import write_json

    some = next(iter(results.values()))
    mae = {name: f"{result['test_mae']:.4g}" for name, result in results.items()}
    files = str(base) if len(results) > 1 else some["files"]
    print(
        text_table(
            ["property", "unit", "vanilla test MAE", "distilled test MAE", "crystals/s", "files"],
            [
                [
                    some["property"],
                    some["unit"] or ("1" if some["property"] in PROPERTY_UNITS else "–"),
                    mae.get("vanilla", "–"),
                    mae.get("distilled", "–"),
                    " / ".join(f"{r['crystals_per_second']:.0f}" for r in results.values()),
                    files,
                ]
            ],
        )
    )
    if len(results) > 1:
        write_json(base / "comparison.json", results)


if __name__ == "__main__":
    cli.run(main)
