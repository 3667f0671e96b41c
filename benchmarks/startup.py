"""From the command line to the first training step: imports and compilation.

    python -m benchmarks.startup
    python -m benchmarks.startup --student alignn --repeats 5

The command is started in fresh processes, in turns without and with the compiled steps that a run
before it kept; graphs have been built before. See NOTES.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.parser import Parser
from benchmarks.timing import median_and_range
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.errors import UserError
from crysgnn_jax.reporting.tables import text_table

COMPILED = "compiled"
"""Folder of the cache in which the commands keep compiled steps."""

SET_BY_COMMANDS = (
    "GLIBC_TUNABLES",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_COMPILATION_CACHE_MAX_SIZE",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
"""Variables that this command has set for itself, and the one that is timed shall set anew."""


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    others = report.OtherWork()
    command = [
        *("-m", "experiments.distill", "--student", args.student, "--vanilla", "--epochs", "1"),
        *("--data", args.data, "--limit", str(args.crystals), "--log-every", "1"),
    ]
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as folder:
        cache, workdir = Path(folder) / "cache", Path(folder) / "run"
        start_to_step(command, cache, workdir)  # builds the graphs
        for _ in range(args.repeats):
            shutil.rmtree(cache / COMPILED)
            cold.append(start_to_step(command, cache, workdir))
            warm.append(start_to_step(command, cache, workdir))
    cold, warm = np.array(cold), np.array(warm)
    results = {
        "timed": " ".join(["python", *command]),
        "turns": args.repeats,
        "seconds_cold": median_and_range(cold, 2),
        "seconds_warm": median_and_range(warm, 2),
        "warm_over_cold": median_and_range(warm / cold, 3),
    }
    report.write(args.output, results, others)
    shown = lambda name: "{median} ({min}–{max})".format(**results[name])
    names = ("seconds_cold", "seconds_warm", "warm_over_cold")
    print(text_table(["student", "cold, s", "warm, s", "warm / cold"],
                     [[args.student, *map(shown, names)]]))  # fmt: skip


def start_to_step(command: Sequence[str], cache: Path, workdir: Path) -> float:
    """Seconds from starting Python until the first training step is done and logged.

    Args:
      command: arguments of Python.
      cache: of graphs and compiled steps.
      workdir: of the run, made anew.

    Raises:
      UserError: the command failed, or kept no compiled steps.
    """
    environment = {k: v for k, v in os.environ.items() if k not in SET_BY_COMMANDS}
    environment["CRYSGNN_CACHE"] = str(cache)
    start = time.time()
    ended = subprocess.run(
        [sys.executable, *command, "--workdir", str(workdir), "--overwrite"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if ended.returncode != 0:
        raise UserError(f"{' '.join(command)} failed:\n{ended.stderr}")
    if not any((cache / COMPILED).rglob("*-cache")):
        raise UserError(f"{' '.join(command)} kept no compiled steps")
    first, *_ = (workdir / "metrics.jsonl").read_text().splitlines()
    line = json.loads(first)
    if line["step"] != 1:
        raise UserError(f"{' '.join(command)} logged step {line['step']} first")
    return line["time"] - start


def parser() -> Parser:
    """The command's flags."""
    out = Parser("startup", __doc__)
    number = flags.positive(int)
    out.add_argument("--student", default="cgcnn", metavar="NAME", help="default cgcnn")
    flags.add_labelled_data_flag(out)
    out.add_argument(
        "--crystals", type=number, default=64, metavar="N", help="drawn at random (default 64)"
    )
    out.add_argument(
        "--repeats",
        type=number,
        default=3,
        metavar="N",
        help="starts without and with compiled steps (default 3 of each)",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / "startup.json",
        metavar="FILE",
        help="default results/benchmarks/startup.json",
    )
    return out


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
