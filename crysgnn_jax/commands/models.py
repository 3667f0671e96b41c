"""List the trained networks that are at hand, or show one's model card.

crysgnn models
crysgnn models formation_energy
"""

import argparse
from pathlib import Path

from crysgnn_jax.commands import flags
from crysgnn_jax.errors import UserError


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("models", __doc__)
    out.add_argument(
        "name",
        nargs="?",
        metavar="NAME|DIR",
        help="show the card of this one (default: list all: what comes with the package, lies in "
        "the cache, or was trained in --runs)",
    )
    out.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="folder of runs to list (default runs)",
    )
    out.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="the cache to list (default $CRYSGNN_CACHE or ~/.cache/crysgnn_jax)",
    )
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.cache import default_cache_dir
    from crysgnn_jax.reporting.tables import formatted, print_table
    from crysgnn_jax.training.catalogue import catalogue, described

    if args.name is not None:
        entry = described(args.name)
        lines = {
            "what": entry.card.get("what") or entry.kind,
            "predicts": f"{entry.property} {f'({entry.unit})' if entry.unit else ''}".strip(),
            "trained on": f"{formatted(entry.n_train, ',')} crystals: {entry.data}",
            "test MAE": f"{formatted(entry.test_mae, '.4g')} {entry.unit}".strip(),
            **{key.replace("_", " "): entry.card.get(key, "") for key in _ON_A_CARD},
            "licence": entry.licence,
        }
        if entry.test_mae is None:
            del lines["test MAE"]
        print(entry.name)
        for key, value in lines.items():
            if value:
                print(f"  {key}: {value}")
        return
    if args.runs is not None and not args.runs.is_dir():
        raise UserError(f"`runs` {args.runs}: no such folder; name one that holds runs")
    rows = [
        [
            entry.name,
            entry.kind,
            entry.property or "–",
            entry.unit or "–",
            (entry.data if len(entry.data) <= _SHOWN else entry.data[: _SHOWN - 1] + "…") or "–",
            formatted(entry.n_train, ","),
            formatted(entry.test_mae, ".4g"),
            entry.licence or "–",
        ]
        for entry in catalogue(args.cache or default_cache_dir(), args.runs or Path("runs"))
    ]
    header = ["name", "network", "property", "unit", "trained on", "crystals", "test MAE"]
    print_table([*header, "licence"], rows)


_SHOWN = 32
"""Letters of what a network was trained on, in the list; all of them are on its card."""

_ON_A_CARD = ("tested_on", "of_the_mean", "not_for", "cite")
