"""Students with and without the teacher, over properties and seeds, in one table.

crysgnn compare --students cgcnn,crysxpp --data elastic --seeds 3
crysgnn compare --students cgcnn --train-fractions 0.2,0.6,1.0 --finetune
"""

import argparse
import dataclasses
import functools
import itertools
import queue
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crysgnn_jax import stopping
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.training.settings import UntaggedSettings

if TYPE_CHECKING:  # they import JAX, or take their time
    from crysgnn_jax.reporting.comparison import Cell, Outcome, Row
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.lesson import Lesson, Student, Teacher


def _seeds(text: str) -> int:
    """An argparse type: how many seeds, which people give a list of as well."""
    if "," in text:
        raise argparse.ArgumentTypeError(f"{text}: give how many, such as {text.count(',') + 1}")
    return flags.positive(int)(text)


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("compare", __doc__)
    out.add_argument(
        "--students",
        type=_names,
        metavar="A,B",
        help="columns: names as of distill --student (default: all that come with the package)",
    )
    flags.add_distillation_flags(out)
    flags.add_labelled_data_flag(out)
    out.add_argument(
        "--properties",
        type=_names,
        metavar="A,B",
        help="rows: labels to predict (default: the data set's own, or the only one there is)",
    )
    out.add_argument(
        "--seeds",
        type=_seeds,
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
        type=flags.positive_fraction,
        metavar="X",
        help="weight of the teacher's pull beside the labels in the distilled cells, up to 1 "
        "(default 0.1, for pulls that are not standardised 0.5)",
    )
    flags.add_split_flag(out)
    flags.add_config_flag(flags.add_run_flags(out, "runs/compare-DATA"))
    out.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="also write the table and the figure there, with the command, settings and versions",
    )
    flags.add_training_flags(out, ("epochs", "batch_size", "learning_rate"))
    flags.add_student_flags(out, settings=False)
    flags.add_data_flags(out)
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


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import students
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.files import write_text
    from crysgnn_jax.reporting.comparison import markdown, summarise, write_csv
    from crysgnn_jax.reporting.comparison_report import comparison_page
    from crysgnn_jax.reporting.figures import learning_curves
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.workdir import REPORT

    students.settings_of(args)  # what cannot be is told before graphs are built
    devices = Devices(args.devices)
    base = args.workdir or Path("runs") / f"compare-{Path(args.data).stem}"
    jobs = list(_jobs(args, devices, base))
    cli.make_folder("workdir", base)
    if args.record is not None:
        cli.make_folder("record", args.record)
    print(f"{len(jobs)} runs on {devices}, one a device at a time: {base}", file=sys.stderr)
    outcomes, failures = _run(args, jobs, devices)
    if not outcomes:
        raise UserError(f"no run finished; the first: {next(iter(failures.values()))}")
    rows = summarise(outcomes)
    notes = _notes(args, rows, failures)
    table = markdown(rows, notes)
    runs = {job.cell: job.path for job in jobs if job.cell in outcomes}
    data = Path(args.data).name
    for folder in (base, args.record):
        if folder is not None:
            (folder / "table.md").write_text(table)
            write_csv(rows, folder / "table.csv")
            learning_curves(rows, folder / "learning_curves.png", data)
    write_text(base / REPORT, comparison_page(rows, notes, runs, data, base))
    if args.record is not None:
        _record(args, jobs, outcomes)
    print(table)
    print(f"files: {base}")
    if failures:
        raise UserError(f"{len(failures)} of {len(jobs)} runs failed; they are named in the table")


