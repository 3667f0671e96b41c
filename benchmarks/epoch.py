"""A whole training epoch over the time of its steps alone.

    python -m benchmarks.epoch
    python -m benchmarks.epoch --data crystals.npz --crystals 2000 --jobs cgcnn,pretrain

An epoch is what the training loop makes of it: assembling batches in the background, moving them
to the device, steps, reading and logging their metrics, checkpoints. After each one, the same steps
are taken again on the same batches, which are in memory by then. See NOTES.md.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, steps
from benchmarks.parser import Parser
from benchmarks.timing import Worker, median_and_range, peak_memory
from crysgnn_jax.commands import cli
from crysgnn_jax.crystals.sources import Source
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import open_store
from crysgnn_jax.reporting.tables import text_table

JOBS = ("cgcnn", "pretrain")


class EpochSide:
    """A training run; lives in a process of its own.

    Args:
      job: as of `project.work`.
      case: the crystals.
      batch_size: crystals of an average batch; None for the student's own.
    """

    def __init__(self, job: str, case: steps.Case, batch_size: int | None):
        from benchmarks.project import work
        from crysgnn_jax.training.devices import Devices

        self._rows = case.rows
        self._devices = Devices(1)
        store = open_store(case.path)
        self._work = work(job, store, case.rows, case.targets, batch_size, self._devices)

    def run(self, repeats: int) -> dict[str, Any]:
        """Train for one epoch that is not counted, and ``repeats`` that are.

        Returns:
          ``epochs`` and ``steps``, ``[repeats]`` seconds of each epoch and of its steps alone;
          ``steps_an_epoch``; and ``memory_gb``, the most that the process needed.
        """
        import jax

        from crysgnn_jax.batches.loader import Loader, stack
        from crysgnn_jax.training.checkpoints import Checkpoints
        from crysgnn_jax.training.logs import MetricsLog, Progress
        from crysgnn_jax.training.loop import Trainer
        from crysgnn_jax.training.settings import TrainingSettings

        devices, found = self._devices, self._work
        step = devices.compile(found.step, donate=(0,))
        state = devices.replicate(found.state)
        epochs, alone, lengths = [], [], []
        began = None

        def evaluate(_) -> tuple[float, dict[str, float]]:
            """In the place of the validation, which is no part of an epoch here: the epoch is
            over, and the next one begins when this returns."""
            nonlocal state, began
            if began is not None:
                epochs.append(time.perf_counter() - began)
            # The plan of the epoch that has just ended, which the trainer still holds.
            plan = trainer.plan(len(lengths))
            graphs = [devices.put(stack([found.batcher(r) for r in rows])) for rows in plan]
            state, metrics = step(state, graphs[0])
            jax.block_until_ready((state, metrics, graphs))
            start = time.perf_counter()
            for graph in graphs:
                state, metrics = step(state, graph)
            jax.block_until_ready((state, metrics))
            if began is not None:
                alone.append(time.perf_counter() - start)
            lengths.append(len(plan))
            del graphs  # its memory is given back before the clock starts
            began = time.perf_counter()
            # Better every time, so that the best weights are copied after every epoch.
            return -float(len(lengths)), {}

        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder) / "checkpoints")
            trainer = Trainer(
                devices=devices,
                step=found.step,
                statistics_step=found.statistics,
                loader=Loader(found.batcher, devices),
                rows=self._rows,
                evaluate=evaluate,
                settings=TrainingSettings(epochs=1 + repeats),
                checkpoints=checkpoints,
                log=MetricsLog(Path(folder) / "metrics.jsonl"),
                progress=Progress(1 + repeats, "epoch", quiet=True),
            )
            trainer.fit(found.state)
        return {
            "epochs": epochs,
            "steps": alone,
            "steps_an_epoch": round(float(np.mean(lengths)), 1),
            "memory_gb": peak_memory(),
        }


def parser() -> Parser:
    """The command's flags."""
    known = [name for name in steps.JOBS if name != "embed"]
    return steps.parser_of("epoch", __doc__, JOBS, known, "epochs of each job")


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    others = report.OtherWork()
    source = steps.crystals(args.data, args.crystals)
    with tempfile.TemporaryDirectory() as cache:
        results = [
            compare(job, source, Path(cache), args.batch_size, args.repeats, args.threads)
            for job in args.jobs
        ]
    about = {"data": Path(args.data).name, "threads": args.threads, "epochs": args.repeats}
    report.write(args.output, {**about, "jobs": results}, others)
    shown = lambda numbers: "{median} ({min}–{max})".format(**numbers)
    names = ("seconds_an_epoch", "seconds_of_steps", "ratio")
    rows = [[result["job"], *(shown(result[name]) for name in names)] for result in results]
    print(text_table(["job", "epoch, s", "steps alone, s", "ratio"], rows))


def compare(
    name: str, source: Source, cache: Path, batch_size: int | None, repeats: int, threads: int
) -> dict[str, Any]:
    """Epochs of one job, and their steps alone, with the graphs that its command makes."""
    job = steps.JOBS[name]
    graphs = {"ties": "keep"} if job.cut else job.graphs
    case = steps.case_of(source, FeaturiserSettings(**graphs), cache)
    batch_size = batch_size or job.batch_size
    worker = Worker(
        EpochSide, (name, case, batch_size), allocator=steps.PROJECT_ALLOCATOR, threads=threads
    )
    with contextlib.closing(worker):
        found = worker.call("run", repeats)
    epochs, alone = np.array(found["epochs"]), np.array(found["steps"])
    return {
        "job": name,
        **steps.means(case),
        "batch_size": batch_size,
        "steps_an_epoch": found["steps_an_epoch"],
        "seconds_an_epoch": median_and_range(epochs, 3),
        "seconds_of_steps": median_and_range(alone, 3),
        "ratio": median_and_range(epochs / alone, 3),
        "memory_gb": found["memory_gb"],
    }


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
