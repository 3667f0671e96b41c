"""Training steps of this project against PyTorch's.

    python -m benchmarks.steps
    python -m benchmarks.steps --data crystals.npz --crystals 2000 --jobs pretrain

Both sides start from the same parameters and see the same crystals, graphs and batches, which are
in memory; a step is forward pass, loss, backward pass and optimiser. See NOTES.md.
"""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.parser import Parser
from benchmarks.timing import WARM_UP, Worker, median_and_range, peak_memory, take_turns
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.crystals.sources import Source, select
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore, open_store
from crysgnn_jax.reporting.tables import text_table


@dataclasses.dataclass(frozen=True)
class Peer:
    """A program to be compared with.

    Attributes:
      name: in ``PEERS`` of its module.
      module: of this package; not imported where ``needs`` are missing.
      needs: modules that must be installed.
      same_numbers: whether it computes the same loss and gradient as this project, which is then
        checked; False for a network that is not quite the same.
    """

    name: str
    module: str = "torch_peers"
    needs: tuple[str, ...] = ("torch",)
    same_numbers: bool = True


@dataclasses.dataclass(frozen=True)
class Job:
    """Something to be timed.

    Attributes:
      peers: to be compared with.
      graphs: fields of `FeaturiserSettings` that differ from the default.
      batch_size: crystals of an average batch.
      vanilla: the job of the same student without a teacher, timed beside it; None for none.
    """

    peers: tuple[Peer, ...]
    graphs: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"ties": "cut"})
    batch_size: int = 128
    vanilla: str | None = None

    @property
    def cut(self) -> bool:
        """Whether the graphs are those of the published codes, of exactly 12 neighbours."""
        return self.graphs.get("ties") == "cut"


_GEOMETRIC = {"module": "geometric_peers", "needs": ("torch", "torch_geometric")}
_ALIGNN = {"module": "alignn_peers", "needs": ("torch", "alignn")}

JOBS = {
    "pretrain": Job((Peer("as released"), Peer("pair head as an einsum"))),
    "cgcnn": Job(
        (
            Peer("as released"),
            Peer("PyTorch Geometric's CGConv", **_GEOMETRIC, same_numbers=False),
        )
    ),
    "crysxpp": Job((Peer("as released"),)),
    "gatgnn": Job((Peer("in PyTorch Geometric", **_GEOMETRIC),)),
    "alignn": Job(
        (
            Peer("package alignn, batch norms", **_ALIGNN),
            Peer("package alignn", **_ALIGNN, same_numbers=False),
        ),
        graphs={"rule": "bonds"},
        # With 64, as released, each side needs 10 GB or more.
        batch_size=16,
    ),
    "distilled": Job(
        (Peer("as released"), Peer("frozen teacher's encoder")),
        vanilla="cgcnn",
    ),
    "embed": Job((Peer("encoder without gradients"),)),
}

PROJECT_ALLOCATOR = "huge pages"
"""As the project's commands set it."""

PEER_ALLOCATOR = "keep memory"
"""The fastest for PyTorch's pre-training step so far: see NOTES.md."""

BATCHES_PER_TURN = 6
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


class PeerSide:
    """Batches in memory and a peer."""

    def __init__(
        self, job: str, peer: Peer, case: Case, plan: Sequence[np.ndarray], parameters: Any
    ):
        module = importlib.import_module(f"benchmarks.{peer.module}")
        store = open_store(case.path)
        self._batches = [module.make_batch(store, rows, case.targets) for rows in plan]
        self._peer = module.PEERS[job][peer.name](*parameters)

    def check(self) -> dict[str, float]:
        """What the step computes of the first batch."""
        return self._peer.check(self._batches[0])

    def repeat(self, batches: Sequence[int]) -> float:
        """Seconds for a step on each of these batches, after `WARM_UP` that are not counted."""
        for batch in batches[:WARM_UP]:
            self._peer.step(self._batches[batch])
        start = time.perf_counter()
        for batch in batches:
            self._peer.step(self._batches[batch])
        return time.perf_counter() - start

    def memory(self) -> float | None:
        """GB."""
        return peak_memory()


def project_side(job: str, case: Case, batch_size: int | None):
    """This project's side; JAX is imported in the process that runs it, and nowhere else."""
    from benchmarks.project import ProjectSide

    return ProjectSide(job, case.path, case.rows, case.targets, batch_size)


