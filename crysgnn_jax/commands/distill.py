"""Train a property predictor with and without the teacher, and compare them.

python -m experiments.distill --student cgcnn
python -m experiments.distill --student alignn --data elastic --property shear_modulus_vrh
python -m experiments.distill --student cgcnn --data my_cifs/ --weight 0.3 --workdir runs/mine
python -m experiments.distill --student my_package.models:MyStudent
"""

from collections.abc import Sequence
from pathlib import Path

from crysgnn_jax.commands import cli


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(prog="python -m experiments.distill", description=__doc__.split("\n")[0])
    out.add_argument(
        "--student",
        required=True,
        metavar="NAME",
        help="predictor to train: cgcnn, crysxpp, gatgnn, alignn, or a Flax module of your own as "
        "package.module:ClassName",
    )
    cli.add_teacher_flags(out)
    cli.add_label_flags(out)
    which = out.add_mutually_exclusive_group()
    which.add_argument(
        "--weight",
        type=cli.fraction,
        metavar="X",
        help="weight of the teacher's pull, 0 to 1: trains one student (default: both twins, one "
        f"with 0 and one with {cli.DEFAULT_WEIGHT}, in DIR/vanilla and DIR/distilled)",
    )
    which.add_argument(
        "--vanilla",
        action="store_true",
        help="train without a teacher; the same as --weight 0 (graphs are then made as the flags "
        "below say, not as the teacher's were)",
    )
    cli.add_run_flags(out, "runs/STUDENT-DATA-PROPERTY")
    cli.add_record_flag(out)
    cli.add_training_flags(out, epochs=60, batch_size=None, learning_rate=None)
    cli.add_student_flags(out)
    cli.add_data_flags(out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    # Imported once the flags are known to be good: JAX takes seconds to start.
    from crysgnn_jax.commands import supervised
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.models.registry import find_student, parse_settings
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.trained import TrainedModel
    from crysgnn_jax.training.workdir import CONFIG, write_json

    student = find_student(args.student)
    model = parse_settings(args.set, student)
    weights = {"vanilla": 0.0, "distilled": cli.DEFAULT_WEIGHT}
    if args.vanilla or args.weight == 0.0:
        weights = {"vanilla": 0.0}
    elif args.weight is not None:
        weights = {"distilled": args.weight}
    if args.record is not None:
        cli.require_writable(args.record)
    source = cli.open_data([args.data])
    property = supervised.choose_property(args.data, source, args.property)
    devices = Devices(args.devices)
    needs_teacher = any(weight > 0 for weight in weights.values())
    teacher = TrainedModel.load(args.teacher) if needs_teacher else None
    start = supervised.autoencoder_start(args.autoencoder, student, args.student)
    store = cli.graphs(
        args, source, supervised.student_graphs(args, student, teacher), label=property
    )
    split = supervised.labelled_split(store, property, args.split, args.seed)
    devices.require(len(split.train))
    name = args.student.rpartition(":")[2]
    base = args.workdir or Path("runs") / f"{name}-{Path(args.data).stem}-{property}"
    # A single student given its own --workdir is that directory; otherwise twins lie side by
    # side, so that training the second later completes the pair.
    alone = args.workdir is not None and len(weights) == 1
    if not alone and (base / CONFIG).exists():
        raise UserError(f"--workdir {base} holds a single run; name another directory for twins")
    results = {}
    for variant, weight in weights.items():
        embeddings = None
        if weight > 0:
            embeddings = supervised.embeddings_for(args, teacher, source, property, store, devices)
        run = supervised.Run(
            command="distill",
            title=f"{name} {variant}",
            network=args.student,
            student=student,
            model=model,
            settings=supervised.settings_of(
                args, args.student, student, property, weight, args.seed
            ),
            data=args.data,
            limit=args.limit,
            rule=args.split,
            store=store,
            split=split,
            devices=devices,
            teacher=teacher if weight > 0 else None,
            teacher_embeddings=embeddings,
            start=start,
        )
        results[variant] = run.execute(
            base if alone else base / variant,
            overwrite=args.overwrite,
            log_every=args.log_every,
            checkpoint_seconds=args.checkpoint_seconds,
        )
    supervised.report(results, base)
    if len(results) > 1:
        write_json(base / "comparison.json", results)
    if args.record is not None:
        supervised.record(args.record, results)
