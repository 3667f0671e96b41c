"""Fine-tune a pre-trained encoder with a property head: the approach that distillation is to beat.

python -m experiments.finetune --teacher runs/teacher
python -m experiments.finetune --teacher runs/teacher --data elastic --freeze
"""

from collections.abc import Sequence
from pathlib import Path

from crysgnn_jax.commands import cli


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(prog="python -m experiments.finetune", description=__doc__.split("\n")[0])
    cli.add_teacher_flags(out, autoencoder=False)
    out.add_argument(
        "--freeze",
        action="store_true",
        help="keep the encoder as it is and train the head alone (default: train all layers)",
    )
    cli.add_label_flags(out)
    cli.add_run_flags(out, "runs/finetune-DATA-PROPERTY")
    cli.add_record_flag(out)
    cli.add_training_flags(out, epochs=60, batch_size=None, learning_rate=None)
    cli.add_student_flags(out, settings=False)
    cli.add_data_flags(out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    # Imported once the flags are known to be good: JAX takes seconds to start.
    from crysgnn_jax.commands import supervised
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.trained import TrainedModel

    if args.freeze and args.weight_decay:
        raise UserError(
            "--weight-decay would shrink the encoder that --freeze keeps; leave one out"
        )
    if args.record is not None:
        cli.require_writable(args.record)
    source = cli.open_data([args.data])
    property = supervised.choose_property(args.data, source, args.property)
    devices = Devices(args.devices)
    teacher = TrainedModel.load(args.teacher)
    predictor = supervised.fine_tuned(teacher, freeze=args.freeze)
    store = cli.graphs(
        args, source, supervised.student_graphs(args, predictor.student, teacher), label=property
    )
    split = supervised.labelled_split(store, property, args.split, args.seed)
    devices.require(len(split.train))
    path = args.workdir or Path("runs") / f"finetune-{Path(args.data).stem}-{property}"
    run = supervised.Run(
        command="finetune",
        title="fine-tuned" + (" head" if args.freeze else ""),
        network="cgcnn",
        student=predictor.student,
        model=predictor.model,
        settings=supervised.settings_of(args, "cgcnn", predictor.student, property, 0.0, args.seed),
        data=args.data,
        limit=args.limit,
        rule=args.split,
        store=store,
        split=split,
        devices=devices,
        start=predictor.start,
    )
    result = run.execute(
        path,
        overwrite=args.overwrite,
        log_every=args.log_every,
        checkpoint_seconds=args.checkpoint_seconds,
    )
    supervised.report({"fine-tuned": result}, path)
    if args.record is not None:
        supervised.record(args.record, {"fine-tuned": result})
