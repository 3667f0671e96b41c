"""Pre-train a network on untagged crystals.

crysgnn pretrain
crysgnn pretrain --data my_cifs/ --data oqmd.json --workdir runs/mine
crysgnn pretrain --network crysae
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crysgnn_jax.commands import flags
from crysgnn_jax.pretraining.catalogue import OBJECTIVES, RELEASED

WORKDIRS = {"crysgnn": "runs/teacher", "crysae": "runs/crysae"}
"""Network → where it is written by default, and where the other commands look for it."""


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("pretrain", __doc__)
    out.add_argument(
        "--network",
        "--teacher",
        choices=tuple(RELEASED),
        default="crysgnn",
        help="crysgnn, the teacher; or crysae, the auto-encoder whose convolutions the student "
        "crysxpp starts from (default crysgnn)",
    )
    out.add_argument(
        "--data",
        action="append",
        metavar="NAME|PATH",
        help="data set or path of crystals; may be repeated (default bundled)",
    )
    flags.add_run_flags(out, "runs/teacher, for crysae runs/crysae")
    names = ("epochs", "batch_size", "learning_rate", "seed")
    flags.add_training_flags(out, names, {"epochs": 20})
    group = out.add_argument_group("network")
    group.add_argument(
        "--width",
        type=flags.positive(int),
        default=64,
        metavar="N",
        help="length of an atom embedding (default 64)",
    )
    group.add_argument(
        "--n-convolutions",
        type=flags.positive(int),
        metavar="N",
        help="convolutions (default 5, for crysae 3)",
    )
    group.add_argument(
        "--temperature",
        type=flags.positive(float),
        metavar="X",
        help="of the contrastive loss (default 0.07)",
    )
    for name in OBJECTIVES:
        weights = {network: found.get(name, 0) for network, found in RELEASED.items()}
        default = ", ".join(f"for {network} {weight:g}" for network, weight in weights.items())
        group.add_argument(
            f"--{name.replace('_', '-')}-weight",
            type=flags.fraction,
            metavar="X",
            help=f"weight of the {name.replace('_', '-')} loss (default {default})",
        )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data
    from crysgnn_jax.crystals.readers import read
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.models.registry import build
    from crysgnn_jax.pretraining.registry import PRETRAINED, objectives_of
    from crysgnn_jax.reporting.run import draw_run
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.logs import Progress
    from crysgnn_jax.training.pretraining_task import PretrainingTask, hold_out
    from crysgnn_jax.training.run import Run, train
    from crysgnn_jax.training.settings import TrainingSettings

    weights = {name: getattr(args, f"{name}_weight") for name in OBJECTIVES}
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    temperature = {} if args.temperature is None else {"temperature": args.temperature}
    objectives = objectives_of(args.network, weights, **temperature)
    names = args.data or ["bundled"]
    source = data.limited(read(names), args.limit)
    devices = Devices(args.devices)
    featuriser = FeaturiserSettings(**flags.given(args, FeaturiserSettings))
    store = data.Graphs(args)(source, featuriser)
    split = hold_out(len(store), args.seed)
    devices.require(len(split.train))
    network = PRETRAINED[args.network]
    model: dict[str, Any] = {"width": args.width}
    if args.n_convolutions is not None:
        model["n_convolutions"] = args.n_convolutions
    settings = TrainingSettings(**flags.given(args, TrainingSettings)).filled(network.recipe)
    path = args.workdir or Path(WORKDIRS[args.network])
    run = Run(
        name=args.network,
        network=network,
        module=build(
            network.module,
            model,
            cutoff=featuriser.cutoff,
            objectives=tuple(objective for objective, _ in objectives),
        ),
        settings=settings,
        store=store,
        split=split,
        devices=devices,
        workdir=path,
        progress=Progress(settings.epochs, args.network),
        about={"command": "pretrain", "data": names, "limit": args.limit},
        overwrite=args.overwrite,
    )
    result = train(run, PretrainingTask(objectives), draw_run)
    _report(result, ["loss", *(objective.name for objective, _ in objectives)], path)


def _report(result: Mapping[str, Any], first: list[str], path: Path) -> None:
    """Print one row: the losses on the validation crystals, those named first in their order."""
    from crysgnn_jax.reporting.tables import text_table

    measured = [name[len("validation_") :] for name in result if name.startswith("validation_")]
    parts = [*first, *(name for name in measured if name not in first)]
    print(
        text_table(
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
    )
