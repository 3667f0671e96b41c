"""Many runs on one page, finished ones and those that go on.

crysgnn dashboard
crysgnn dashboard runs/ other_runs/ --output runs.html
crysgnn dashboard --follow
"""

import argparse
import sys
import time
from pathlib import Path

from crysgnn_jax import stopping
from crysgnn_jax.commands import cli, flags


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("dashboard", __doc__)
    out.add_argument(
        "runs",
        nargs="*",
        type=Path,
        default=[Path("runs")],
        metavar="DIR",
        help="folders to search for runs, and for runs in the folders within (default runs)",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=Path("dashboard.html"),
        metavar="FILE",
        help="the page, one file that needs no network (default dashboard.html)",
    )
    out.add_argument(
        "--follow",
        action="store_true",
        help="write the page again every few seconds, until Ctrl-C; an open page follows",
    )
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.reporting.dashboard import FINISHED, REFRESH, dashboard, runs_in, state_of
    from crysgnn_jax.reporting.tables import counted

    if args.output.suffix not in (".html", ".htm"):
        raise UserError(f"`output` {args.output}: give a file that ends in .html")
    cli.require_writable(args.output)
    if not runs_in(args.runs):
        searched = ", ".join(map(str, args.runs))
        raise UserError(f"{searched}: no run there; distill or pretrain makes one")

    def write(*, follow: bool) -> str:
        records = runs_in(args.runs)
        with cli.output(args.output, "w") as file:
            file.write(dashboard(records, args.output, follow=follow))
        now = time.time()
        n_finished = sum(state_of(record, now) == FINISHED for record in records)
        return f"{counted(len(records), 'run')}, {n_finished} finished: {args.output}"

    if not args.follow:
        print(write(follow=False))
        return
    with stopping.graceful():
        print(write(follow=True) + "; Ctrl-C ends it", file=sys.stderr, flush=True)
        while not stopping.is_coming(REFRESH):
            write(follow=True)
        # Nobody writes it again.
        write(follow=False)
