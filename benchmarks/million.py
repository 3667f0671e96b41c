"""A curated set of a million crystals: size on disk, batches at random, memory of pre-training.

    python -m benchmarks.million --data crystals.npz
    python -m benchmarks.million --data crystals.npz --crystals 50000 --steps 50

The set is generated: reduced graphs of real crystals, drawn again and again, each time with other
distances. Batches are drawn from all of it, with its files in the system's memory and without; and
``crysgnn pretrain`` reads it for some hundred steps. See NOTES.md.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, steps
from benchmarks.parser import Parser
from benchmarks.startup import SET_BY_COMMANDS
from benchmarks.timing import Worker, peak_memory
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.crystals.readers.curated import Curated
from crysgnn_jax.curated import write_curated
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import CRYSTALS_A_SHARD, FeaturiserSettings
from crysgnn_jax.graphs.shard_contents import KEPT, columns_of, contents
from crysgnn_jax.graphs.store import CONTENT, GraphStore
from crysgnn_jax.reporting.tables import text_table
from crysgnn_jax.shards import write_shard

NOISE = 1e-3
"""Of distances and cells: standard deviation over the value."""

BATCH = 128
"""Crystals of a batch."""

NEAR = (24, 28)
"""Atoms of the crystals whose size on disk is told by itself: 26 is the goal's number."""


def generate(base: GraphStore, n: int, path: Path) -> None:
    """Write a set of ``n`` crystals: those of ``base`` at random, each time with other distances.

    The space groups and the multiplicities are those of the original; nothing that is measured here
    depends on whether they are still right.
    """
    entries = []
    for number, start in enumerate(range(0, n, CRYSTALS_A_SHARD)):
        generator = np.random.default_rng((0, number))
        rows = generator.integers(0, len(base), min(CRYSTALS_A_SHARD, n - start))
        columns = columns_of(base, rows)
        for name in ("lattice", "bond_distances"):
            values = columns[name]
            noise = 1 + NOISE * generator.standard_normal(values.shape)
            columns[name] = (values * noise).astype(values.dtype)
        columns["ids"] = [f"generated-{start + k}" for k in range(len(rows))]
        file = f"shards/{number:05d}.safetensors"
        entries.append({"file": file, **write_shard(path / file, *contents(columns), {})})
    write_curated(path, entries, content=CONTENT, settings=base.settings.plain())


def bytes_of_crystals(base: GraphStore) -> tuple[np.ndarray, dict[str, float]]:
    """``[n]`` bytes that each crystal takes in shards; and of an average one, by column."""
    rows = np.arange(len(base))
    columns, texts = contents(columns_of(base, rows))
    total = np.zeros(len(base))
    parts = {}
    for name, values in columns.items():
        count = next((count for count, names in KEPT.items() if name in names), None)
        each = np.ones(len(base)) if count is None else columns[count]
        parts[name] = each * (values.nbytes / max(len(values), 1))
    for name, entries in texts.items():
        # Each with its end, a number of four bytes.
        parts[name] = np.array([len(text.encode()) + 4 for text in entries])
    for each in parts.values():
        total += each
    return total, {name: round(float(each.mean()), 1) for name, each in parts.items()}


