"""Adapt predictors of DFT labels to a few measured values, and judge them beside DFT by the others.

crysgnn debias --data table.npz --dft-column formation_energy_per_atom --experiment-column measured
crysgnn debias --data mp.npz --experiment measured.csv --dft-column dft --experiment-column measured
crysgnn debias --data oqmd_exp/ --dft-column target_1 --experiment-column target_2 --formulas shared
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crysgnn_jax.commands import cli, flags
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.settings import settings_of
from crysgnn_jax.training.settings import PropertySettings, TrainingSettings, UntaggedSettings

if TYPE_CHECKING:  # they import JAX, or take their time
    from crysgnn_jax.crystals.sources import Source
    from crysgnn_jax.reporting.debias import Judged

FRACTIONS = (0.2, 0.8)
"""Shares of the measured values that the paper adapts to."""


def _shares(text: str) -> tuple[float, ...]:
    """An argparse type: numbers between 0 and 1, separated by commas."""
    try:
        values = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        values = ()
    if not values or not all(0 < value < 1 for value in values):
        raise argparse.ArgumentTypeError(
            f"{text!r}: numbers between 0 and 1, separated by commas, such as 0.2,0.8"
        )
    return values


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("debias", __doc__)
    out.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="NAME|PATH",
        help="crystals with DFT labels, and some of them with a measured value; may be repeated",
    )
    out.add_argument("--dft-column", required=True, metavar="NAME", help="label that DFT has given")
    out.add_argument(
        "--experiment-column",
        required=True,
        metavar="NAME",
        help="label that was measured, in the same unit",
    )
    out.add_argument(
        "--experiment",
        type=Path,
        metavar="FILE",
        help="CSV with the columns id and --experiment-column, joined to the crystals by id; "
        "several values of one id are averaged (default: the label is in --data)",
    )
    out.add_argument(
        "--fractions",
        type=_shares,
        default=FRACTIONS,
        metavar="X,Y",
        help="shares of the measured values to adapt to; the others judge (default 0.2,0.8)",
    )
    out.add_argument(
        "--formulas",
        choices=("disjoint", "shared"),
        default="disjoint",
        help="whether DFT labels of crystals that have the formula of a compound with a measured "
        "value are kept out of training, or are trained on as well (default disjoint)",
    )
    out.add_argument(
        "--students",
        nargs="+",
        default=["cgcnn"],
        metavar="NAME",
        help="predictors, as distill --student takes them (default cgcnn)",
    )
    out.add_argument(
        "--seeds",
        nargs="+",
        type=flags.not_negative(int),
        default=[0, 1, 2],
        metavar="N",
        help="of weights, order and splits: a run of everything for each (default 0 1 2)",
    )
    flags.add_teacher_flag(out, files=True)
    flags.add_settings(out, PropertySettings, ("weight",))
    flags.add_settings(out, UntaggedSettings)
    flags.add_config_flag(flags.add_run_flags(out, "runs/debias-DATA"))
    flags.add_record_flag(out)
    flags.add_training_flags(out, ("epochs", "batch_size", "learning_rate"))
    group = out.add_argument_group("adaptation")
    for name in ("epochs", "learning_rate"):
        field = next(one for one in settings_of(TrainingSettings) if one.name == name)
        kind = flags.positive(int) if name == "epochs" else flags.positive(float)
        default = f"{field.default}" if name == "epochs" else "0.4 times the student's own"
        group.add_argument(
            f"--adapt-{name.replace('_', '-')}",
            type=kind,
            metavar="N" if name == "epochs" else "X",
            default=field.default,
            help=f"as --{name.replace('_', '-')}, of the steps on measured values "
            f"(default {default})",
        )
    flags.add_student_flags(out, settings=False)
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data, students
    from crysgnn_jax.crystals.named import unit_of
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.files import write_json
    from crysgnn_jax.reporting import debias as report
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.lesson import load_teacher

    short = [name.rpartition(":")[2] for name in args.students]
    if len(set(short)) < len(short):
        raise UserError(f"`students` {' '.join(args.students)}: two have the same name; rename one")
    if args.weight == 0:
        raise UserError("`weight` 0 is the student alone, which is judged anyway; give more")
    if args.record is not None:
        cli.require_writable(args.record)
    dft, measured = _sources(args)
    name = Path(args.data[0]).stem
    base = args.workdir or Path("runs") / f"debias-{name}"
    cli.make_folder("workdir", base)
    teacher = load_teacher(args.teacher)
    job = _Job(args, dft, measured, base, data.Graphs(args, base), teacher, Devices(args.devices))
    judged: list[Judged] = []
    for student in args.students:
        judged += job.judge(students.student_of(student))
    # DFT itself is judged with every student, by the same compounds.
    judged = list({(j.method, j.fraction, j.seed): j for j in judged}.values())
    order = sorted({one.fraction for one in judged})
    judged.sort(key=lambda one: order.index(one.fraction))
    unit = unit_of(args.dft_column) or unit_of(args.experiment_column)
    lines = report.summarise(judged)
    report.write_said(judged, base / "said.csv")
    report.draw(
        judged,
        base / "debias.png",
        student=args.students[0].rpartition(":")[2],
        property=args.dft_column.replace("_", " "),
        unit=unit,
        data=name,
    )
    content = {
        "command": cli.command_line(),
        "unit": unit,
        "formulas": args.formulas,
        **job.counts,
        "lines": report.as_json(lines, judged),
    }
    write_json(base / "debias.json", content)
    if args.record is not None:
        write_json(args.record, {**content, "runs": job.records()})
    print(report.table(lines, unit))
    print(f"files: {base}")


def _sources(args: argparse.Namespace) -> tuple["Source", "Source"]:
    """Crystals with DFT labels, those with a measured value among them; and the latter alone."""
    import numpy as np

    from crysgnn_jax.crystals.readers import read
    from crysgnn_jax.crystals.sources import select
    from crysgnn_jax.crystals.values import WithValues, read_values
    from crysgnn_jax.errors import UserError

    if args.dft_column == args.experiment_column:
        raise UserError(
            f"`experiment_column` {args.experiment_column}: is that of `dft_column` too; name the "
            "column of what was measured"
        )
    source = read(args.data)
    if args.experiment is not None:
        values = read_values(args.experiment, args.experiment_column)
        source = WithValues(source, args.experiment_column, values)
    for parameter in ("dft_column", "experiment_column"):
        column = getattr(args, parameter)
        if column not in source.label_names:
            listed = ", ".join(source.label_names) or "no labels"
            raise UserError(f"`{parameter}` {column}: {source.name} has {listed}")
    known = source.labelled(args.dft_column)
    measured = source.labelled(args.experiment_column)
    both = np.flatnonzero(known & measured)
    if without := int((measured & ~known).sum()):
        print(f"{without} crystals have a measured value and no DFT label: left out",
              file=sys.stderr)  # fmt: skip
    if not len(both):
        raise UserError(
            f"{source.name}: no crystal has both {args.dft_column} and {args.experiment_column}"
        )
    others = np.flatnonzero(known & ~measured)
    if args.limit is not None and args.limit < len(others):
        others = np.random.default_rng(0).choice(others, args.limit, replace=False)
    chosen = np.sort(np.concatenate([both, others]))
    return select(source, chosen), select(source, both, f"{source.name} (measured)")


@dataclasses.dataclass
class _Job:
    """All that the runs of a command share."""

    args: argparse.Namespace
    dft: "Source"
    measured: "Source"
    base: Path
    build: Any
    teacher: Any
    devices: Any
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    runs: dict[str, Path] = dataclasses.field(default_factory=dict)

    def judge(self, student: Any) -> list["Judged"]:
        """What a student's twins, and DFT itself, say of the compounds."""
        import numpy as np

        from crysgnn_jax.reporting.comparison import DISTILLED, VANILLA
        from crysgnn_jax.reporting.debias import ADAPTED, CORRECTED, DFT, Judged
        from crysgnn_jax.training.debias import (
            Correction,
            adapting,
            dft_split,
            measured_split,
        )
        from crysgnn_jax.training.lesson import prepare

        args = self.args
        dft_name, measured_name = args.dft_column, args.experiment_column
        found = []
        for variant in (VANILLA, DISTILLED):
            lesson = prepare(
                student,
                self.dft,
                dft_name,
                self.build,
                self.devices,
                teacher=self.teacher,
                distilled=variant == DISTILLED,
                graphs=flags.given(args, FeaturiserSettings),
                pull="standardised",
                untagged=UntaggedSettings(**flags.given(args, UntaggedSettings)),
            )
            labels = lesson.store.labels(measured_name)
            both = lesson.labelled[np.isfinite(labels[lesson.labelled])]
            store = self.build(self.measured, lesson.store.settings)
            rows = np.flatnonzero(
                np.isfinite(store.labels(dft_name)) & np.isfinite(store.labels(measured_name))
            )
            of_dft, truth = store.labels(dft_name), store.labels(measured_name)
            # All of them before anything is trained: one may have too few compounds.
            shared = args.formulas == "shared"
            splits = {
                seed: dft_split(lesson.store, lesson.labelled, both, seed, shared=shared)
                for seed in args.seeds
            }
            shares = {
                (seed, fraction): measured_split(store, rows, fraction, seed)
                for seed in args.seeds
                for fraction in args.fractions
            }
            for seed, split in splits.items():
                self.counts |= {"n_compounds": len(rows), "n_dft": len(split.train)}
                name = f"{student.name.rpartition(':')[2]} {variant}"
                folder = f"{name.replace(' ', '-')}-{seed}"
                trained = self._train(lesson, split, f"dft-{args.formulas}", seed, folder, name)
                before = trained.predict_store(store, self.devices).values
                for fraction in args.fractions:
                    parts = shares[seed, fraction]
                    after = self._train(
                        adapting(student, trained, measured_name, store),
                        parts,
                        f"measured-{fraction:g}",
                        seed,
                        f"{folder}-adapted-{100 * fraction:g}",
                        f"{name} on {100 * fraction:g} % of the measured values",
                    )
                    used = np.concatenate([parts.train, parts.validation])
                    line = Correction.fit(of_dft[used], truth[used])
                    said = {
                        DFT: of_dft,
                        CORRECTED: line.apply(of_dft),
                        name: before,
                        name + ADAPTED: after.predict_store(store, self.devices).values,
                    }
                    test = parts.test
                    found += [
                        Judged(method, fraction, seed, store.ids[test], truth[test], values[test])
                        for method, values in said.items()
                    ]
        return found

    def _train(self, lesson: Any, split: Any, rule: str, seed: int, folder: str, title: str) -> Any:
        """Train, go on, or find it trained."""
        from crysgnn_jax.objectives.distillation import name_of_pull
        from crysgnn_jax.reporting.run import draw_run
        from crysgnn_jax.training.logs import Progress
        from crysgnn_jax.training.predictor import TrainedModel

        args = self.args
        values = {**flags.given(args, TrainingSettings), "seed": seed}
        if lesson.property == args.experiment_column:
            # A batch for few crystals, whatever that of the many is.
            values.pop("batch_size", None)
            values |= {"epochs": args.adapt_epochs, "learning_rate": args.adapt_learning_rate}
        learning = PropertySettings(**flags.given(args, PropertySettings))
        self.devices.require(len(split.train))
        path = self.base / folder
        lesson.learn(
            split,
            rule,
            TrainingSettings(**values),
            learning,
            title=title,
            pull=name_of_pull(learning.pull)[1],
            devices=self.devices,
            workdir=path,
            progress=Progress,
            about={"command": "debias", "data": args.data, "limit": args.limit},
            cache=args.cache,
            draw=draw_run,
            overwrite=args.overwrite,
        )
        self.runs[folder] = path
        return TrainedModel.load(path, network=lesson.student.network)

    def records(self) -> dict[str, Any]:
        """Settings and outcome of every run, for a record: data by name, not by where they lie."""
        from crysgnn_jax.training.shipped import without_places
        from crysgnn_jax.training.workdir import CONFIG, RESULT, read_json

        found = {}
        for name, path in self.runs.items():
            config = without_places(read_json(path / CONFIG))
            found[name] = {"config": config, "result": read_json(path / RESULT)}
        return found
