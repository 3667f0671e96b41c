"""Pre-train the teacher on untagged crystals.

python -m experiments.pretrain
python -m experiments.pretrain --data my_cifs/ --data oqmd.json --workdir runs/mine
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from experiments import cli


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(prog="python -m experiments.pretrain", description=__doc__.split("\n")[0])
    out.add_argument(
        "--data",
        action="append",
        metavar="NAME|PATH",
        help="data set or path of crystals; may be repeated (default bundled)",
    )
    cli.add_run_flags(out, "runs/teacher")
    cli.add_training_flags(out, epochs=20, batch_size=128, learning_rate=0.01)
    group = out.add_argument_group("teacher")
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
        default=5,
        metavar="N",
        help="convolutions (default 5)",
    )
    group.add_argument(
        "--temperature",
        type=cli.positive(float),
        default=0.07,
        metavar="X",
        help="of the contrastive loss (default 0.07)",
    )
    for name in ("connection", "feature", "space-group", "contrastive"):
        group.add_argument(
            f"--{name}-weight",
            type=cli.fraction,
            default=0.25,
            metavar="X",
            help=f"weight of the {name} loss (default 0.25)",
        )
    cli.add_data_flags(out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    # Imported once the flags are known to be good: JAX takes seconds to start.
    from crysgnn_jax.data.settings import FeaturiserSettings
    from crysgnn_jax.models.teacher import Teacher
    from crysgnn_jax.objectives.pretraining import PretrainingWeights
    from crysgnn_jax.reporting.figures import loss_curves
    from crysgnn_jax.reporting.tables import text_table
    from crysgnn_jax.training.devices import AXIS, Devices
    from crysgnn_jax.training.logs import MetricsLog, Progress
    from crysgnn_jax.training.pretraining import PretrainSettings, hold_out, pretrain
    from crysgnn_jax.training.workdir import Workdir

    data = args.data or ["bundled"]
    source = cli.open_data(data)
    devices = Devices(args.devices)
    featuriser = cli.featuriser_of(args, FeaturiserSettings())
    store = cli.graphs(args, source, featuriser)
    rows = hold_out(len(store), args.seed)
    devices.require(len(rows[0]))
    model = {
        "width": args.width,
        "n_convolutions": args.n_convolutions,
        "cutoff": featuriser.cutoff,
    }
    settings = PretrainSettings(
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
        temperature=args.temperature,
        weights=PretrainingWeights(
            connection=args.connection_weight,
            feature=args.feature_weight,
            space_group=args.space_group_weight,
            contrastive=args.contrastive_weight,
        ),
    )
    path = args.workdir or Path("runs/teacher")
    made_with = {
        "command": "pretrain",
        "data": data,
        "limit": args.limit,
        "graphs": store.fingerprint,
        "featuriser": dataclasses.asdict(featuriser),
        "model": model,
        "settings": dataclasses.asdict(settings),
        "devices": len(devices),
    }
    with Workdir(path, made_with, overwrite=args.overwrite) as workdir:
        result = workdir.result
        if result is not None:
            print(f"{path} holds a finished run:")
        else:
            cli.announce(devices)
            cli.write_skipped(store, path / "skipped.csv")
            result = pretrain(
                store,
                rows,
                workdir,
                Teacher(**model, axis_name=AXIS),
                settings,
                devices,
                Progress(settings.epochs, "teacher"),
                log_every=args.log_every,
                checkpoint_seconds=args.checkpoint_seconds,
            )
            loss_curves(
                {"": MetricsLog(workdir.metrics).read()},
                path / "loss.png",
                ["loss", "connection", "feature", "space_group", "contrastive"],
            )
            workdir.finish(result)
    parts = ("loss", "connection", "feature", "space_group", "contrastive", "space_group_accuracy")
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


if __name__ == "__main__":
    cli.run(main)