@dataclasses.dataclass(frozen=True)
class _Job:
    """A cell of the table, where it is written, and how to train it on given devices."""

    cell: "Cell"
    path: Path
    train: Callable[["Devices"], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Column:
    """A student of the table, under the name and in the variants that the table has of it."""

    name: str
    student: "Student"
    variants: Sequence[str]


def _columns(args: argparse.Namespace, teacher: "Teacher") -> list[_Column]:
    from crysgnn_jax.commands.students import student_of
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.models.registry import STUDENTS, find_network
    from crysgnn_jax.reporting.comparison import (
        DISTILLED,
        FINE_TUNED,
        FINE_TUNED_STUDENT,
        VANILLA,
    )
    from crysgnn_jax.training.lesson import Student
    from crysgnn_jax.training.predictor import TrainedModel

    names = args.students or tuple(STUDENTS)
    starting = [name for name in names if find_network(name).starts_from is not None]
    if args.autoencoder is not None and not starting:
        raise UserError(
            f"`autoencoder`: {', '.join(names)} start from random weights; leave it out"
        )
    columns = [
        _Column(
            name,
            student_of(name, autoencoder=args.autoencoder if name in starting else None),
            (VANILLA, DISTILLED),
        )
        for name in names
    ]
    if args.finetune:
        if not isinstance(teacher, TrainedModel):
            raise UserError("`finetune`: embeddings cannot be tuned; leave it out")
        fine_tuned = Student.fine_tuned(teacher, freeze=False)
        columns.append(_Column(FINE_TUNED_STUDENT, fine_tuned, (FINE_TUNED,)))
    return columns


def _jobs(args: argparse.Namespace, devices: "Devices", base: Path) -> Iterator[_Job]:
    """All cells of the table; graphs and the teacher's embeddings are made on the way."""
    from crysgnn_jax.commands import data, students
    from crysgnn_jax.crystals.readers import read
    from crysgnn_jax.crystals.sources import require_tag
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.reporting.comparison import DISTILLED, Cell
    from crysgnn_jax.training.lesson import choose_property, load_teacher, prepare

    _, learning = students.settings_of(args)
    source = read(args.data)
    properties = [choose_property(args.data, source, name) for name in args.properties or (None,)]
    require_tag(source, args.split)
    unlabelled = [read(name) for name in args.unlabelled]
    teacher = load_teacher(args.teacher)
    columns = _columns(args, teacher)
    build = data.Graphs(args)
    for property, column in itertools.product(properties, columns):
        lessons = {
            variant: prepare(
                column.student,
                data.limited(source, args.limit, property),
                property,
                build,
                devices,
                teacher=teacher,
                distilled=variant == DISTILLED,
                graphs=flags.given(args, FeaturiserSettings),
                unlabelled=unlabelled,
                pull=args.pull,
                needs_unlabelled=learning.needs_unlabelled(),
                untagged=UntaggedSettings(**flags.given(args, UntaggedSettings)),
            )
            for variant in column.variants
        }
        for seed, fraction, variant in itertools.product(
            range(args.seeds), args.train_fractions, column.variants
        ):
            cell = Cell(property, fraction, column.name, seed, variant)
            path = base.joinpath(
                "cells",
                property,
                column.name.replace(":", "."),
                f"fraction-{fraction:g}-seed-{seed}-{variant}",
            )
            train = functools.partial(_train, args, lessons[variant], cell, path)
            yield _Job(cell, path, train)


def _train(
    args: argparse.Namespace, lesson: "Lesson", cell: "Cell", path: Path, devices: "Devices"
) -> dict[str, Any]:
    """Train one cell, or find it trained: the content of its ``result.json``."""
    from crysgnn_jax.commands import students
    from crysgnn_jax.objectives.distillation import name_of_pull
    from crysgnn_jax.reporting.run import draw_run
    from crysgnn_jax.training.logs import Progress

    training, learning = students.settings_of(args)
    training = dataclasses.replace(training, seed=cell.seed)
    split = lesson.split(args.split, cell.seed).with_fraction(cell.fraction, cell.seed)
    _, pull = name_of_pull(learning.pull)
    return lesson.learn(
        split,
        args.split,
        training,
        learning,
        title=f"{cell.student} {cell.variant}",
        pull=pull,
        devices=devices,
        workdir=path,
        progress=functools.partial(Progress, quiet=True),
        about=students.about(args, "compare"),
        cache=args.cache,
        draw=draw_run,
        overwrite=args.overwrite,
    )


def _run(
    args: argparse.Namespace, jobs: Sequence[_Job], devices: "Devices"
) -> tuple[dict["Cell", "Outcome"], dict["Cell", str]]:
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
        stopping.check()
        device = free.get()
        try:
            return job.train(device)
        finally:
            free.put(device)

    done, failures = {}, {}
    flags_known = parser()
    n_old = sum((job.path / "result.json").exists() for job in jobs) * (not args.overwrite)
    started = time.monotonic()

    def account(job: _Job, result: Callable[[], dict[str, Any]]) -> None:
        cell = job.cell
        title = f"{cell.student} {cell.variant}, {cell.property}, seed {cell.seed}" + (
            f", {100 * cell.fraction:g} %" if cell.fraction < 1 else ""
        )
        try:
            found = result()
        except UserError as error:
            failures[cell] = cli.as_flags(str(error), flags_known)
            said = f"failed: {failures[cell]}"
        except Exception as error:  # such as a full GPU: the other cells may still fit
            job.path.mkdir(parents=True, exist_ok=True)
            report = job.path / "error.txt"
            report.write_text("".join(traceback.format_exception(error)))
            first = (str(error).strip() or type(error).__name__).split("\n")[0]
            failures[cell] = f"{first} (see {report})"
            said = f"failed: {failures[cell]}"
        else:
            done[cell] = Outcome(
                found["test_mae"], found["test_mae_of_mean"], found["n_train"], found["unit"]
            )
            said = f"test MAE {found['test_mae']:.4g} {found['unit']}".rstrip()
            said += f" (of the mean {found['test_mae_of_mean']:.4g})"
        n = len(done) + len(failures)
        # Cells of an earlier session take no time, and tell nothing of the others.
        left = (time.monotonic() - started) / max(n - n_old, 1) * (len(jobs) - n)
        print(f"{n}/{len(jobs)} {title}: {said}; {left:.0f} s left", file=sys.stderr, flush=True)

    if len(devices) == 1:
        for job in jobs:
            account(job, functools.partial(train, job))
    else:
        # After a signal, each of the cells that are under way saves what it has.
        with stopping.graceful(), ThreadPoolExecutor(len(devices)) as pool:
            running = {pool.submit(train, job): job for job in jobs}
            try:
                for future in as_completed(running):
                    account(running[future], future.result)
            except stopping.Stopped:
                pool.shutdown(cancel_futures=True)
                raise
    ordered = {job.cell: done[job.cell] for job in jobs if job.cell in done}
    return ordered, failures


def _record(args: argparse.Namespace, jobs: Sequence[_Job], outcomes: Collection["Cell"]) -> None:
    """The command, and the settings and versions of every student's first cell."""
    from crysgnn_jax.files import write_json
    from crysgnn_jax.training.workdir import CONFIG, RESULT, read_json

    configs: dict[str, Any] = {}
    seconds = 0.0
    for job in jobs:
        if job.cell in outcomes:
            seconds += read_json(job.path / RESULT)["seconds"]
            name = f"{job.cell.student} {job.cell.variant}"
            configs.setdefault(name, read_json(job.path / CONFIG))
    write_json(
        args.record / "record.json",
        {"command": cli.command_line(), "training_seconds": round(seconds), "configs": configs},
    )


def _notes(
    args: argparse.Namespace, rows: Sequence["Row"], failures: Mapping["Cell", str]
) -> list[str]:
    from crysgnn_jax.reporting.comparison import no_better_than_mean

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
        "Twins have the same crystals; without an untagged stage they start from the same "
        "weights. Gain: by how much distillation lowers the mean error. "
        "p: two-sided paired t-test over the seeds. Their mean: the error of always predicting the "
        "mean of the training crystals."
    )
    notes += ["\n" + line for line in no_better_than_mean(rows)]
    if any(row.published for row in rows):
        notes.append(
            "\nPublished: Das et al., AAAI 2023, vanilla → distilled, for all of the data set that "
            "the column names; their epoch was chosen on the test set."
        )
    for cell, reason in failures.items():
        notes.append(f"\nFailed: {cell.student} {cell.variant}, {cell.property}, seed {cell.seed}, "
                     f"{100 * cell.fraction:g} %: {reason}")  # fmt: skip
    return notes
