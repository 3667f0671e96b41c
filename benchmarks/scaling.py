"""How time and memory grow with the work, and with what it is divided among.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --data crystals.npz --parts graphs --counts 1000,4000,16000

Three parts: training steps against the size of a batch (time and memory), building graphs against
crystals and worker processes, and one step divided among devices. Pictures are written beside the
file of results. See NOTES.md.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, steps
from benchmarks.graphs import Builder
from benchmarks.parser import Parser
from benchmarks.timing import Worker, median_and_range
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.crystals.sources import Source
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import open_store
from crysgnn_jax.reporting.tables import text_table

PARTS = ("steps", "graphs", "devices")

JOBS = ("pretrain", "cgcnn", "distilled")

BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024)

FEWEST_CRYSTALS = 1000
"""For building graphs, where none are named: this number, doubled as often as the data allows."""

STEPS_PER_TURN = 8
"""Of each number of devices."""


def exponents(sizes: Sequence[float], seconds: np.ndarray) -> dict[str, dict[str, float]]:
    """Slope of the logarithm of time over that of size: 1 where time is proportional.

    Args:
      sizes: ``[n]``, ascending.
      seconds: ``[turns, n]``.

    Returns:
      ``overall``, the line of least squares through all sizes, and ``two_largest``, each as
      median, least and greatest of the turns.
    """
    x, y = np.log(sizes), np.log(seconds).T
    slope = lambda part: median_and_range(np.polyfit(x[part], y[part], 1)[0], 3)
    return {"overall": slope(slice(None)), "two_largest": slope(slice(-2, None))}


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    available = open_source(args.data)
    counts = args.counts or default_counts(len(available))
    require_enough(args, len(available), counts)
    cli.require_writable(args.output)
    others = report.OtherWork()
    source = steps.crystals(args.data, args.crystals)
    results = {"data": Path(args.data).name, "threads": args.threads, "turns": args.repeats}
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        if "steps" in args.parts:
            results["steps"] = [
                step_curve(job, source, cache, args.batch_sizes, args.repeats, args.threads)
                for job in args.jobs
            ]
        if "graphs" in args.parts:
            results["graphs"] = graph_curves(args.data, counts, args.workers, args.repeats)
        if "devices" in args.parts:
            curves = [
                device_curve(
                    job, source, cache, args.devices, args.crystals_a_step, args.repeats,
                    args.threads,
                )
                for job in args.jobs
            ]  # fmt: skip
            results["devices"] = {
                "what": "host devices that share the same cores: overhead, not speed",
                "crystals_a_step": args.crystals_a_step,
                "cores": min(args.threads, _cores()),
                "jobs": curves,
            }
    report.write(args.output, results, others)
    draw(results, args.output)
    show(results)


def step_curve(
    job: str, source: Source, cache: Path, sizes: Sequence[int], repeats: int, threads: int
) -> dict[str, Any]:
    """Time and memory of a job's step with batches of each size.

    A turn takes every size over about as many crystals as the largest batch holds.

    Args:
      job: as of `project.work`.
      source: the crystals, the same for all sizes.
      cache: of graphs.
      sizes: crystals of an average batch, ascending.
      repeats: turns.
      threads: cores of each process.
    """
    case = case_for(job, source, cache)
    with contextlib.ExitStack() as stack:
        sides = [_start(stack, steps.project_side, (job, case, size), threads) for size in sizes]
        plans = [side.call("plan") for side in sides]
        _take_first_step(sides)
        compiling = [side.call("memory") for side in sides]
        for side in sides:
            side.call("forget_memory")
        lengths = [-(-sizes[-1] // size) for size in sizes]
        seconds, _ = _in_turns(sides, plans, lengths, repeats)
        memory = [side.call("memory") for side in sides]
        filled = [side.call("filled") for side in sides]
    about = steps.means(case)
    crystals = [float(np.mean([len(rows) for rows in plan])) for plan in plans]
    n_nodes = open_store(case.path).n_nodes
    atoms = [float(np.mean([n_nodes[rows].sum() for rows in plan])) for plan in plans]
    return {
        "job": job,
        **about,
        "sizes": [
            {
                "batch_size": size,
                "crystals_per_batch": round(crystals[k], 1),
                "atoms_per_batch": round(atoms[k], 1),
                "filled": filled[k],
                "seconds_a_step": median_and_range(seconds[:, k], 5),
                "crystals_per_second": median_and_range(crystals[k] / seconds[:, k], 1),
                "memory_compiling_gb": compiling[k],
                "memory_gb": memory[k],
            }
            for k, size in enumerate(sizes)
        ],
        "exponent": exponents(atoms, seconds),
    }


def graph_curves(
    data: str, counts: Sequence[int], workers: Sequence[int], repeats: int
) -> dict[str, Any]:
    """Time and memory of building graphs: of each number of crystals by one worker, and of the
    largest number by each number of workers.

    Args:
      data: name or path of the crystals.
      counts: how many of them to take, ascending; none is taken twice.
      workers: numbers of processes, from 1 up, each with as many cores.
      repeats: turns.
    """
    asked = [(count, 1) for count in counts] + [(counts[-1], n) for n in workers if n > 1]
    with contextlib.ExitStack() as stack:
        sides = [_start(stack, Builder, (data, count), n, "default") for count, n in asked]
        turns = [
            [side.call("build", n) for side, (_, n) in zip(sides, asked)] for _ in range(repeats)
        ]
    rates = np.array([[build["crystals_per_second"] for build in turn] for turn in turns])
    stored = np.array([build["crystals"] for build in turns[0]])
    one_worker = len(counts) - 1  # of the largest number
    builds = [
        {
            "workers": build["workers"],
            "crystals": build["crystals"],
            "skipped": build["skipped"],
            "atoms": build["atoms"],
            "edges": build["edges"],
            "seconds": median_and_range(stored[k] / rates[:, k], 3),
            "crystals_per_second": median_and_range(rates[:, k], 1),
            # Of the first turn: later ones find what earlier ones have left in memory.
            "peak_memory_gb": build["peak_memory_gb"],
        }
        for k, build in enumerate(turns[0])
    ]
    speed_ups = rates[:, one_worker:] / rates[:, [one_worker]]
    return {
        "counts": builds[: len(counts)],
        "exponent": exponents(stored[: len(counts)], (stored / rates)[:, : len(counts)]),
        "workers": [
            {**build, "speed_up": median_and_range(speed_ups[:, k], 2)}
            for k, build in enumerate(builds[one_worker:])
        ],
    }


def device_curve(
    job: str,
    source: Source,
    cache: Path,
    devices: Sequence[int],
    crystals_a_step: int,
    repeats: int,
    threads: int,
) -> dict[str, Any]:
    """Time of a job's step, divided among host devices that share the cores.

    Args:
      job: as of `project.work`.
      source: the crystals, the same for all.
      cache: of graphs.
      devices: numbers of devices, from 1 up.
      crystals_a_step: on average, over all devices together.
      repeats: turns.
      threads: cores of each process, however many devices it has.
    """
    case = case_for(job, source, cache)
    with contextlib.ExitStack() as stack:
        sides = [
            _start(stack, device_side, (job, case, crystals_a_step // count, count), threads)
            for count in devices
        ]
        plans = [side.call("plan") for side in sides]
        _take_first_step(sides)
        seconds, crystals = _in_turns(sides, plans, [STEPS_PER_TURN] * len(sides), repeats)
        filled = [side.call("filled") for side in sides]
    # Steps differ by a few crystals; what is compared is the time that a crystal takes.
    seconds = seconds / crystals * crystals_a_step
    return {
        "job": job,
        **steps.means(case),
        "devices": [
            {
                "devices": count,
                "crystals_a_device": crystals_a_step // count,
                "filled": filled[k],
                "seconds_a_step": median_and_range(seconds[:, k], 5),
                "time_relative_to_one": median_and_range(seconds[:, k] / seconds[:, 0], 3),
            }
            for k, count in enumerate(devices)
        ],
    }


def device_side(job: str, case: steps.Case, batch_size: int, n_devices: int):
    """This project's side on several host devices, in a process that has not started JAX."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    flags = os.environ.get("XLA_FLAGS", "")
    # The last of several settings counts.
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={n_devices}"
    from benchmarks.project import ProjectSide

    return ProjectSide(job, case.path, case.rows, case.targets, batch_size, n_devices)


