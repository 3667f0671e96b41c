"""Predict a property with a trained model.

python -m experiments.predict --model runs/my_run my_cifs/ --output predictions.csv
python -m experiments.predict --model runs/my_run a.cif b.cif POSCAR
"""

import contextlib
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from crysgnn_jax.commands import cli


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(prog="python -m experiments.predict", description=__doc__.split("\n")[0])
    cli.add_model_flags(out, "a student's run, a fine-tuned one, or converted weights")
    out.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="CSV with id, prediction and unit, in the order of the sources (default: print it)",
    )
    cli.add_data_flags(out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    if args.output is not None:
        cli.require_writable(args.output)
    # Imported once the flags are known to be good: JAX takes seconds to start.
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.trained import TrainedModel

    model = TrainedModel.load(args.model, "--model")
    model.require_property()
    source = cli.open_data(args.sources)
    store = cli.graphs(args, source, cli.model_graphs(args, model))
    predictions = model.predict(store, Devices(args.devices), args.batch_size)
    unit = f" ({model.unit})" if model.unit else ""
    print(f"{model.property}{unit} by {args.model}", file=sys.stderr)
    target = contextlib.nullcontext(sys.stdout)
    with target if args.output is None else cli.output(args.output, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "prediction", "unit"])
        for id, prediction in zip(store.ids.tolist(), predictions):
            writer.writerow([id, f"{prediction:.9g}", model.unit])
    cli.list_skipped(store, args.output)
