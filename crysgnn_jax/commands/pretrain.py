"""Pre-train a network on untagged crystals.

crysgnn pretrain
crysgnn pretrain --data my_cifs/ --data oqmd.json --workdir runs/mine
crysgnn pretrain --network crysae
crysgnn pretrain --recipe released --workdir runs/as_published
crysgnn pretrain --network cgcnn --workdir runs/cgcnn
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crysgnn_jax import processes
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.errors import UserError
from crysgnn_jax.pretraining.catalogue import OBJECTIVES, RELEASED

WORKDIRS = {"crysgnn": "runs/teacher"}
"""Network → where it is written by default, where that is not its name."""


def weighted(text: str) -> tuple[str, float]:
    """An argparse type: ``NAME=WEIGHT``."""
    name, _, weight = text.partition("=")
    if name not in OBJECTIVES:
        raise argparse.ArgumentTypeError(f"{text}: there is {', '.join(OBJECTIVES)}")
    return name, flags.not_negative(float)(weight)


weighted.__name__ = "NAME=WEIGHT"


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("pretrain", __doc__)
    out.add_argument(
        "--network",
        "--teacher",
        default="crysgnn",
        metavar="NAME",
        help="crysgnn, the teacher; crysae, the auto-encoder whose convolutions the student "
        "crysxpp starts from; or a student (cgcnn, crysxpp, gatgnn, alignn, package.module:Class), "
        "which then learns without a teacher, to be fine-tuned (default crysgnn)",
    )
    out.add_argument(
        "--recipe",
        choices=("chemistry", "released"),
        help="what is learned: chemistry (masked elements, hidden scale, hidden distances, "
        "oxidation states), or released, as the network's authors did (default chemistry; for "
        "crysae released)",
    )
    out.add_argument(
        "--objectives",
        nargs="+",
        default=[],
        type=weighted,
        metavar="NAME=WEIGHT",
        help="objectives beside or instead of the recipe's, each with its weight, 0 for measured "
        f"and not learned; there is {', '.join(OBJECTIVES)} (default: the recipe's)",
    )
    out.add_argument(
        "--follow",
        type=Path,
        metavar="NAME|DIR",
        help="a teacher whose atom embeddings are told too, with weight 1, and nothing else where "
        "no recipe and no objective is given: distillation on untagged crystals (default: none)",
    )
    out.add_argument(
        "--data",
        action="append",
        metavar="NAME|PATH",
        help="data set or path of crystals; may be repeated (default bundled)",
    )
    out.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="crystals that students will be tested on, or a .json of their ids, such as a "
        "student's SPLITS.json: what has the reduced formula of any of them, or of the split's "
        "test crystals, is left out of --data; may be repeated (default: none)",
    )
    group = flags.add_run_flags(out, "runs/teacher; for others runs/NETWORK")
    flags.add_config_flag(group)
    flags.add_outcome_flags(group)
    flags.add_record_flag(out)
    names = ("epochs", "batch_size", "accumulate", "learning_rate", "seed")
    flags.add_training_flags(out, names, {"epochs": 20})
    flags.add_processes_flags(out)
    group = out.add_argument_group("network")
    group.add_argument(
        "--width",
        type=flags.positive(int),
        metavar="N",
        help="length of an atom embedding (default 64)",
    )
    group.add_argument(
        "--n-convolutions",
        type=flags.positive(int),
        metavar="N",
        help="convolutions (default 5; for others 3)",
    )
    flags.add_set_flag(group)
    group.add_argument(
        "--temperature",
        type=flags.positive(float),
        metavar="X",
        help="of the contrastive loss (default 0.07)",
    )
    for name in RELEASED["crysgnn"]:
        group.add_argument(
            f"--{name.replace('_', '-')}-weight",
            type=flags.fraction,
            metavar="X",
            help=f"the same as --objectives {name}=X (default: the recipe's)",
        )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data, students
    from crysgnn_jax.crystals.excluded import excluded, formulas_excluded
    from crysgnn_jax.crystals.readers import read
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.pretraining.objective import Weighted
    from crysgnn_jax.pretraining.registry import (
        graphs_of,
        objectives_of,
        recipe_named,
        without_labels,
    )
    from crysgnn_jax.pretraining.teacher_embeddings import TeacherEmbeddings
    from crysgnn_jax.reporting.run import draw_run
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.lesson import embeddings_of
    from crysgnn_jax.training.logs import Progress
    from crysgnn_jax.training.model_file import export
    from crysgnn_jax.training.predictor import TrainedModel
    from crysgnn_jax.training.pretraining_task import PretrainingTask, hold_out, rows_without
    from crysgnn_jax.training.run import Run, as_begun, train
    from crysgnn_jax.training.settings import TrainingSettings

    for file in filter(None, (args.record, args.export)):
        cli.require_writable(file)
    training = TrainingSettings(**flags.given(args, TrainingSettings))
    weights = {name: getattr(args, f"{name}_weight") for name in RELEASED["crysgnn"]}
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    weights |= dict(args.objectives)
    teacher = None if args.follow is None else TrainedModel.load(args.follow, "teacher")
    objectives: Weighted = ()
    if teacher is not None:
        objectives = ((TeacherEmbeddings(teacher.embedding_width()), 1.0),)
    if teacher is None or args.recipe or weights:
        alone = teacher is not None and args.recipe is None
        recipe = "none" if alone else recipe_named(args.network, args.recipe)
        temperature = {} if args.temperature is None else {"temperature": args.temperature}
        objectives = (*objectives, *objectives_of(recipe, weights, **temperature))
    featuriser = graphs_of(args.network, flags.given(args, FeaturiserSettings))
    found = without_labels(
        args.network,
        objectives,
        _model(args),
        cutoff=featuriser.cutoff,
        released=args.recipe == "released",
    )
    names = args.data or ["bundled"]
    whole = read(names)
    source = data.limited(whole, args.limit)
    left_out = formulas_excluded([excluded(name, whole) for name in args.exclude])
    path = args.workdir or Path(WORKDIRS.get(args.network, f"runs/{args.network}"))
    devices = as_begun(Devices(args.devices), path, anew=args.overwrite)
    build = data.Graphs(args, path)
    store = build(source, featuriser)
    rows = rows_without(store, left_out)
    if args.exclude:
        print(f"{len(store) - len(rows)} crystals left out by formula", file=sys.stderr)
    split = hold_out(rows, args.seed)
    devices.require(len(split.train))
    settings = training.filled(found.network.recipe, len(split.train), len(devices))
    following: dict[str, Any] = {}
    if teacher is not None:
        found_by = embeddings_of(teacher, source, store, build, devices)
        following = {
            "teacher_embeddings": found_by,
            "teacher": teacher.fingerprint,
            "teacher_memory": teacher.memory,
        }
    run = Run(
        name=found.name,
        network=found.network,
        module=found.module,
        settings=settings,
        store=store,
        split=split,
        devices=devices,
        workdir=path,
        progress=Progress(settings.epochs, args.network),
        about={"command": "pretrain", "data": names, "limit": args.limit},
        overwrite=args.overwrite,
        named=_named(args),
        continued=args.continued,
    )
    result = train(run, PretrainingTask(objectives, **following), draw_run)
    if not processes.is_first():
        return
    _report(result, ["loss", *(objective.name for objective, _ in objectives)], path)
    if args.record is not None:
        students.record(args.record, {args.network: {**result, "files": str(path)}})
    if args.export is not None:
        export(path, args.export)


def _model(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of the network's module that are given.

    Raises:
      UserError: ``--set`` is given and the network is no student, or has no such setting.
    """
    from crysgnn_jax.commands.students import parse_settings
    from crysgnn_jax.models.registry import find_network
    from crysgnn_jax.pretraining.registry import PRETRAINED

    given = {"width": args.width, "n_convolutions": args.n_convolutions}
    given = {name: value for name, value in given.items() if value is not None}
    if args.set and args.network in PRETRAINED:
        raise UserError(
            f"--set {args.set[0]}: that is of students; {args.network} takes --width and "
            "--n-convolutions"
        )
    return given | (parse_settings(args.set, find_network(args.network)) if args.set else {})


def _named(args: argparse.Namespace) -> dict[str, Any]:
    """What ``config.json`` knows by its content alone, by the names of flags."""
    follow = {} if args.follow is None else {"follow": str(args.follow)}
    return {**follow, **({"exclude": args.exclude} if args.exclude else {})}


def _report(result: Mapping[str, Any], first: list[str], path: Path) -> None:
    """Print one row: the losses on the validation crystals, those named first in their order; and
    on standard error what to know of them."""
    from crysgnn_jax.reporting.run import verdict_of
    from crysgnn_jax.reporting.tables import print_table

    measured = [name[len("validation_") :] for name in result if name.startswith("validation_")]
    parts = [*first, *(name for name in measured if name not in first)]
    print_table(
        ["validation", *parts, "crystals/s", "files"],
        [
            [
                f"{result['n_validation']} of {result['n_train'] + result['n_validation']}",
                *(f"{result[f'validation_{part}']:.4f}" for part in parts),
                f"{result['crystals_per_second']:.0f}",
                str(path),
            ]
        ],
    )
    for warning in verdict_of(path, result)[1:]:
        print(f"warning: {warning}", file=sys.stderr)
