"""Predict properties of crystals with trained models.

crysgnn predict --model formation_energy my_cifs/ --output predictions.csv
crysgnn predict --model runs/my_run/distilled a.cif b.cif POSCAR
crysgnn predict --model band_gap --model bulk_modulus my_cifs/ --output found.parquet
crysgnn predict --model 'runs/compare-elastic/cells/bulk_modulus_vrh/cgcnn/*-distilled' my_cifs/
cat a.cif | crysgnn predict --model band_gap -
"""

import argparse
import sys
from pathlib import Path

from crysgnn_jax.commands import cli, flags
from crysgnn_jax.training.settings import LEVEL


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("predict", __doc__)
    out.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="NAME|DIR",
        help="a model that comes with the package (see crysgnn models), a student's run, a "
        "fine-tuned one, converted weights, or a wildcard of such; may be repeated: those of one "
        "property are a committee, others give further columns",
    )
    flags.add_source_flags(out)
    out.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="a table, one row a crystal in the order of the sources: .csv, .json, .parquet, or "
        ".extxyz, the structures with what is predicted (default: print it)",
    )
    out.add_argument(
        "--level",
        type=flags.open_fraction,
        default=LEVEL,
        metavar="X",
        help=f"share of crystals that an interval is to hold (default {LEVEL})",
    )
    out.add_argument(
        "--nearest",
        type=flags.not_negative(int),
        default=1,
        metavar="N",
        help="training crystals to name of each, the most like it first (default 1)",
    )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data
    from crysgnn_jax.reporting import prediction_files
    from crysgnn_jax.reporting.tables import counted
    from crysgnn_jax.training import shipped
    from crysgnn_jax.training.committee import Committee, unfinished, workdirs
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.predictions import table
    from crysgnn_jax.training.predictor import TrainedModel

    if args.output is not None:
        cli.require_writable(args.output)
        prediction_files.require_format(args.output)
    models = [TrainedModel.load(path) for path in workdirs(args.model)]
    if left_out := unfinished(args.model):
        print(
            f"{counted(len(left_out), 'run')} not finished, and not asked: "
            + ", ".join(map(str, left_out[: data.FIRST]))
            + (" …" if len(left_out) > data.FIRST else ""),
            file=sys.stderr,
        )
    for model in models:
        model.require_property()
    by_property: dict[str, list[TrainedModel]] = {}
    for model in models:
        by_property.setdefault(model.property or "", []).append(model)
    committees = [Committee(members) for members in by_property.values()]
    graphs, source = data.Graphs(args), data.source_of(args)
    for model in models:
        data.require_graphs(args, model)
    devices = Devices(args.devices)
    several = [
        committee.predict_graphs(
            lambda settings: graphs(source, settings),
            devices,
            args.batch_size,
            level=args.level,
            n_nearest=args.nearest,
            progress=data.Progress(f"{committee.property} of {source.name}"),
        )
        for committee in committees
    ]
    columns = table(several)
    said, notes = [], []
    for found in several:
        unit = f" ({found.unit})" if found.unit else ""
        by = " + ".join(shipped.label_of(m.path) for m in by_property[found.property])
        what = f"{counted(len(found.ids), 'prediction')} of {found.property}{unit} by {by}"
        said.append(what + (f": {args.output}" if args.output else ""))
        before = f"{found.property}: " if len(several) > 1 else ""
        notes += [before + line for line in found.notes()]
    if args.output is None:
        print(*said, *notes, sep="\n", file=sys.stderr)
        if sys.stdout.isatty():
            prediction_files.print_readable(columns)
        else:
            prediction_files.write_csv(sys.stdout, columns)
    else:
        mode, write = prediction_files.FORMATS[args.output.suffix]
        more = {".json": (notes,), ".extxyz": (data.crystals_of(source),)}
        with cli.output(args.output, mode) as file:
            write(file, columns, *more.get(args.output.suffix, ()))
        print(*said, *notes, sep="\n", file=sys.stderr)
    data.list_skipped(graphs.stores, args.output)
