"""Students with and without the teacher, over properties and seeds, in one table.

python -m experiments.compare --students cgcnn,crysxpp --data elastic --seeds 3
python -m experiments.compare --students cgcnn --train-fractions 0.2,0.6,1.0 --finetune
"""

import argparse
import dataclasses
import os
import queue
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from crysgnn_jax.commands import cli


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(prog="python -m experiments.compare", description=__doc__.split("\n")[0])
    out.add_argument(
        "--students",
        type=_names,
        metavar="A,B",
        help="columns: names as of distill --student (default: all that come with the package)",
    )
    cli.add_teacher_flags(out)
    cli.add_labelled_data_flag(out)
    out.add_argument(
        "--properties",
        type=_names,
        metavar="A,B",
        help="rows: labels to predict (default: the data set's own, or the only one there is)",
    )
    out.add_argument(
        "--seeds",
        type=cli.positive(int),
        default=3,
        metavar="N",
        help="runs of each cell, with seeds 0 … N − 1 of weights, split and order (default 3)",
    )
    out.add_argument(
        "--train-fractions",
        type=_fractions,
        default=(1.0,),
        metavar="X,Y",
        help="parts of the training crystals to use, each within the next larger (default 1.0)",
    )
    out.add_argument(
        "--finetune",
        action="store_true",
        help="add the teacher's encoder, fine-tuned with a property head, as a column "
        "(default: leave it out)",
    )
    out.add_argument(
        "--weight",
        type=cli.positive_fraction,
        default=cli.DEFAULT_WEIGHT,
        metavar="X",
        help="weight of the teacher's pull in the distilled cells, up to 1 (default "
        f"{cli.DEFAULT_WEIGHT})",
    )
    cli.add_split_flag(out)
    cli.add_run_flags(out, "runs/compare-DATA")
    out.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="also write the table and the figure there, with the command, settings and versions",
    )
    cli.add_training_flags(out, epochs=60, batch_size=None, learning_rate=None, seed=False)
    cli.add_student_flags(out, settings=False)
    cli.add_data_flags(out)
    return out


def _names(text: str) -> tuple[str, ...]:
    """An argparse type: names, separated by commas."""
    names = tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    if not names:
        raise argparse.ArgumentTypeError("no names, separated by commas")
    return names


def _fractions(text: str) -> tuple[float, ...]:
    """An argparse type: numbers above 0 and up to 1, separated by commas."""
    try:
        values = tuple(sorted({float(part) for part in text.split(",")}, reverse=True))
    except ValueError:
        values = ()
    if not values or not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError(
            f"{text!r}: numbers above 0 and up to 1, separated by commas"
        )
    return values


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    # Imported once the flags are known to be good: JAX takes seconds to start.
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.reporting.comparison import markdown, summarise, write_csv
    from crysgnn_jax.reporting.figures import learning_curves
    from crysgnn_jax.training.devices import Devices

    devices = Devices(args.devices)
    base = args.workdir or Path("runs") / f"compare-{Path(args.data).stem}"
    jobs = list(_jobs(args, devices))
    cli.make_folder("--workdir", base)
    if args.record is not None:
        cli.make_folder("--record", args.record)
    print(f"{len(jobs)} runs on {devices}, one a device at a time: {base}", file=sys.stderr)
    outcomes, failures = _run(args, jobs, devices, base)
    if not outcomes:
        raise UserError(f"no run finished; the first: {next(iter(failures.values()))}")
    rows = summarise(outcomes)
    table = markdown(rows, _notes(args, rows, failures))
    for folder in (base, args.record):
        if folder is not None:
            (folder / "table.md").write_text(table)
            write_csv(rows, folder / "table.csv")
            learning_curves(rows, folder / "learning_curves.png")
    if args.record is not None:
        _record(args, jobs, outcomes, base)
    print(table)
    print(f"files: {base}")
    if failures:
        raise UserError(f"{len(failures)} of {len(jobs)} runs failed; they are named in the table")


