"""Look through crystals and labels before training: what is skipped, strange or there twice.

crysgnn check my_cifs/
crysgnn check table.npz --property band_gap --output findings
crysgnn check my_test.npz --against runs/my_run
"""

import argparse
from pathlib import Path

from crysgnn_jax.commands import cli, flags


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("check", __doc__)
    flags.add_sources(out)
    out.add_argument(
        "--property", metavar="NAME", help="look at this label alone (default: at all of them)"
    )
    out.add_argument(
        "--against",
        metavar="NAME|PATH",
        help="also tell which of the crystals another data set has, by id and reduced formula, or "
        "another run, a directory or its splits.json, by id (default: compare with none)",
    )
    out.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="also write check.json, skipped.csv, outliers.csv, duplicates.csv and check.png there",
    )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.reporting.check import check_store

    source = data.source_of(args, args.property)
    if args.output is not None:
        cli.make_folder("output", args.output)
    settings = FeaturiserSettings(**flags.given(args, FeaturiserSettings))
    found = check_store(data.Graphs(args)(source, settings), args.property, args.against)
    print(found)
    if args.output is not None:
        found.write(args.output)
        print(f"\nfiles: {args.output}")