def case_for(job: str, source: Source, cache: Path) -> steps.Case:
    """The crystals as the graphs that the job's command makes of them."""
    about = steps.JOBS[job]
    graphs = {"ties": "keep"} if about.cut else about.graphs
    return steps.case_of(source, FeaturiserSettings(**graphs), cache)


def _start(
    stack: contextlib.ExitStack,
    factory: Callable[..., Any],
    given: tuple,
    threads: int,
    allocator: str = steps.PROJECT_ALLOCATOR,
) -> Worker:
    """A fresh process, which ends with the stack."""
    worker = Worker(factory, given, allocator=allocator, threads=threads)
    return stack.enter_context(contextlib.closing(worker))


def _take_first_step(sides: Sequence[Worker]) -> None:
    """Compile the steps."""
    for side in sides:
        side.call("repeat", [0])


def _in_turns(
    sides: Sequence[Worker],
    plans: Sequence[Sequence[np.ndarray]],
    lengths: Sequence[int],
    repeats: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Let each side take its steps, one side after the other.

    Args:
      sides: with a `project.ProjectSide` each.
      plans: rows of each step of each side; a side starts over at the end of its steps.
      lengths: steps of each side in a turn.
      repeats: turns.

    Returns:
      ``[repeats, n_sides]``: seconds of a step, and its crystals, on average of the turn.
    """
    seconds, crystals = np.empty((2, repeats, len(sides)))
    for turn in range(repeats):
        for k, (side, plan, length) in enumerate(zip(sides, plans, lengths)):
            numbers = [number % len(plan) for number in range(turn * length, (turn + 1) * length)]
            seconds[turn, k] = side.call("repeat", numbers) / length
            crystals[turn, k] = np.mean([len(plan[number]) for number in numbers])
    return seconds, crystals


def default_counts(available: int) -> tuple[int, ...]:
    """`FEWEST_CRYSTALS`, doubled as long as there are as many."""
    doubled = (FEWEST_CRYSTALS * 2**k for k in range(available.bit_length()))
    return tuple(count for count in doubled if count <= available)


def require_enough(args: argparse.Namespace, available: int, counts: Sequence[int]) -> None:
    """Check that no curve needs more than there is.

    Args:
      args: the flags.
      available: crystals of the data.
      counts: numbers of crystals to build graphs of.

    Raises:
      UserError: there are too few crystals or cores, or a step cannot be divided.
    """
    drawn = min(args.crystals, available)
    largest = args.batch_sizes[-1]
    # Less would be one batch alone, which is smaller than it should be.
    if "steps" in args.parts and drawn < 2 * largest:
        raise UserError(
            f"--batch-sizes {largest}: needs {2 * largest} crystals, and there are {drawn}; name "
            "smaller batches, or other --data and --crystals"
        )
    if "graphs" in args.parts:
        if len(counts) < 2:
            raise UserError(f"the data has {available} crystals; name two --counts up to that")
        if counts[-1] > available:
            raise UserError(
                f"--counts {counts[-1]}: the data has {available} crystals, and none is used twice"
            )
        if args.workers[-1] > _cores():
            raise UserError(
                f"--workers {args.workers[-1]}: there are {_cores()} cores, and each worker needs "
                "its own"
            )
    if "devices" in args.parts:
        whole = args.crystals_a_step
        for count in args.devices:
            if whole % count:
                raise UserError(
                    f"--crystals-a-step {whole}: cannot be divided evenly among {count} devices"
                )
        if drawn < 2 * whole:
            raise UserError(
                f"--crystals-a-step {whole}: needs {2 * whole} crystals, and there are {drawn}"
            )


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def draw(results: Mapping[str, Any], output: Path) -> list[Path]:
    """Pictures of the parts that were measured, beside the file ``output``."""
    from benchmarks import curves

    pictures = {
        "steps": ("steps", curves.steps),
        "memory": ("steps", curves.memory),
        "graphs": ("graphs", curves.graphs),
        "devices": ("devices", curves.devices),
    }
    drawn = []
    for name, (part, picture) in pictures.items():
        if part in results:
            drawn.append(output.with_name(f"{output.stem}_{name}.png"))
            picture(results[part], drawn[-1])
    return drawn


def show(results: Mapping[str, Any]) -> None:
    """Print what was measured as tables."""
    shown = lambda value: "{median:g} ({min:g}–{max:g})".format(**value)
    if "steps" in results:
        rows = [
            [
                curve["job"],
                str(size["batch_size"]),
                f"{size['atoms_per_batch']:.0f}",
                f"{1000 * size['seconds_a_step']['median']:.1f}",
                f"{size['crystals_per_second']['median']:.0f}",
                str(size["memory_gb"]),
            ]
            for curve in results["steps"]
            for size in curve["sizes"]
        ]
        print(text_table(["job", "batch", "atoms", "ms a step", "crystals/s", "GB"], rows))
        rows = [
            [curve["job"], *(shown(curve["exponent"][name]) for name in ("overall", "two_largest"))]
            for curve in results["steps"]
        ]
        print(text_table(["job", "exponent, all sizes", "two largest"], rows))
    if "graphs" in results:
        found = results["graphs"]
        builds = found["counts"] + found["workers"][1:]
        names = ("crystals", "workers", "seconds", "crystals_per_second", "peak_memory_gb")
        rows = [
            [
                *(shown(b[n]) if isinstance(b[n], Mapping) else str(b[n]) for n in names),
                str(b["speed_up"]["median"]) if "speed_up" in b else "",
            ]
            for b in builds
        ]
        print(text_table(["crystals", "workers", "s", "crystals/s", "GB", "speed-up"], rows))
        print(f"exponent, all numbers of crystals: {shown(found['exponent']['overall'])}")
    if "devices" in results:
        rows = [
            [
                curve["job"],
                str(side["devices"]),
                f"{1000 * side['seconds_a_step']['median']:.1f}",
                shown(side["time_relative_to_one"]),
            ]
            for curve in results["devices"]["jobs"]
            for side in curve["devices"]
        ]
        print(text_table(["job", "devices", "ms a step", "relative to one"], rows))
        print(results["devices"]["what"])


def parser() -> Parser:
    """The command's flags."""
    out = Parser("scaling", __doc__)
    number = flags.positive(int)
    listed = lambda values: ",".join(map(str, values))
    workers = sorted({*(2**k for k in range(_cores().bit_length())), _cores()})
    out.add_argument(
        "--parts",
        type=lambda text: _names(text, PARTS),
        default=PARTS,
        metavar="A,B",
        help=f"which of {', '.join(PARTS)} (default all)",
    )
    out.add_argument("--data", default="bundled", metavar="NAME|PATH", help="default bundled")
    out.add_argument(
        "--crystals",
        type=number,
        default=4096,
        metavar="N",
        help="of steps and devices, drawn at random (default 4096)",
    )
    out.add_argument(
        "--jobs",
        type=lambda text: _names(text, tuple(steps.JOBS)),
        default=JOBS,
        metavar="A,B",
        help=f"of steps and devices, which of {', '.join(steps.JOBS)} (default {listed(JOBS)})",
    )
    out.add_argument(
        "--batch-sizes",
        type=lambda text: _numbers(text, 2),
        default=BATCH_SIZES,
        metavar="A,B",
        help=f"crystals of an average batch (default {listed(BATCH_SIZES)})",
    )
    out.add_argument(
        "--counts",
        type=lambda text: _numbers(text, 2),
        metavar="A,B",
        help=f"crystals to build graphs of (default {FEWEST_CRYSTALS}, doubled as often as the "
        "data has as many)",
    )
    out.add_argument(
        "--workers",
        type=_from_one,
        default=tuple(workers),
        metavar="A,B",
        help="processes that build graphs; 1, with which the others are compared, is always among "
        f"them (default {listed(workers)})",
    )
    out.add_argument(
        "--devices",
        type=_from_one,
        default=(1, 2, 4, 8),
        metavar="A,B",
        help="devices to divide a step among; 1 is always among them (default 1,2,4,8)",
    )
    out.add_argument(
        "--crystals-a-step",
        type=number,
        default=128,
        metavar="N",
        help="of an average step, over all devices together (default 128)",
    )
    out.add_argument(
        "--repeats", type=number, default=5, metavar="N", help="turns of each side (default 5)"
    )
    out.add_argument(
        "--threads",
        type=number,
        default=2,
        metavar="N",
        help="cores of each process that trains (default 2)",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / "scaling.json",
        metavar="FILE",
        help="the pictures lie beside it, as FILE's name with _steps.png and so on (default "
        "results/benchmarks/scaling.json)",
    )
    return out


def _names(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Those that are named, separated by commas, each once."""
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


def _numbers(text: str, least: int = 1) -> tuple[int, ...]:
    """Different numbers, separated by commas, in ascending order; ``least`` of them or more."""
    try:
        numbers = sorted({flags.positive(int)(word) for word in text.split(",")})
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of whole numbers greater than 0, such as 1,2,4"
        ) from None
    if len(numbers) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: a curve needs {least} different numbers")
    return tuple(numbers)


def _from_one(text: str) -> tuple[int, ...]:
    """As `_numbers`, with 1 among them."""
    return tuple(sorted({1, *_numbers(text)}))


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