@dataclasses.dataclass(frozen=True)
class _Job:
    """A cell of the table, and how to train it on given devices."""

    cell: Any
    prepare: Callable[[Any], Any]

    def path(self, base: Path) -> Path:
        cell = self.cell
        student = cell.student.replace(":", ".")
        return (
            base
            / "cells"
            / cell.property
            / student
            / (f"fraction-{cell.fraction:g}-seed-{cell.seed}-{cell.variant}")
        )


def _jobs(args: argparse.Namespace, devices: Any) -> Iterator[_Job]:
    """All cells of the table; graphs and the teacher's embeddings are made on the way."""
    from crysgnn_jax.commands import supervised
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.models.registry import STUDENTS, find_student
    from crysgnn_jax.reporting.comparison import (
        DISTILLED,
        FINE_TUNED,
        FINE_TUNED_STUDENT,
        VANILLA,
        Cell,
    )
    from crysgnn_jax.training.trained import TrainedModel

    students = {name: find_student(name) for name in args.students or STUDENTS}
    source = cli.open_data([args.data])
    properties = [
        supervised.choose_property(args.data, source, name) for name in args.properties or (None,)
    ]
    teacher = TrainedModel.load(args.teacher)
    starts = {
        name: supervised.autoencoder_start(args.autoencoder, student, name)
        for name, student in students.items()
        if student.starts_from is not None
    }
    if args.autoencoder is not None and not starts:
        raise UserError(
            f"--autoencoder: {', '.join(students)} start from random weights; leave it out"
        )
    columns = [(name, student, {}, starts.get(name), (VANILLA, DISTILLED))
               for name, student in students.items()]  # fmt: skip
    if args.finetune:
        predictor = supervised.fine_tuned(teacher, freeze=False)
        columns.append(
            (FINE_TUNED_STUDENT, predictor.student, predictor.model, predictor.start, (FINE_TUNED,))
        )
    for property in properties:
        for name, student, model, start, variants in columns:
            featuriser = supervised.student_graphs(args, student, teacher)
            store = cli.graphs(args, source, featuriser, label=property)
            embeddings = None
            if DISTILLED in variants:
                embeddings = supervised.embeddings_for(
                    args, teacher, source, property, store, devices
                )
            for seed in range(args.seeds):
                whole = supervised.labelled_split(store, property, args.split, seed)
                for fraction in args.train_fractions:
                    split = whole.with_fraction(fraction, seed)
                    for variant in variants:
                        distilled = variant == DISTILLED
                        network = "cgcnn" if name == FINE_TUNED_STUDENT else name
                        weight = args.weight if distilled else 0.0
                        run = supervised.Run(
                            command="compare",
                            title=f"{name} {variant}",
                            network=network,
                            student=student,
                            model=model,
                            settings=supervised.settings_of(
                                args, network, student, property, weight, seed
                            ),
                            data=args.data,
                            limit=args.limit,
                            rule=args.split,
                            store=store,
                            split=split,
                            devices=devices,
                            teacher=teacher if distilled else None,
                            teacher_embeddings=embeddings if distilled else None,
                            start=start,
                        )
                        yield _Job(
                            Cell(property, fraction, name, seed, variant),
                            lambda device, run=run: dataclasses.replace(run, devices=device),
                        )


