"""Training steps of this project against plain PyTorch.

    python -m benchmarks.steps
    python -m benchmarks.steps --data crystals.npz --crystals 2000 --jobs pretrain

Both sides start from the same parameters and see the same crystals, graphs and batches, which are
in memory; a step is forward pass, loss, backward pass and optimiser. See NOTES.md.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.timing import Worker, median_and_range, peak_memory, take_turns
from crysgnn_jax.data.datasets import select
from crysgnn_jax.data.readers import open_source
from crysgnn_jax.data.settings import FeaturiserSettings
from crysgnn_jax.data.store import GraphStore, build_store, open_store
from crysgnn_jax.errors import UserError
from crysgnn_jax.reporting.tables import text_table
from experiments import cli

PEERS = {
    "pretrain": ("as released", "pair head as an einsum"),
    "cgcnn": ("as released",),
    "distilled": ("as released", "frozen teacher's encoder"),
    "embed": ("encoder without gradients",),
}
"""Job → its peers, by their names in `torch_peers`, which is not imported without PyTorch."""

PROJECT_ALLOCATOR = "huge pages"
"""As the project's commands set it."""

PEER_ALLOCATOR = "keep memory"
"""The fastest for PyTorch's pre-training step so far: see NOTES.md."""

BATCHES_PER_TURN = 3
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    """The crystals that both sides see.

    Attributes:
      path: of their graph store.
      rows: of the store, the crystals to use.
      targets: ``[len(store)]``. Random numbers: what they are does not change the time.
    """

    path: Path
    rows: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, store: GraphStore, rows: np.ndarray) -> "Case":
        return cls(store.path, rows, np.random.default_rng(0).normal(size=len(store)))


class TorchSide:
    """Batches in memory and a peer of `torch_peers`."""

    def __init__(
        self, job: str, peer: str, case: Case, plan: Sequence[np.ndarray], parameters: Any
    ):
        from benchmarks import torch_peers

        store = open_store(case.path)
        self._batches = [torch_peers.table_batch(store, rows, case.targets) for rows in plan]
        self._peer = torch_peers.PEERS[job][peer](*parameters)

    def check(self) -> dict[str, float]:
        """What the step computes of the first batch."""
        return self._peer.check(self._batches[0])

    def repeat(self, batches: Sequence[int]) -> float:
        """Seconds for a step on each of these batches, after one more that is not counted: the
        other sides have had the caches and the memory meanwhile."""
        self._peer.step(self._batches[batches[0]])
        start = time.perf_counter()
        for batch in batches:
            self._peer.step(self._batches[batch])
        return time.perf_counter() - start

    def memory(self) -> float | None:
        """GB."""
        return peak_memory()


def project_side(job: str, case: Case, batch_size: int):
    """This project's side; JAX is imported in the process that runs it, and nowhere else."""
    from benchmarks.project import ProjectSide

    return ProjectSide(job, case.path, case.rows, case.targets, batch_size)


def parser(name: str, description: str, jobs: Sequence[str]) -> cli.Parser:
    """Flags of a command that times steps.

    Args:
      name: of the module, and of the file of results.
      description: of the command.
      jobs: the default ones.
    """
    out = cli.Parser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number = cli.positive(int)
    out.add_argument("--data", default="bundled", metavar="NAME|PATH", help="default bundled")
    out.add_argument(
        "--crystals", type=number, default=2000, metavar="N", help="drawn at random (default 2000)"
    )
    out.add_argument(
        "--batch-size", type=number, default=128, metavar="N",
        help="crystals of an average batch (default 128)",
    )
    out.add_argument(
        "--repeats", type=number, default=5, metavar="N",
        help=f"turns of each side, of {BATCHES_PER_TURN} batches each (default 5)",
    )
    out.add_argument(
        "--threads", type=number, default=2, metavar="N", help="cores of each side (default 2)"
    )
    out.add_argument(
        "--jobs", type=_jobs, default=jobs, metavar="A,B",
        help=f"which of {', '.join(PEERS)} (default {','.join(jobs)})",
    )
    out.add_argument(
        "--output", type=Path, default=report.RESULTS / f"{name}.json", metavar="FILE",
        help=f"default results/benchmarks/{name}.json",
    )
    return out


def _jobs(text: str) -> tuple[str, ...]:
    """An argparse type: names of jobs, separated by commas."""
    names = tuple(text.split(","))
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PEERS)}")
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser("steps", __doc__, tuple(PEERS)).parse_args(arguments)
    require_torch()
    others = report.OtherWork()
    with tempfile.TemporaryDirectory() as cache:
        cut, kept = cases(args.data, args.crystals, Path(cache))
        results = [
            compare(job, cut, kept, args.batch_size, args.repeats, args.threads)
            for job in args.jobs
        ]
        about = conditions(args, cut)
    allocators = {"project": PROJECT_ALLOCATOR, "peers": PEER_ALLOCATOR}
    report.write(args.output, {**about, "allocators": allocators, "jobs": results}, others)
    rows = [
        [
            job["job"],
            name,
            f"{peer['crystals_per_second']['median']:.0f}",
            f"{job['project']['crystals_per_second']['median']:.0f}",
            f"{peer['ratio']['median']:.2f}",
            f"{peer['ratio']['min']:.2f}–{peer['ratio']['max']:.2f}",
        ]
        for job in results
        for name, peer in job["peers"].items()
    ]
    print(text_table(["job", "peer", "peer, 1/s", "project, 1/s", "ratio", "range"], rows))


