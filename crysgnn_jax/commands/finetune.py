"""Fine-tune a pre-trained encoder with a property head: the approach that distillation is to beat.

crysgnn finetune --teacher runs/teacher
crysgnn finetune --teacher runs/teacher --data elastic --freeze
"""

import argparse
from pathlib import Path

from crysgnn_jax import processes
from crysgnn_jax.commands import cli, flags


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("finetune", __doc__)
    flags.add_teacher_flag(out)
    out.add_argument(
        "--freeze",
        action="store_true",
        help="keep the encoder as it is and train the head alone (default: train all layers)",
    )
    flags.add_label_flags(out)
    group = flags.add_run_flags(out, "runs/finetune-DATA-PROPERTY")
    flags.add_config_flag(group)
    flags.add_outcome_flags(group)
    flags.add_record_flag(out)
    names = ("epochs", "batch_size", "accumulate", "learning_rate", "seed")
    flags.add_training_flags(out, names)
    flags.add_processes_flags(out)
    flags.add_student_flags(out, settings=False)
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data, students
    from crysgnn_jax.crystals.readers import read
    from crysgnn_jax.crystals.sources import require_tag
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.reporting.run import draw_run, title_of
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.lesson import Student, choose_property, prepare, warn_of_labels
    from crysgnn_jax.training.logs import Progress
    from crysgnn_jax.training.model_file import export
    from crysgnn_jax.training.predictor import TrainedModel
    from crysgnn_jax.training.run import as_begun

    if args.freeze and args.weight_decay:
        raise UserError(
            "`weight_decay` would shrink the encoder that `freeze` keeps; leave one out"
        )
    for file in filter(None, (args.record, args.export)):
        cli.require_writable(file)
    source = read(args.data)
    property = choose_property(args.data, source, args.property)
    require_tag(source, args.split)
    source = data.limited(source, args.limit, property)
    teacher = TrainedModel.load(args.teacher, "teacher")
    warn_of_labels(teacher)
    path = args.workdir or Path("runs") / f"finetune-{Path(args.data).stem}-{property}"
    devices = as_begun(Devices(args.devices), path, anew=args.overwrite)
    student = Student.of_pretrained(teacher, freeze=args.freeze)
    lesson = prepare(
        student,
        source,
        property,
        data.Graphs(args, path),
        devices,
        teacher=teacher,
        distilled=False,
        graphs=flags.given(args, FeaturiserSettings),
    )
    split = lesson.split(args.split, args.seed)
    devices.require(len(split.train))
    training, learning = students.settings_of(args)
    result = lesson.learn(
        split,
        args.split,
        training,
        learning,
        title=title_of(student.name, student.model, distilled=False),
        devices=devices,
        workdir=path,
        progress=Progress,
        about=students.about(args, "finetune"),
        draw=draw_run,
        overwrite=args.overwrite,
        named=students.named(args),
        continued=args.continued,
    )
    if not processes.is_first():
        return
    results = {"fine-tuned": {**result, "files": str(path)}}
    students.report(results, path)
    if args.record is not None:
        students.record(args.record, results)
    if args.export is not None:
        export(path, args.export)
