"""What a training step of each student costs, relative to CGCNN.

    python -m benchmarks.students
    python -m benchmarks.students --data crystals.npz --crystals 500 --students cgcnn,alignn

Each student has its own graphs and batch size, as its training command would give it, and learns
from random targets. The students take turns, each in a process of its own.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from benchmarks import report, steps
from benchmarks.parser import Parser
from benchmarks.timing import Worker, median_and_range, take_turns
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.registry import find_network
from crysgnn_jax.reporting.tables import text_table

STUDENTS = ("cgcnn", "crysxpp", "gatgnn", "alignn")


def parser() -> Parser:
    """The command's flags."""
    out = Parser("students", __doc__)
    number = flags.positive(int)
    flags.add_labelled_data_flag(out)
    out.add_argument(
        "--crystals", type=number, default=1000, metavar="N", help="drawn at random (default 1000)"
    )
    out.add_argument(
        "--repeats", type=number, default=5, metavar="N",
        help=f"turns of each student, of {steps.BATCHES_PER_TURN} batches each (default 5)",
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


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    others = report.OtherWork()
    source = steps.crystals(args.data, args.crystals)
    with contextlib.ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = {}
        for name in args.students:
            graphs = FeaturiserSettings(**find_network(name).needs.graphs)
            case = steps.case_of(source, graphs, cache)
            worker = Worker(
                steps.project_side,
                (name, case, None),
                allocator=steps.PROJECT_ALLOCATOR,
                threads=args.threads,
            )
            sides[name] = stack.enter_context(contextlib.closing(worker))
        plans = {name: side.call("plan") for name, side in sides.items()}
        take_turns(sides, "repeat", [([0],)])  # to compile
        rounds = steps.turns(min(map(len, plans.values())), args.repeats)
        seconds = take_turns(sides, "repeat", [(batches,) for batches in rounds])
        of_turn = lambda name: [sum(len(plans[name][k]) for k in batches) for batches in rounds]
        a_crystal = {name: seconds[name] / of_turn(name) for name in sides}
        measured = {
            name: {
                "parameters": sum(x.size for x in jax.tree.leaves(side.call("parameters")[0])),
                "crystals_per_batch": round(float(np.mean(list(map(len, plans[name])))), 1),
                "crystals_per_second": steps.rates(plans[name], rounds, seconds[name]),
                "time_relative_to_first": median_and_range(
                    a_crystal[name] / a_crystal[args.students[0]], 2
                ),
                "memory_gb": side.call("memory"),
            }
            for name, side in sides.items()
        }
    about = {**steps.conditions(args), "crystals": len(source), "students": measured}
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
    cli.run(sys.modules[__name__])
