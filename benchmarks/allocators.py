"""The memory settings that suit each side best.

    python -m benchmarks.allocators

Every setting runs in a process of its own, one after the other, again and again.
`benchmarks.steps` names those that it uses: `PEER_ALLOCATOR` and `PROJECT_ALLOCATOR`.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, steps
from benchmarks.timing import ALLOCATORS, Worker
from crysgnn_jax.reporting.tables import text_table
from experiments import cli

JOBS = ("pretrain", "cgcnn")


def main(arguments: Sequence[str] | None = None) -> None:
    args = steps.parser("allocators", __doc__, JOBS).parse_args(arguments)
    steps.require_torch()
    others = report.OtherWork()
    with tempfile.TemporaryDirectory() as cache:
        case, _ = steps.cases(args.data, args.crystals, Path(cache))
        results = [
            {"job": job, **compare(job, case, args.batch_size, args.repeats, args.threads)}
            for job in args.jobs
        ]
        about = steps.conditions(args, case)
    report.write(args.output, {**about, "allocators": ALLOCATORS, "jobs": results}, others)
    rows = [
        [result["job"], side, *(f"{result[side][name]['median']:.0f}" for name in ALLOCATORS)]
        for result in results
        for side in ("project", "peer")
    ]
    print(text_table(["crystals/s", "side", *ALLOCATORS], rows))


def compare(
    job: str, case: steps.Case, batch_size: int, repeats: int, threads: int
) -> dict[str, Any]:
    """Rates of this project and of the first peer of a job, with each setting."""
    project = (steps.project_side, (job, case, batch_size))
    with contextlib.closing(Worker(*project, threads=threads)) as worker:
        plan, parameters = worker.call("plan"), worker.call("parameters")
    peer = (steps.TorchSide, (job, steps.PEERS[job][0], case, plan, parameters))
    rounds = steps.turns(len(plan), repeats)
    found = {}
    for side, (factory, given) in {"project": project, "peer": peer}.items():
        seconds = {name: [] for name in ALLOCATORS}
        for batches in rounds:
            for name in ALLOCATORS:
                worker = Worker(factory, given, allocator=name, threads=threads)
                # Closed after its turn: all at once, they need more memory than a laptop has.
                with contextlib.closing(worker):
                    worker.call("repeat", batches[:1])  # to compile and warm up
                    seconds[name].append(worker.call("repeat", batches))
        found[side] = {
            name: steps.rates(plan, rounds, np.array(values)) for name, values in seconds.items()
        }
    return found


if __name__ == "__main__":
    cli.run(main)
