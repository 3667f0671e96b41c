"""Make one deduplicated set of crystals in shards, labelled by symmetry, from any mix of sources.

crysgnn curate my_cifs/ more.npz bundled --output sets/mine
crysgnn curate jarvis:dft_3d my_cifs.tar --output sets/mine --exclude my_test.npz
crysgnn curate crystals_800k/ --output s3://bucket/set --engine ray
"""

import argparse
import sys

from crysgnn_jax.commands import cli, flags
from crysgnn_jax.curation.engine import ENGINES
from crysgnn_jax.graphs.settings import (
    CRYSTALS_A_SHARD,
    MAX_ATOMS,
    TOLERANCE,
    FeaturiserSettings,
)


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("curate", __doc__)
    flags.add_sources(out)
    out.add_argument(
        "--source",
        dest="data",
        action="append",
        metavar="SOURCE",
        help="likewise",
    )
    out.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="directory of the set, or an address such as s3://bucket/set; a curation that was "
        "interrupted goes on",
    )
    out.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the set that --output holds, finished or not, and start anew",
    )
    group = out.add_argument_group("what stays")
    group.add_argument(
        "--tolerance",
        type=flags.positive(float),
        default=TOLERANCE,
        metavar="X",
        help="of lengths: crystals whose distances agree to this fraction may be duplicates "
        f"(default {TOLERANCE:g})",
    )
    group.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="SOURCE",
        help="crystals that students will be tested on, or a .json of their ids, such as a "
        "student's SPLITS.json, which stands for its test crystals: the set has neither them nor "
        "what repeats them; may be repeated (default: none)",
    )
    group.add_argument(
        "--max-atoms",
        type=flags.positive(int),
        default=MAX_ATOMS,
        metavar="N",
        help=f"skip crystals of more than N atoms (default {MAX_ATOMS})",
    )
    group.add_argument(
        "--limit",
        type=flags.positive(int),
        metavar="N",
        help="take only N crystals of all sources, drawn at random, always the same (default: all)",
    )
    group = out.add_argument_group("graphs")
    names = ("n_neighbours", "cutoff", "ties", "tie_tolerance", "symprec")
    flags.add_settings(group, FeaturiserSettings, names)
    group = out.add_argument_group("work")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="local",
        help="processes of this machine, or tasks of a Ray cluster, which needs the extra ray "
        "(default local)",
    )
    group.add_argument(
        "--workers",
        type=flags.positive(int),
        metavar="N",
        help="processes of this machine (default: one a CPU core); a cluster has its own number",
    )
    group.add_argument(
        "--shard-size",
        dest="crystals_a_shard",
        type=flags.positive(int),
        default=CRYSTALS_A_SHARD,
        metavar="N",
        help=f"crystals that are read for a shard (default {CRYSTALS_A_SHARD})",
    )
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data
    from crysgnn_jax.crystals.excluded import excluded
    from crysgnn_jax.crystals.readers import read
    from crysgnn_jax.curation.engine import engine_of
    from crysgnn_jax.curation.pipeline import Plan, curate
    from crysgnn_jax.reporting import curation as reporting
    from crysgnn_jax.reporting.tables import counted
    from crysgnn_jax.training.workdir import environment
    from crysgnn_jax.workers import default_workers

    sources = data.sources_of(args)
    plan = Plan(
        sources,
        exclude=[excluded(name, read(sources)) for name in args.exclude],
        settings=FeaturiserSettings(**flags.given(args, FeaturiserSettings)),
        max_atoms=args.max_atoms,
        tolerance=args.tolerance,
        crystals_a_shard=args.crystals_a_shard,
    )
    about = {"command": cli.command_line(), "versions": environment()}
    with engine_of(args.engine, args.workers or default_workers()) as engine:
        found, facts = curate(
            plan,
            args.output,
            engine,
            overwrite=args.overwrite,
            progress=data.Progress,
            report=lambda facts: reporting.report_files(facts, about),
        )
    if facts is None:
        print(f"{args.output} is finished: {counted(len(found), 'crystal')}")
        return
    for line in reporting.lines(facts):
        print(line)
    if facts.n_found:
        print(f"{facts.n_found} of {counted(facts.n_drafts, 'draft')} were there", file=sys.stderr)
    size = sum(shard["bytes"] for shard in found.shards)
    print(
        f"{args.output}: {counted(len(found.shards), 'shard')}, {size / len(found):.0f} bytes a "
        "crystal; report.json and report.png say more"
    )
