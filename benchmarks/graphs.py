"""Structures to graphs: time and memory.

    python -m benchmarks.graphs
    python -m benchmarks.graphs --data crystals.npz --workers 2 --cifs 0

Every build runs in a process of its own with an empty cache. See NOTES.md.
"""

import argparse
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from benchmarks import report
from benchmarks.timing import Worker
from crysgnn_jax.data.crystal import Crystal
from crysgnn_jax.data.datasets import select
from crysgnn_jax.data.elements import SYMBOLS
from crysgnn_jax.data.neighbours import neighbour_list
from crysgnn_jax.data.readers import open_source
from crysgnn_jax.data.settings import FeaturiserSettings
from crysgnn_jax.data.source import Source
from crysgnn_jax.data.store import build_store
from crysgnn_jax.data.symmetry import space_group_number
from crysgnn_jax.errors import InvalidCrystal
from crysgnn_jax.reporting.tables import text_table
from experiments import cli

PARTS_CRYSTALS = 1000
"""Crystals for the times of the parts, which are measured one by one."""

SAMPLING_SECONDS = 0.05


class Builder:
    """Builds stores; lives in a process of its own.

    Args:
      data: name or path of the crystals.
      n_crystals: how many of them to take, at random.
    """

    def __init__(self, data: str, n_crystals: int | None):
        self._data = data
        self._n_crystals = n_crystals

    def build(self, workers: int) -> dict[str, float]:
        """Open the data and build its store in an empty cache.

        Returns:
          Numbers of crystals, atoms and edges, the seconds, and the most memory, GB, that this
          process and its workers had together.
        """
        with tempfile.TemporaryDirectory() as cache, _peak_memory() as peak:
            start = time.perf_counter()
            source = self._source()
            opened = time.perf_counter()
            store = build_store(source, FeaturiserSettings(), cache_dir=cache, workers=workers)
            seconds = time.perf_counter() - start
            return {
                "workers": workers,
                "crystals": len(store),
                "skipped": len(store.skipped),
                "atoms": int(store.n_nodes.sum()),
                "edges": int(store.n_edges.sum()),
                "open_seconds": round(opened - start, 2),
                "seconds": round(seconds, 2),
                "crystals_per_second": round(len(store) / seconds, 1),
                "peak_memory_gb": round(peak() / 1e9, 2),
            }

    def parts(self) -> dict[str, float]:
        """Seconds per 1,000 crystals of each part of the work, on one core."""
        source = self._source()
        source = _some(source, PARTS_CRYSTALS)
        settings = FeaturiserSettings()
        clock = time.perf_counter
        times = [clock()]
        items = source.items(0, len(source))
        crystals = [crystal for item in items if (crystal := _decoded(source, item)) is not None]
        times.append(clock())
        for crystal in crystals:
            neighbour_list(crystal, settings)
        times.append(clock())
        for crystal in crystals:
            space_group_number(crystal, settings.symprec)
        times.append(clock())
        with tempfile.TemporaryDirectory() as cache:
            build_store(source, settings, cache_dir=cache, workers=1)
        whole = clock() - times[-1]
        decode, neighbours, space_group = np.diff(times)
        seconds = {
            "decode": decode,
            "neighbours": neighbours,
            "space_group": space_group,
            "rest": whole - decode - neighbours - space_group,
            "whole": whole,
        }
        return {
            name: round(float(value) * 1000 / len(source), 3) for name, value in seconds.items()
        }

    def write_cifs(self, folder: Path) -> None:
        """One CIF without symmetry for each crystal."""
        source = self._source()
        for item in source.items(0, len(source)):
            crystal = _decoded(source, item)
            if crystal is not None:
                (folder / f"{crystal.id}.cif").write_text(cif_text(crystal))

    def _source(self) -> Source:
        return _some(open_source(self._data), self._n_crystals)


def _some(source: Source, n: int | None) -> Source:
    if n is None or n >= len(source):
        return source
    chosen = np.random.default_rng(0).choice(len(source), n, replace=False)
    return select(source, np.sort(chosen))


def _decoded(source: Source, item: Any) -> Crystal | None:
    try:
        return source.decode(item)
    except InvalidCrystal:
        return None


