"""What a training step of each student costs, relative to CGCNN.

    python -m benchmarks.students
    python -m benchmarks.students --data crystals.npz --crystals 500 --students cgcnn,alignn

Each student has its own graphs and batch size, as its training command would give it, and learns
from random targets. The students take turns, each in a process of its own.
"""

import argparse
import contextlib
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
from crysgnn_jax.data.store import build_store, open_store
from crysgnn_jax.models.registry import build, find_student
from crysgnn_jax.reporting.tables import text_table
from experiments import cli

STUDENTS = ("cgcnn", "crysxpp", "gatgnn", "alignn")
BATCHES_PER_TURN = 2


class StudentSide:
    """A student's training step and batches in memory.

    Args:
      name: of the student.
      path: of a graph store with graphs of the student's kind.
    """

    def __init__(self, name: str, path: Path):
        import jax

        from crysgnn_jax.data.batches import Batcher, pack, stack
        from crysgnn_jax.objectives.property import Standardiser, property_loss
        from crysgnn_jax.training.devices import AXIS, Devices
        from crysgnn_jax.training.inference import layout
        from crysgnn_jax.training.state import create_optimiser, create_state, make_train_step

        student, store = find_student(name), open_store(path)
        module = build(student.module, {}, cutoff=store.settings.cutoff, axis_name=AXIS)
        rows = np.random.default_rng(0).permutation(len(store))
        plan = layout(student, module, store, rows, student.batch_size)
        batches = pack(plan.sizes, plan.budget.limits, rows)
        self._batches = batches[:-1] or batches  # the last one is not full
        targets = np.random.default_rng(1).normal(size=len(store))
        batcher = Batcher(store, plan.budget, label=targets, edge_columns=student.edge_columns)
        optimiser = create_optimiser(1e-3, 10_000, weight_decay=student.weight_decay)
        loss = property_loss(Standardiser(0.0, 1.0), kind=student.loss, axis_name=AXIS)
        example = batcher(self._batches[0])
        devices = Devices(1)
        state = create_state(plan.module, optimiser, jax.random.key(0), example)
        self._parameters = sum(x.size for x in jax.tree.leaves(state.params))
        self._state = devices.replicate(state)
        self._step = devices.compile(
            make_train_step(plan.module, loss, optimiser, axis_name=AXIS), donate=(0,)
        )
        self._graphs = [devices.put(stack([batcher(rows)])) for rows in self._batches]

    def about(self) -> dict[str, Any]:
        """Sizes: parameters, and crystals of each batch."""
        return {"parameters": self._parameters, "batches": [len(rows) for rows in self._batches]}

    def repeat(self, turn: int) -> float:
        """Seconds a crystal, over the batches of a turn, after a step that is not counted."""
        import jax

        chosen = [(turn * BATCHES_PER_TURN + k) % len(self._graphs) for k in range(BATCHES_PER_TURN)]
        self._take(chosen[0])
        jax.block_until_ready(self._state)
        start = time.perf_counter()
        for batch in chosen:
            self._take(batch)
        jax.block_until_ready(self._state)
        return (time.perf_counter() - start) / sum(len(self._batches[k]) for k in chosen)

    def memory(self) -> float | None:
        """GB."""
        return peak_memory()

    def _take(self, batch: int) -> None:
        self._state, _ = self._step(self._state, self._graphs[batch])


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(
        prog="python -m benchmarks.students",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number = cli.positive(int)
    out.add_argument(
        "--data", default="formation_energy", metavar="NAME|PATH", help="default formation_energy"
    )
    out.add_argument(
        "--crystals", type=number, default=1000, metavar="N", help="drawn at random (default 1000)"
    )
    out.add_argument(
        "--repeats", type=number, default=5, metavar="N",
        help=f"turns of each student, of {BATCHES_PER_TURN} batches each (default 5)",
    )  # fmt: skip
    out.add_argument(
        "--threads", type=number, default=2, metavar="N", help="cores of each (default 2)"
    )
    out.add_argument(
        "--students", type=lambda text: tuple(text.split(",")), default=STUDENTS, metavar="A,B",
        help=f"the first one is the measure (default {','.join(STUDENTS)})",
    )  # fmt: skip
    out.add_argument(
        "--output", type=Path, default=report.RESULTS / "students.json", metavar="FILE",
        help="default results/benchmarks/students.json",
    )  # fmt: skip
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    others = report.OtherWork()
    source = open_source(args.data)
    if args.crystals < len(source):
        chosen = np.random.default_rng(0).choice(len(source), args.crystals, replace=False)
        source = select(source, np.sort(chosen))
    with contextlib.ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        known = {name: find_student(name) for name in args.students}
        paths = {
            name: build_store(
                source, FeaturiserSettings(**known[name].graphs), cache_dir=cache
            ).path
            for name in args.students
        }
        sides = {
            name: stack.enter_context(
                contextlib.closing(
                    Worker(
                        StudentSide, (name, path), allocator="huge pages", threads=args.threads
                    )
                )
            )
            for name, path in paths.items()
        }
        take_turns(sides, "repeat", [(0,)])  # to compile
        seconds = take_turns(sides, "repeat", [(turn,) for turn in range(args.repeats)])
        first = seconds[args.students[0]]
        measured = {}
        for name, side in sides.items():
            about = side.call("about")
            measured[name] = {
                "parameters": about["parameters"],
                "crystals_per_batch": round(float(np.mean(about["batches"])), 1),
                "crystals_per_second": median_and_range(1.0 / seconds[name], 1),
                "time_relative_to_first": median_and_range(seconds[name] / first, 2),
                "memory_gb": side.call("memory"),
            }
    about = {
        "data": Path(args.data).name,
        "crystals": len(source),
        "threads": args.threads,
        "turns": args.repeats,
        "students": measured,
    }
    report.write(args.output, about, others)
    rows = [
        [
            name,
            str(found["parameters"]),
            f"{found['crystals_per_batch']:.0f}",
            f"{found['crystals_per_second']['median']:.0f}",
            "{median:.2f} ({min:.2f}–{max:.2f})".format(**found["time_relative_to_first"]),
            f"{found['memory_gb']} GB",
        ]
        for name, found in measured.items()
    ]
    print(text_table(["student", "parameters", "batch", "1/s", "time a crystal", "memory"], rows))


if __name__ == "__main__":
    cli.run(main)