def _run(
    args: argparse.Namespace, jobs: Sequence[_Job], devices: Any, base: Path
) -> tuple[dict[Any, Any], dict[Any, str]]:
    """Train all cells, as many at a time as there are devices.

    Returns:
      Cell → outcome in the order of the jobs, and cell → reason of those that failed.
    """
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.reporting.comparison import Outcome

    free: queue.SimpleQueue = queue.SimpleQueue()
    for device in devices.each():
        free.put(device)

    def train(job: _Job) -> dict[str, Any]:
        device = free.get()
        try:
            return job.prepare(device).execute(
                job.path(base),
                overwrite=args.overwrite,
                quiet=True,
                log_every=args.log_every,
                checkpoint_seconds=args.checkpoint_seconds,
            )
        finally:
            free.put(device)

    done, failures = {}, {}
    n_old = sum((job.path(base) / "result.json").exists() for job in jobs) * (not args.overwrite)
    started = time.monotonic()

    def account(job: _Job, result: Callable[[], dict[str, Any]]) -> None:
        cell = job.cell
        title = f"{cell.student} {cell.variant}, {cell.property}, seed {cell.seed}" + (
            f", {100 * cell.fraction:g} %" if cell.fraction < 1 else ""
        )
        try:
            found = result()
        except UserError as error:
            failures[cell] = str(error)
            said = f"failed: {error}"
        except Exception as error:  # such as a full GPU: the other cells may still fit
            path = job.path(base)
            path.mkdir(parents=True, exist_ok=True)
            (path / "error.txt").write_text("".join(traceback.format_exception(error)))
            first = (str(error).strip() or type(error).__name__).split("\n")[0]
            failures[cell] = f"{first} (see {path / 'error.txt'})"
            said = f"failed: {failures[cell]}"
        else:
            done[cell] = Outcome(found["test_mae"], found["n_train"], found["unit"])
            said = f"test MAE {found['test_mae']:.4g} {found['unit']}".rstrip()
        n = len(done) + len(failures)
        # Cells of an earlier session take no time, and tell nothing of the others.
        left = (time.monotonic() - started) / max(n - n_old, 1) * (len(jobs) - n)
        print(f"{n}/{len(jobs)} {title}: {said}; {left:.0f} s left", file=sys.stderr, flush=True)

    if len(devices) == 1:
        for job in jobs:
            account(job, lambda job=job: train(job))
    else:
        with ThreadPoolExecutor(len(devices)) as pool:
            running = {pool.submit(train, job): job for job in jobs}
            try:
                for future in as_completed(running):
                    account(running[future], future.result)
            except KeyboardInterrupt:
                print("interrupted; the same command goes on", file=sys.stderr, flush=True)
                # Running cells would be waited for; their checkpoints are whole at any moment.
                os._exit(130)
    ordered = {job.cell: done[job.cell] for job in jobs if job.cell in done}
    return ordered, failures


def _record(
    args: argparse.Namespace, jobs: Sequence[_Job], outcomes: dict[Any, Any], base: Path
) -> None:
    """The command, and the settings and versions of every student's first cell."""
    from crysgnn_jax.training.workdir import CONFIG, read_json, write_json

    configs, seconds = {}, 0.0
    for job in jobs:
        if job.cell in outcomes:
            path = job.path(base)
            seconds += read_json(path / "result.json")["seconds"]
            name = f"{job.cell.student} {job.cell.variant}"
            configs.setdefault(name, read_json(path / CONFIG))
    write_json(
        args.record / "record.json",
        {"command": cli.command(), "training_seconds": round(seconds), "configs": configs},
    )


def _notes(args: argparse.Namespace, rows: Sequence[Any], failures: dict[Any, str]) -> list[str]:
    varied = "weights, split and order"
    if args.split not in ("random", "formula"):
        varied = "weights and order"
    notes = [
        f"Test MAE, mean ± standard deviation over {args.seeds} seeds ({varied}). "
        if args.seeds > 1
        else "Test MAE of one seed. "
    ]
    notes[0] += (
        "The epoch is chosen on the validation crystals, the test crystals are looked at once. "
        "Twins start from the same weights. Gain: by how much distillation lowers the mean error. "
        "p: two-sided paired t-test over the seeds."
    )
    if any(row.published for row in rows):
        notes.append(
            "\nPublished: Das et al., AAAI 2023, vanilla → distilled, for all of the data set that "
            "the column names; their epoch was chosen on the test set."
        )
    for cell, reason in failures.items():
        notes.append(f"\nFailed: {cell.student} {cell.variant}, {cell.property}, seed {cell.seed}, "
                     f"{100 * cell.fraction:g} %: {reason}")  # fmt: skip
    return notes
