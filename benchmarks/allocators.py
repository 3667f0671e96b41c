"""The memory settings that suit each side best.

    python -m benchmarks.allocators

Every setting runs in a process of its own, one after the other, again and again.
`benchmarks.steps` names those that it uses: `PEER_ALLOCATOR` and `PROJECT_ALLOCATOR`.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, steps
from benchmarks.parser import Parser
from benchmarks.timing import ALLOCATORS, Worker
from crysgnn_jax.commands import cli
from crysgnn_jax.crystals.sources import Source
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.reporting.tables import text_table

JOBS = ("pretrain", "cgcnn")


def parser() -> Parser:
    """The command's flags."""
    return steps.parser_of("allocators", __doc__, JOBS)


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    steps.require_installed(args.jobs)
    others = report.OtherWork()
    source = steps.crystals(args.data, args.crystals)
    with tempfile.TemporaryDirectory() as cache:
        results = [
            compare(job, source, Path(cache), args.batch_size, args.repeats, args.threads)
            for job in args.jobs
        ]
    about = {**steps.conditions(args), "allocators": ALLOCATORS}
    report.write(args.output, {**about, "jobs": results}, others)
    rows = [
        [result["job"], side, *(f"{result[side][name]['median']:.0f}" for name in ALLOCATORS)]
        for result in results
        for side in ("project", "peer")
    ]
    print(text_table(["crystals/s", "side", *ALLOCATORS], rows))


def compare(
    name: str, source: Source, cache: Path, batch_size: int | None, repeats: int, threads: int
) -> dict[str, Any]:
    """Rates of this project and of the first peer of a job, with each setting."""
    job = steps.JOBS[name]
    batch_size = batch_size or job.batch_size
    case = steps.case_of(source, FeaturiserSettings(**job.graphs), cache)
    project = (steps.project_side, (name, case, batch_size))
    with contextlib.closing(Worker(*project, threads=threads)) as worker:
        plan, parameters = worker.call("plan"), worker.call("parameters")
    peer = (steps.PeerSide, (name, job.peers[0], case, plan, parameters))
    rounds = steps.turns(len(plan), repeats)
    found = {}
    for side, (factory, given) in {"project": project, "peer": peer}.items():
        seconds = {setting: [] for setting in ALLOCATORS}
        for batches in rounds:
            for setting in ALLOCATORS:
                worker = Worker(factory, given, allocator=setting, threads=threads)
                # Closed after its turn: all at once, they need more memory than a laptop has.
                with contextlib.closing(worker):
                    worker.call("repeat", batches[:1])  # to compile and warm up
                    seconds[setting].append(worker.call("repeat", batches))
        found[side] = {
            setting: steps.rates(plan, rounds, np.array(values))
            for setting, values in seconds.items()
        }
    return {"job": name, **steps.means(case), "batch_size": batch_size, **found}


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