def parser_of(
    name: str,
    about: str,
    jobs: Sequence[str],
    known: Sequence[str] = tuple(JOBS),
    repeats: str = f"turns of each side, of {BATCHES_PER_TURN} batches each",
) -> Parser:
    """Flags of a command that times steps.

    Args:
      name: of the module, and of the file of results.
      about: docstring of the module.
      jobs: the default ones.
      known: those that there are.
      repeats: what is repeated.
    """
    out = Parser(name, about)
    number = flags.positive(int)
    out.add_argument("--data", default="bundled", metavar="NAME|PATH", help="default bundled")
    out.add_argument(
        "--crystals", type=number, default=2000, metavar="N", help="drawn at random (default 2000)"
    )
    out.add_argument(
        "--batch-size",
        type=number,
        metavar="N",
        help="crystals of an average batch (default: the job's own; "
        + ", ".join(f"{job} {JOBS[job].batch_size}" for job in known)
        + ")",
    )
    out.add_argument(
        "--repeats",
        type=number,
        default=5,
        metavar="N",
        help=f"{repeats} (default 5)",
    )
    out.add_argument(
        "--threads", type=number, default=2, metavar="N", help="cores of each side (default 2)"
    )
    out.add_argument(
        "--jobs",
        type=lambda text: _jobs(text, known),
        default=jobs,
        metavar="A,B",
        help=f"which of {', '.join(known)} (default {','.join(jobs)})",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / f"{name}.json",
        metavar="FILE",
        help=f"default results/benchmarks/{name}.json",
    )
    return out