def require_torch() -> None:
    """
    Raises:
      UserError: PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError("this benchmark needs PyTorch: pip install -e '.[benchmark]'")


def cases(data: str, n_crystals: int, cache: Path) -> tuple[Case, Case]:
    """The same crystals as graphs of exactly 12 neighbours, and with ties kept.

    Crystals with an atom that has fewer neighbours are left out, for the published codes join
    such an atom to atom 0.
    """
    source = open_source(data)
    if n_crystals < len(source):
        chosen = np.random.default_rng(0).choice(len(source), n_crystals, replace=False)
        source = select(source, np.sort(chosen))
    cut = build_store(source, FeaturiserSettings(ties="cut"), cache_dir=cache)
    kept = build_store(source, FeaturiserSettings(ties="keep"), cache_dir=cache)
    rows = np.flatnonzero(cut.n_edges == cut.settings.n_neighbours * cut.n_nodes)
    return Case.of(cut, rows), Case.of(kept, rows)


def conditions(args: argparse.Namespace, case: Case) -> dict[str, Any]:
    """What was timed: the data, with means a crystal, and the flags."""
    store = open_store(case.path)
    n_nodes, n_edges = store.n_nodes[case.rows], store.n_edges[case.rows]
    means = {"atoms": n_nodes, "edges": n_edges, "ordered_pairs": n_nodes**2}
    return {
        "data": Path(args.data).name,
        "crystals": len(case.rows),
        **{f"{name}_per_crystal": round(float(np.mean(n)), 1) for name, n in means.items()},
        "batch_size": args.batch_size,
        "threads": args.threads,
        "turns": args.repeats,
        "batches_per_turn": BATCHES_PER_TURN,
    }


def turns(n_batches: int, repeats: int) -> list[list[int]]:
    """Numbers of the batches of each turn; they start over at the end of the batches."""
    numbers = np.arange(repeats * BATCHES_PER_TURN) % n_batches
    return numbers.reshape(repeats, -1).tolist()


def compare(
    job: str, cut: Case, kept: Case, batch_size: int, repeats: int, threads: int
) -> dict[str, Any]:
    """Time one job: this project, its peers, and this project with ties kept.

    Raises:
      UserError: the sides do not compute the same numbers.
    """
    with contextlib.ExitStack() as stack:
        start = lambda allocator, *what: stack.enter_context(
            contextlib.closing(Worker(*what, allocator=allocator, threads=threads))
        )
        project = start(PROJECT_ALLOCATOR, project_side, (job, cut, batch_size))
        plan, parameters = project.call("plan"), project.call("parameters")
        with_ties = start(PROJECT_ALLOCATOR, project_side, (job, kept, batch_size))
        plan_with_ties = with_ties.call("plan")
        peers = {
            name: start(PEER_ALLOCATOR, TorchSide, (job, name, cut, plan, parameters))
            for name in PEERS[job]
        }
        numbers = project.call("check")
        with_ties.call("check")
        for name, peer in peers.items():
            require_equal(job, name, numbers, peer.call("check"))

        sides = {"project": project, "with ties": with_ties, **peers}
        take_turns(sides, "repeat", [([0],)])  # to warm up
        rounds = turns(min(len(plan), len(plan_with_ties)), repeats)
        seconds = take_turns(sides, "repeat", [(batches,) for batches in rounds])
        plans = dict.fromkeys(sides, plan) | {"with ties": plan_with_ties}
        measured = {
            name: {
                "crystals_per_second": rates(plans[name], rounds, seconds[name]),
                "memory_gb": side.call("memory"),
            }
            for name, side in sides.items()
        }
        return {
            "job": job,
            "first_batch": numbers,
            "crystals_per_batch": round(float(np.mean([len(rows) for rows in plan])), 1),
            "filled": project.call("filled"),
            "project": measured["project"],
            "project_with_ties": measured["with ties"],
            "peers": {
                name: {
                    **measured[name],
                    "ratio": median_and_range(seconds[name] / seconds["project"], 2),
                }
                for name in peers
            },
        }


def rates(
    plan: Sequence[np.ndarray], rounds: Sequence[Sequence[int]], seconds: np.ndarray
) -> dict[str, float]:
    """Crystals per second: median, least and greatest of the turns."""
    crystals = [sum(len(plan[batch]) for batch in batches) for batches in rounds]
    return median_and_range(np.array(crystals) / seconds, 1)


def require_equal(job: str, peer: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    """
    Raises:
      UserError: a number of the first batch differs by more than `TOLERANCE`, relatively.
    """
    for name, value in ours.items():
        if not math.isclose(value, theirs[name], rel_tol=TOLERANCE):
            raise UserError(
                f"{job}: {name} of the first batch is {value:.8g}, but {theirs[name]:.8g} in "
                f"PyTorch ({peer}); they must agree before their speeds can be compared"
            )


if __name__ == "__main__":
    cli.run(main)