def cif_text(crystal: Crystal) -> str:
    """The crystal as a CIF without symmetry."""
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    cosines = crystal.lattice @ crystal.lattice.T / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos(cosines[[1, 0, 0], [2, 2, 1]]))
    document = gemmi.cif.Document()
    block = document.add_new_block(crystal.id)
    for name, value in zip("abc", lengths):
        block.set_pair(f"_cell_length_{name}", f"{value:.8f}")
    for name, value in zip(("alpha", "beta", "gamma"), angles):
        block.set_pair(f"_cell_angle_{name}", f"{value:.8f}")
    block.set_pair("_symmetry_space_group_name_H-M", "'P 1'")
    block.set_pair("_symmetry_Int_Tables_number", "1")
    operations = block.init_loop("_symmetry_equiv_pos_", ["site_id", "as_xyz"])
    operations.add_row(["1", "'x, y, z'"])
    sites = block.init_loop(
        "_atom_site_", ["type_symbol", "label", "fract_x", "fract_y", "fract_z", "occupancy"]
    )
    for k, (number, position) in enumerate(zip(crystal.species, crystal.frac_coords)):
        symbol = SYMBOLS[number]
        sites.add_row([symbol, f"{symbol}{k}", *(f"{x:.8f}" for x in position), "1"])
    return document.as_string()


@contextlib.contextmanager
def _peak_memory() -> Iterator[Any]:
    """Samples the memory of this process and its children; yields a function that returns the
    most seen so far, in bytes. Pages that processes share count for each of them."""
    peak = 0
    stopped = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not stopped.wait(SAMPLING_SECONDS):
            peak = max(peak, sum(map(_resident, _family(os.getpid()))))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: peak
    finally:
        stopped.set()
        thread.join()


def _family(pid: int) -> list[int]:
    """The process and all that it started, directly or not. Linux only: elsewhere, none."""
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it ended in the meantime
            children += map(int, task.read_text().split())
    return [pid, *(member for child in children for member in _family(child))]


def _resident(pid: int) -> int:
    """Bytes of memory; 0 for a process that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(
        prog="python -m benchmarks.graphs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("--data", default="bundled", metavar="NAME|PATH", help="default bundled")
    out.add_argument(
        "--crystals", type=cli.positive(int), metavar="N", help="drawn at random (default: all)"
    )
    out.add_argument(
        "--workers", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2],
        metavar="A,B", help="numbers of processes to build with (default 1,2)",
    )
    out.add_argument(
        "--cifs", type=int, default=1000, metavar="N",
        help="of the crystals, how many to build from CIF files too (default 1000; 0: none)",
    )
    out.add_argument(
        "--output", type=Path, default=report.RESULTS / "graphs.json", metavar="FILE",
        help="default results/benchmarks/graphs.json",
    )
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    data = Path(args.data).name
    others = report.OtherWork()
    builds = [
        {"tool": "this project", "from": "crystal table", **result}
        for result in _builds(args.data, args.crystals, args.workers)
    ]
    with _builder(args.data, args.crystals, cores=1) as worker:
        parts = worker.call("parts")
    if args.cifs:
        with tempfile.TemporaryDirectory() as folder:
            with _builder(args.data, args.cifs, cores=1) as worker:
                worker.call("write_cifs", Path(folder))
            builds += [
                {"tool": "this project", "from": "CIF", **result}
                for result in _builds(folder, None, args.workers)
            ]
    results = {"data": data, "builds": builds, "seconds_per_1000_crystals": parts}
    report.write(args.output, results, others)
    columns = ("tool", "from", "workers", "crystals", "seconds", "crystals_per_second",
               "peak_memory_gb")
    print(text_table(columns, [[str(build[name]) for name in columns] for build in builds]))
    print(text_table(["s per 1,000 crystals", *parts], [["one core", *map(str, parts.values())]]))


def _builds(
    data: str, n_crystals: int | None, workers: Sequence[int]
) -> Iterator[dict[str, float]]:
    """Results of a build with each number of processes."""
    for count in workers:
        with _builder(data, n_crystals, cores=count) as worker:
            yield worker.call("build", count)


def _builder(data: str, n_crystals: int | None, cores: int) -> contextlib.closing[Worker]:
    """A process with a `Builder`, which ends with the block."""
    return contextlib.closing(Worker(Builder, (data, n_crystals), threads=cores))


if __name__ == "__main__":
    cli.run(main)