def _jobs(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names of jobs, separated by commas."""
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


def parser() -> Parser:
    """The command's flags."""
    return parser_of("steps", __doc__, tuple(JOBS))


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    require_installed(args.jobs)
    others = report.OtherWork()
    source = crystals(args.data, args.crystals)
    with tempfile.TemporaryDirectory() as cache:
        results = [
            compare(job, source, Path(cache), args.batch_size, args.repeats, args.threads)
            for job in args.jobs
        ]
    allocators = {"project": PROJECT_ALLOCATOR, "peers": PEER_ALLOCATOR}
    about = {**conditions(args), "allocators": allocators}
    report.write(args.output, {**about, "jobs": results}, others)
    rows = [
        [
            job["job"],
            name,
            f"{peer['crystals_per_second']['median']:.0f}",
            f"{job['project']['crystals_per_second']['median']:.0f}",
            f"{peer['ratio']['median']:.2f}",
            f"{peer['ratio']['min']:.2f}–{peer['ratio']['max']:.2f}",
            "yes" if peer["same_numbers"] else "no: another network",
        ]
        for job in results
        for name, peer in job["peers"].items()
    ]
    header = ["job", "peer", "peer, 1/s", "project, 1/s", "ratio", "range", "same numbers"]
    print(text_table(header, rows))
    for job in results:
        if "project_vanilla" in job:
            ratio = job["project_vanilla"]["distilled_over_vanilla"]
            print("{0}: {median} ({min}–{max}) of a vanilla step".format(job["job"], **ratio))


def require_installed(jobs: Sequence[str]) -> None:
    """
    Raises:
      UserError: a package that a peer of these jobs needs is not installed.
    """
    for job in jobs:
        for peer in JOBS[job].peers:
            for name in peer.needs:
                if importlib.util.find_spec(name) is None:
                    raise UserError(
                        f"--jobs {job}: its peer, {peer.name}, needs {name}: "
                        "pip install -e '.[bench]'"
                    )


def crystals(data: str, n: int) -> Source:
    """``n`` crystals of the data at random, always the same ones, or all where there are fewer."""
    source = open_source(data)
    if n < len(source):
        chosen = np.random.default_rng(0).choice(len(source), n, replace=False)
        source = select(source, np.sort(chosen))
    return source


def case_of(
    source: Source, settings: FeaturiserSettings, cache: Path, workers: int | None = None
) -> Case:
    """The crystals as graphs, built once.

    Where ties are cut, crystals with an atom that has fewer neighbours are left out, for the
    published codes join such an atom to atom 0.
    """
    store = build_store(source, settings, cache_dir=cache, workers=workers)
    full = np.ones(len(store), bool)
    if settings.ties == "cut":
        full = store.n_edges == settings.n_neighbours * store.n_nodes
    return Case.of(store, np.flatnonzero(full))


def conditions(args: argparse.Namespace) -> dict[str, Any]:
    """How steps were timed: the data and the flags."""
    return {
        "data": Path(args.data).name,
        "threads": args.threads,
        "turns": args.repeats,
        "batches_per_turn": BATCHES_PER_TURN,
    }


def means(case: Case) -> dict[str, float]:
    """Number of crystals, and atoms, edges and ordered pairs of an average one."""
    store = open_store(case.path)
    n_nodes = store.n_nodes[case.rows].astype(np.int64)
    counts = {"atoms": n_nodes, "edges": store.n_edges[case.rows], "ordered_pairs": n_nodes**2}
    per_crystal = {f"{name}_per_crystal": np.mean(n) for name, n in counts.items()}
    return {
        "crystals": len(case.rows),
        **{name: round(float(value), 1) for name, value in per_crystal.items()},
    }


def turns(n_batches: int, repeats: int) -> list[list[int]]:
    """Numbers of the batches of each turn; they start over at the end of the batches."""
    numbers = np.arange(repeats * BATCHES_PER_TURN) % n_batches
    return numbers.reshape(repeats, -1).tolist()


def compare(
    name: str, source: Source, cache: Path, batch_size: int | None, repeats: int, threads: int
) -> dict[str, Any]:
    """Time one job: this project, its peers, this project with ties kept where the peers' graphs
    have them cut, and its step without a teacher.

    Raises:
      UserError: the sides do not compute the same numbers.
    """
    job = JOBS[name]
    batch_size = batch_size or job.batch_size
    case = case_of(source, FeaturiserSettings(**job.graphs), cache)
    with contextlib.ExitStack() as stack:
        start = lambda allocator, *what: stack.enter_context(
            contextlib.closing(Worker(*what, allocator=allocator, threads=threads))
        )
        project = start(PROJECT_ALLOCATOR, project_side, (name, case, batch_size))
        sides, plans = {"project": project}, {"project": project.call("plan")}
        if job.cut:
            kept = case_of(source, FeaturiserSettings(ties="keep"), cache)
            sides["with ties"] = start(PROJECT_ALLOCATOR, project_side, (name, kept, batch_size))
            plans["with ties"] = sides["with ties"].call("plan")
            sides["with ties"].call("check")
        if job.vanilla:
            given = (job.vanilla, case, batch_size)
            sides["vanilla"] = start(PROJECT_ALLOCATOR, project_side, given)
            plans["vanilla"] = sides["vanilla"].call("plan")
        numbers, parameters = project.call("check"), project.call("parameters")
        for peer in job.peers:
            given = (name, peer, case, plans["project"], parameters)
            sides[peer.name] = start(PEER_ALLOCATOR, PeerSide, given)
            plans[peer.name] = plans["project"]
            theirs = sides[peer.name].call("check")
            if peer.same_numbers:
                require_equal(name, peer.name, numbers, theirs)

        take_turns(sides, "repeat", [([0],)])  # to warm up
        rounds = turns(min(map(len, plans.values())), repeats)
        seconds = take_turns(sides, "repeat", [(batches,) for batches in rounds])
        if job.vanilla:
            # By themselves: after seconds of a peer's work, two steps that differ by a few per
            # cent cannot be told apart.
            both = {side: sides[side] for side in ("project", "vanilla")}
            alone = take_turns(both, "repeat", [(batches,) for batches in 3 * rounds])
        measured = {
            side: {
                "crystals_per_second": rates(plans[side], rounds, seconds[side]),
                "memory_gb": worker.call("memory"),
            }
            for side, worker in sides.items()
        }
        beside = {}
        if job.cut:
            beside["project_with_ties"] = measured["with ties"]
        if job.vanilla:
            over = median_and_range(alone["project"] / alone["vanilla"], 3)
            beside["project_vanilla"] = {**measured["vanilla"], "distilled_over_vanilla": over}
        return {
            "job": name,
            **means(case),
            "batch_size": batch_size,
            "first_batch": numbers,
            "crystals_per_batch": round(float(np.mean(list(map(len, plans["project"])))), 1),
            "filled": project.call("filled"),
            "project": measured["project"],
            **beside,
            "peers": {
                peer.name: {
                    "same_numbers": peer.same_numbers,
                    **measured[peer.name],
                    "ratio": median_and_range(seconds[peer.name] / seconds["project"], 2),
                }
                for peer in job.peers
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
    cli.run(sys.modules[__name__])
