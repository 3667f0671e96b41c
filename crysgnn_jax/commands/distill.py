"""Train a property predictor with and without the teacher, and compare them.

crysgnn distill --student cgcnn
crysgnn distill --student alignn --data elastic --property shear_modulus_vrh
crysgnn distill --student cgcnn --data my_cifs/ --weight 0.3 --workdir runs/mine
crysgnn distill --student cgcnn --data my_cifs/ --unit K --export model.safetensors
crysgnn distill --config run.yml --seed 1
crysgnn distill --student cgcnn --data few_labels.npz --unlabelled bundled
crysgnn distill --student my_package.models:MyStudent
"""

import argparse
from pathlib import Path

from crysgnn_jax import processes
from crysgnn_jax.commands import cli, flags


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("distill", __doc__)
    out.add_argument(
        "--student",
        required=True,
        metavar="NAME",
        help="predictor to train, such as cgcnn or alignn, or a Flax module of your own as "
        "package.module:ClassName",
    )
    flags.add_distillation_flags(out)
    out.add_argument(
        "--start",
        type=Path,
        metavar="DIR",
        help="what the student has learned without labels: a run of pretrain --network STUDENT, "
        "for the distilled one (default: see --unlabelled)",
    )
    flags.add_label_flags(out)
    which = out.add_mutually_exclusive_group()
    which.add_argument(
        "--weight",
        type=flags.fraction,
        metavar="X",
        help="weight of the teacher's pull beside the labels, 0 to 1: trains one student (default: "
        "both twins, one without a teacher and one with 0.1, for pulls that are not standardised "
        "0.5, in DIR/vanilla and DIR/distilled)",
    )
    which.add_argument(
        "--vanilla",
        action="store_true",
        help="train without a teacher; the same as --weight 0 (graphs are then made as the flags "
        "below say, not as the teacher's were)",
    )
    group = flags.add_run_flags(out, "runs/STUDENT-DATA-PROPERTY")
    flags.add_config_flag(group)
    flags.add_outcome_flags(group)
    flags.add_record_flag(out)
    names = ("epochs", "batch_size", "accumulate", "learning_rate", "seed")
    flags.add_training_flags(out, names)
    flags.add_processes_flags(out)
    flags.add_student_flags(out)
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data, students
    from crysgnn_jax.crystals.readers import read
    from crysgnn_jax.crystals.sources import require_tag
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.files import write_json
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.objectives.distillation import name_of_pull
    from crysgnn_jax.reporting.run import draw_run, title_of
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.lesson import choose_property, load_teacher, prepare
    from crysgnn_jax.training.logs import Progress
    from crysgnn_jax.training.model_file import export
    from crysgnn_jax.training.run import as_begun
    from crysgnn_jax.training.settings import UntaggedSettings
    from crysgnn_jax.training.workdir import CONFIG

    training, learning = students.settings_of(args)
    untagged = UntaggedSettings(**flags.given(args, UntaggedSettings))
    student = students.student_of(args.student, args.set, args.autoencoder)
    begun = student
    if args.start is not None:
        begun = students.student_of(args.student, args.set, args.autoencoder, args.start)
    _, pull = name_of_pull(learning.pull)
    variants = ["vanilla", "distilled"]
    if args.vanilla or args.weight is not None:
        variants = ["vanilla"] if args.vanilla or args.weight == 0 else ["distilled"]
    if args.unlabelled and "distilled" not in variants:
        raise UserError("`unlabelled`: there is no teacher to pull on them; leave it out")
    if args.start is not None and "distilled" not in variants:
        raise UserError("`start`: that would not be vanilla; use finetune --teacher")
    for file in filter(None, (args.record, args.export)):
        cli.require_writable(file)
    source = read(args.data)
    property = choose_property(args.data, source, args.property)
    require_tag(source, args.split)
    source = data.limited(source, args.limit, property)
    unlabelled = [read(name) for name in args.unlabelled]
    devices = Devices(args.devices)
    teacher = load_teacher(args.teacher) if "distilled" in variants else None
    name = args.student.rpartition(":")[2]
    base = args.workdir or Path("runs") / f"{name}-{Path(args.data).stem}-{property}"
    build = data.Graphs(args, base)
    lessons = {
        variant: prepare(
            begun if variant == "distilled" else student,
            source,
            property,
            build,
            devices,
            teacher=teacher,
            distilled=variant == "distilled",
            graphs=flags.given(args, FeaturiserSettings),
            unlabelled=unlabelled,
            pull=learning.pull,
            untagged=untagged,
            needs_unlabelled=learning.needs_unlabelled(),
        )
        for variant in variants
    }
    # A single student given its own --workdir is that directory; otherwise twins lie side by
    # side, so that training the second later completes the pair.
    alone = args.workdir is not None and len(variants) == 1
    if not alone and processes.told((base / CONFIG).exists):
        raise UserError(f"`workdir` {base} holds a single run; name another directory for twins")
    results = {}
    for variant, lesson in lessons.items():
        split = lesson.split(args.split, args.seed)
        path = base if alone else base / variant
        used = as_begun(devices, path, anew=args.overwrite)
        used.require(len(split.train))
        result = lesson.learn(
            split,
            args.split,
            training,
            learning,
            title=title_of(student.name, student.model, distilled=variant == "distilled"),
            pull=pull,
            devices=used,
            workdir=path,
            progress=Progress,
            about=students.about(args, "distill"),
            cache=args.cache,
            draw=draw_run,
            overwrite=args.overwrite,
            named=students.named(args, distilled=variant == "distilled"),
            continued=args.continued,
        )
        results[variant] = {**result, "files": str(path)}
    if not processes.is_first():
        return
    students.report(results, base if len(results) > 1 else path)
    if len(results) > 1:
        write_json(base / "comparison.json", results)
    if args.record is not None:
        students.record(args.record, results)
    if args.export is not None:
        export(path, args.export)