class Drawing:
    """Batches at random of a set; lives in a process of its own."""

    def __init__(self, path: Path):
        from crysgnn_jax.batches.loader import lay_out
        from crysgnn_jax.pretraining.registry import PRETRAINED

        began = time.perf_counter()
        self._path = path
        self._store = build_store(Curated(path), FeaturiserSettings())
        rows = np.arange(len(self._store))
        self._opened = time.perf_counter() - began
        self._batcher, _ = lay_out(self._store, rows, PRETRAINED["crysgnn"].needs, BATCH)

    def run(self, n: int) -> dict[str, Any]:
        """Times of ``n`` batches each, with and without the files in memory, ms."""
        generator = np.random.default_rng(0)
        out: dict[str, Any] = {"seconds_to_open": round(self._opened, 2)}
        for kind in ("cold", "warm"):
            times, read = [], []
            for _ in range(n):
                rows = self._some(generator)
                if kind == "cold":
                    self._forget()
                else:
                    self._batcher(rows)
                before = _bytes_read()
                start = time.perf_counter()
                self._batcher(rows)
                times.append(1000 * (time.perf_counter() - start))
                read.append(_bytes_read() - before)
            low, high = np.percentile(times, [50, 95])
            out[kind] = {
                "ms_median": round(float(low), 2),
                "ms_95": round(float(high), 2),
                "kb_from_disk": round(float(np.mean(read)) / 1e3, 1),
            }
        out["memory_gb"] = peak_memory()
        return out

    def _some(self, generator: np.random.Generator) -> np.ndarray:
        """Crystals of one batch: 128 at random, fewer where these do not fit."""
        rows = generator.integers(0, len(self._store), BATCH)
        fits = np.cumsum(self._batcher.sizes[rows], axis=0) <= self._batcher.budget.limits
        return rows[fits.all(axis=1)]

    def _forget(self) -> None:
        """Have the system forget the files, which it does where no process has them mapped."""
        self._store.shards.release()
        for file in (self._path / "shards").iterdir():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _bytes_read() -> int:
    """Bytes that this process has had the disk read."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def pretraining(path: Path, n_steps: int, folder: Path) -> dict[str, Any]:
    """Memory and speed of ``crysgnn pretrain`` on a set, until it has taken so many steps.

    Raises:
      UserError: it failed.
    """
    command = ["-m", "experiments.pretrain", "--data", str(path), "--epochs", "1"]
    environment = {k: v for k, v in os.environ.items() if k not in SET_BY_COMMANDS}
    workdir = folder / "run"
    log = workdir / "metrics.jsonl"
    began = time.time()
    with open(folder / "said", "w+") as said:
        process = subprocess.Popen(
            [sys.executable, *command, "--log-every", "10", "--workdir", str(workdir)],
            env=environment,
            stdout=said,
            stderr=said,
        )
        status: dict[str, float] = {}
        lines: list[dict[str, Any]] = []
        while process.poll() is None and (not lines or lines[-1]["step"] < n_steps):
            time.sleep(0.5)
            with contextlib.suppress(OSError, ValueError):
                status = _memory(process.pid) or status
                lines = [json.loads(line) for line in log.read_text().splitlines()]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()
        said.seek(0)
        if not lines or lines[-1]["step"] < n_steps:
            raise UserError(f"{' '.join(command)} failed:\n{said.read()}")
    first, last = lines[len(lines) // 4], lines[-1]
    taken = (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])
    return {
        "steps": last["step"],
        "crystals_per_second": round(BATCH * taken, 1),
        "seconds_to_first_logged_step": round(lines[0]["time"] - began, 1),
        **status,
    }


def _memory(pid: int) -> dict[str, float]:
    """GB that a process has had at most, and has now of its own and of files."""
    names = {"VmHWM": "memory_gb", "RssAnon": "memory_own_gb", "RssFile": "memory_of_files_gb"}
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = round(int(value.split()[0]) * 1024 / 1e9, 2)
    return found


def parser() -> Parser:
    """The command's flags."""
    out = Parser("million", __doc__)
    number = flags.positive(int)
    out.add_argument("--data", default="bundled", metavar="NAME|PATH", help="default bundled")
    out.add_argument(
        "--crystals", type=number, default=1_000_000, metavar="N", help="default 1,000,000"
    )
    out.add_argument(
        "--drawn-from",
        type=number,
        default=20_000,
        metavar="N",
        help="crystals of --data that are repeated (default 20,000)",
    )
    out.add_argument(
        "--batches", type=number, default=200, metavar="N", help="to be timed (default 200)"
    )
    out.add_argument(
        "--steps", type=number, default=300, metavar="N", help="of pre-training (default 300)"
    )
    out.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where the set is made, 2 GB for a million; one that is there is taken (default: a "
        "temporary folder)",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / "million.json",
        metavar="FILE",
        help="default results/benchmarks/million.json",
    )
    return out


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    others = report.OtherWork()
    source = steps.crystals(args.data, args.drawn_from)
    base = build_store(source, FeaturiserSettings(), workers=None)
    with tempfile.TemporaryDirectory() as temporary:
        path = args.folder or Path(temporary) / "set"
        began = time.perf_counter()
        if not (path / "curated.json").exists():
            generate(base, args.crystals, path)
        curated = Curated(path).curated
        made = time.perf_counter() - began
        worker = Worker(Drawing, (path,), threads=1)
        with contextlib.closing(worker):
            drawn = worker.call("run", args.batches)
        trained = pretraining(path, args.steps, Path(temporary))
    each, by_column = bytes_of_crystals(base)
    near = (base.n_nodes >= NEAR[0]) & (base.n_nodes <= NEAR[1])
    size = sum(shard["bytes"] for shard in curated.shards)
    results = {
        "data": Path(args.data).name,
        "drawn_from": len(base),
        "crystals": len(curated),
        "shards": len(curated.shards),
        "seconds_to_generate": round(made, 1),
        "gb": round(size / 1e9, 3),
        "bytes_a_crystal": round(size / len(curated), 1),
        "atoms_a_crystal": round(float(base.n_nodes.mean()), 1),
        "real_crystals": {
            "bytes_a_crystal": round(float(each.mean()), 1),
            f"bytes_with_{NEAR[0]}_to_{NEAR[1]}_atoms": round(float(each[near].mean()), 1),
            "bytes_by_column": by_column,
        },
        "batches": drawn,
        "pretraining": trained,
    }
    report.write(args.output, results, others)
    shown = [
        ["bytes a crystal", f"{results['bytes_a_crystal']}"],
        *([f"{kind} batch, ms", f"{drawn[kind]['ms_median']} (95 %: {drawn[kind]['ms_95']})"]
          for kind in ("cold", "warm")),
        ["memory of pre-training, GB", f"{trained['memory_gb']}"],
        ["crystals/s", f"{trained['crystals_per_second']}"],
    ]  # fmt: skip
    print(text_table([f"{len(curated):,} crystals", ""], shown))


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
