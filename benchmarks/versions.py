"""This checkout of the project against another one.

    python -m benchmarks.versions --against ../before
    python -m benchmarks.versions --against ../before --jobs cgcnn,graphs --rounds 3

Both sides have the same interpreter, bundled crystals and seeds. They take turns, old new new old a
round, and every turn is a process of its own. See NOTES.md.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.parser import Parser
from benchmarks.startup import SET_BY_COMMANDS
from benchmarks.timing import ALLOCATORS, median_and_range
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.errors import UserError
from crysgnn_jax.reporting.tables import text_table

HERE = Path(__file__).resolve().parents[1]

TURN = Path(__file__).with_name("version_turn.py")

STEPS = ("pretrain", "embed", "cgcnn", "distilled", "crysxpp", "gatgnn", "alignn")

COMMANDS = {
    "startup": "experiments.distill --student cgcnn --vanilla --epochs 1 --limit 200",
    "help": "experiments.distill --help",
}
"""Job → command whose time is taken, from start to end."""

JOBS = (*STEPS, "graphs", *COMMANDS)

ORDER = ("old", "new", "new", "old")
"""Turns of a round: what drifts meanwhile hits both sides alike."""

TOLERANCE = 1e-4


class Side:
    """A checkout.

    Args:
      path: its root.
      folder: for its graphs, compiled steps and runs.

    Attributes:
      about: version and, where it is a clone, commit.

    Raises:
      UserError: there is no checkout of the project at the path, or Python finds another one.
    """

    def __init__(self, path: Path, folder: Path):
        self._path = path.resolve()
        self._folder = folder
        if not (self._path / "benchmarks" / "project.py").exists():
            raise UserError(f"{path} is no checkout of the project; name its root")
        self._environment = {k: v for k, v in os.environ.items() if k not in SET_BY_COMMANDS}
        self._environment |= {"PYTHONPATH": str(self._path), "CRYSGNN_CACHE": str(folder)}
        code = "import crysgnn_jax; print(crysgnn_jax.__version__); print(crysgnn_jax.__file__)"
        version, file = self._python(["-P", "-c", code]).splitlines()
        if not Path(file).resolve().is_relative_to(self._path):
            raise UserError(f"{path}: Python finds the package elsewhere; uninstall that one")
        self.about = {"version": version, "commit": self._commit()}

    def turn(self, job: str) -> dict[str, Any]:
        """Take the time of a job.

        Returns:
          ``seconds``, a list; and where there are any, ``numbers`` that do not depend on the
          machine, and the shape of the ``batch``.

        Raises:
          UserError: it failed.
        """
        if job not in COMMANDS:
            settings = {
                "GLIBC_TUNABLES": ALLOCATORS["huge pages"],  # as the commands set it
                "JAX_COMPILATION_CACHE_DIR": str(self._folder / "compiled_steps"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            printed = self._python(["-P", str(TURN), job, str(self._folder)], settings)
            return json.loads(printed.splitlines()[-1])
        words = ["-m", *COMMANDS[job].split()]
        if job == "startup":
            words += ["--workdir", str(self._folder / "run"), "--overwrite"]
        start = time.perf_counter()
        self._python(words)
        return {"seconds": [time.perf_counter() - start]}

    def _python(self, words: Sequence[str], settings: Mapping[str, str] | None = None) -> str:
        ended = subprocess.run(
            [sys.executable, *words],
            cwd=self._path,
            env={**self._environment, **(settings or {})},
            capture_output=True,
            text=True,
        )
        if ended.returncode != 0:
            raise UserError(f"python {' '.join(words)} failed in {self._path}:\n{ended.stderr}")
        return ended.stdout

    def _commit(self) -> str | None:
        git = ["git", "-C", str(self._path), "describe", "--always", "--dirty", "--exclude", "*"]
        try:
            found = subprocess.run(git, capture_output=True, text=True)
        except FileNotFoundError:  # git is not installed
            return None
        return found.stdout.strip() or None


def require_equal(job: str, old: Mapping[str, float], new: Mapping[str, float]) -> None:
    """
    Raises:
      UserError: a number differs by more than `TOLERANCE`, relatively.
    """
    for name, value in old.items():
        if not math.isclose(value, new[name], rel_tol=TOLERANCE):
            raise UserError(
                f"{job}: {name} was {value:.8g}, and is {new[name]:.8g}; the sides must agree "
                "before their speeds can be compared"
            )


def summary(turns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """
    Args:
      turns: ``old`` and ``new``, ``[rounds, 2]`` seconds.

    Returns:
      Seconds of each side over all turns, and ``ratio``, new over old, over the rounds.
    """
    a_round = {side: seconds.mean(axis=1) for side, seconds in turns.items()}
    return {
        **{side: median_and_range(seconds, 6) for side, seconds in turns.items()},
        "ratio": median_and_range(a_round["new"] / a_round["old"], 3),
    }


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    cli.require_writable(args.output)
    others = report.OtherWork()
    with tempfile.TemporaryDirectory() as folder:
        paths = {"old": args.against, "new": HERE}
        sides = {name: Side(path, Path(folder) / name) for name, path in paths.items()}
        # Builds graphs and compiles, for all jobs before the first is timed: this can fail.
        first = {job: _first_turns(job, sides) for job in args.jobs}
        jobs = [
            {"job": job, **_measure(job, sides, args.rounds), **first[job]} for job in args.jobs
        ]
    about = {name: side.about for name, side in sides.items()}
    report.write(args.output, {**about, "rounds": args.rounds, "jobs": jobs}, others)
    shown = lambda value: f"{1000 * value['median']:.1f}"
    rows = [
        [
            found["job"],
            shown(found["old"]),
            shown(found["new"]),
            "{median:.3f} ({min:.3f}–{max:.3f})".format(**found["ratio"]),
        ]
        for found in jobs
    ]
    print(text_table(["job", "old, ms", "new, ms", "new / old"], rows))


def _first_turns(job: str, sides: Mapping[str, Side]) -> dict[str, Any]:
    """A turn of each side that is not counted: numbers that must agree, and shapes of batches."""
    turns = {name: side.turn(job) for name, side in sides.items()}
    found = {
        key: {name: turn[key] for name, turn in turns.items()}
        for key in ("numbers", "batch")
        if key in turns["new"]
    }
    if "numbers" in found:
        require_equal(job, **found["numbers"])
    return found


def _measure(job: str, sides: Mapping[str, Side], rounds: int) -> dict[str, Any]:
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name in ORDER:
            turns[name].append(float(np.median(sides[name].turn(job)["seconds"])))
    return summary({name: np.reshape(seconds, (rounds, -1)) for name, seconds in turns.items()})


def _jobs(text: str) -> tuple[str, ...]:
    """Names of jobs, separated by commas."""
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in JOBS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(JOBS)}")
    return names


def parser() -> Parser:
    """The command's flags."""
    out = Parser("versions", __doc__)
    out.add_argument(
        "--against",
        type=Path,
        required=True,
        metavar="PATH",
        help="root of another checkout of the project, the old side",
    )
    out.add_argument(
        "--jobs",
        type=_jobs,
        default=JOBS,
        metavar="A,B",
        help=f"which of {', '.join(JOBS)} (default all)",
    )
    out.add_argument(
        "--rounds",
        type=flags.positive(int),
        default=5,
        metavar="N",
        help="of two turns of each side (default 5)",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / "versions.json",
        metavar="FILE",
        help="default results/benchmarks/versions.json",
    )
    return out


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
