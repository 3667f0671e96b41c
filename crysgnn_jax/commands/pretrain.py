"""Pre-train a network on untagged crystals.

python -m experiments.pretrain
python -m experiments.pretrain --data my_cifs/ --data oqmd.json --workdir runs/mine
python -m experiments.pretrain --teacher crysae
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crysgnn_jax.commands import cli

WORKDIRS = {"crysgnn": "runs/teacher", "crysae": "runs/crysae"}
"""Network → where it is written by default, and where the other commands look for it."""


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(prog="python -m experiments.pretrain", description=__doc__.split("\n")[0])
    out.add_argument(
        "--teacher",
        choices=tuple(WORKDIRS),
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
    cli.add_run_flags(out, "runs/teacher, for crysae runs/crysae")
    cli.add_training_flags(out, epochs=20, batch_size=128, learning_rate=0.01)
    group = out.add_argument_group("network")
    group.add_argument(
        "--width",
        type=cli.positive(int),
        default=64,
        metavar="N",
        help="length of an atom embedding (default 64)",
    )
    group.add_argument(
        "--n-convolutions",
        type=cli.positive(int),
        metavar="N",
        help="convolutions (default 5, for crysae 3)",
    )
    group.add_argument(
        "--temperature",
        type=cli.positive(float),
        metavar="X",
        help="of the contrastive loss of crysgnn (default 0.07)",
    )
    for name, default in (
        ("connection", "0.25, for crysae 0.9"),
        ("feature", "0.25, for crysae 0.1"),
        ("space-group", "0.25; crysgnn alone has it"),
        ("contrastive", "0.25; crysgnn alone has it"),
    ):
        group.add_argument(
            f"--{name}-weight",
            type=cli.fraction,
            metavar="X",
            help=f"weight of the {name} loss (default {default})",
        )
    cli.add_data_flags(out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    # Imported once the flags are known to be good: JAX takes seconds to start.
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.models.registry import TEACHERS, build
    from crysgnn_jax.reporting.tables import text_table
    from crysgnn_jax.training.devices import AXIS, Devices
    from crysgnn_jax.training.logs import MetricsLog, Progress
    from crysgnn_jax.training.pretraining import PretrainSettings, hold_out, pretrain
    from crysgnn_jax.training.workdir import Workdir

    loss, monitor, loss_settings = _objective(args)
    data = args.data or ["bundled"]
    source = cli.open_data(data)
    devices = Devices(args.devices)
    featuriser = cli.featuriser_of(args, FeaturiserSettings())
    store = cli.graphs(args, source, featuriser)
    rows = hold_out(len(store), args.seed)
    devices.require(len(rows[0]))
    network = TEACHERS[args.teacher]
    model = {
        "width": args.width,
        "n_convolutions": args.n_convolutions or network.n_convolutions,
        "cutoff": featuriser.cutoff,
    }
    settings = PretrainSettings(
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
    )
    path = args.workdir or Path(WORKDIRS[args.teacher])
    made_with = {
        "command": "pretrain",
        "network": args.teacher,
        "data": data,
        "limit": args.limit,
        "graphs": store.fingerprint,
        "featuriser": dataclasses.asdict(featuriser),
        "model": model,
        "settings": {**dataclasses.asdict(settings), **loss_settings},
        "devices": len(devices),
    }
    with Workdir(path, made_with, overwrite=args.overwrite) as workdir:
        result = workdir.result
        if result is not None:
            print(f"{path} holds a finished run:")
        else:
            cli.announce(devices)
            cli.write_skipped(store, path / "skipped.csv")
            module = build(network, model, axis_name=AXIS)
            result = pretrain(
                store,
                rows,
                workdir,
                module,
                loss,
                settings,
                devices,
                Progress(settings.epochs, args.teacher),
                monitor=monitor,
                log_every=args.log_every,
                checkpoint_seconds=args.checkpoint_seconds,
            )
            # Not before training: matplotlib takes a second to import.
            from crysgnn_jax.reporting.figures import loss_curves

            loss_curves(
                {"": MetricsLog(workdir.metrics).read()},
                path / "loss.png",
                ["loss", *loss_settings["weights"]],
            )
            workdir.finish(result)
    first = ["loss", *loss_settings["weights"]]
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


def _objective(args: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """The network's loss, further validation metrics, and the settings of both for the record."""
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.objectives.autoencoder import AutoencoderWeights, autoencoder_loss
    from crysgnn_jax.objectives.pretraining import (
        PretrainingWeights,
        pretraining_loss,
        space_group_accuracy,
    )
    from crysgnn_jax.training.devices import AXIS

    kind = PretrainingWeights if args.teacher == "crysgnn" else AutoencoderWeights
    names = ("connection", "feature", "space_group", "contrastive")
    given = {name: getattr(args, f"{name}_weight") for name in names}
    given = {name: weight for name, weight in given.items() if weight is not None}
    known = {field.name for field in dataclasses.fields(kind)}
    for name in given:
        if name not in known:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag}-weight: {args.teacher} has no such loss; leave it out")
    weights = kind(**given)
    settings = {"weights": dataclasses.asdict(weights)}
    if args.teacher == "crysae":
        if args.temperature is not None:
            raise UserError("--temperature: crysae has no contrastive loss; leave it out")
        return autoencoder_loss(weights, axis_name=AXIS), lambda outputs, graph: {}, settings
    temperature = 0.07 if args.temperature is None else args.temperature
    monitor = lambda outputs, graph: {
        "space_group_accuracy": space_group_accuracy(outputs, graph, axis_name=AXIS)
    }
    loss = pretraining_loss(weights, temperature=temperature, axis_name=AXIS)
    return loss, monitor, {**settings, "temperature": temperature}
