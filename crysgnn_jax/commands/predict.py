"""Predict a property with a trained model.

crysgnn predict --model runs/my_run my_cifs/ --output predictions.csv
crysgnn predict --model runs/my_run a.cif b.cif POSCAR
"""

import argparse
import contextlib
import csv
import sys
from pathlib import Path

from crysgnn_jax.commands import cli, flags


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("predict", __doc__)
    flags.add_model_flags(out, "a student's run, a fine-tuned one, or converted weights")
    out.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="CSV with id, prediction and unit, in the order of the sources (default: print it)",
    )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.predictor import TrainedModel

    if args.output is not None:
        cli.require_writable(args.output)
    model = TrainedModel.load(args.model)
    model.require_property()
    store = data.graphs_for(args, model)
    found = model.predict_store(store, Devices(args.devices), args.batch_size)
    unit = f" ({found.unit})" if found.unit else ""
    what = f"{data.counted(len(found.ids), 'prediction')} of {found.property}{unit} by {args.model}"
    print(what + (f": {args.output}" if args.output else ""), file=sys.stderr)
    target = contextlib.nullcontext(sys.stdout)
    with target if args.output is None else cli.output(args.output, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "prediction", "unit"])
        for id, value in zip(found.ids.tolist(), found.values):
            writer.writerow([id, f"{value:.9g}", found.unit])
    data.list_skipped(store, args.output)
