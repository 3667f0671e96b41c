"""Structures to graphs: time and memory, alone and against pymatgen.

    python -m benchmarks.graphs
    python -m benchmarks.graphs --data crystals.npz --workers 1,2 --cifs 0

Every number of workers, and pymatgen, has a process of its own; they take turns, and every build
starts from an empty cache. See NOTES.md.
"""

import argparse
import contextlib
import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np

from benchmarks import report
from benchmarks.memory import peak_memory
from benchmarks.parser import Parser
from benchmarks.timing import Worker, median_and_range
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.crystals.sources import Source, select
from crysgnn_jax.errors import InvalidCrystal, UserError
from crysgnn_jax.graphs.build import CHUNK_SIZE, build_store
from crysgnn_jax.graphs.neighbours import neighbour_lists
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.graphs.symmetry import space_group_number
from crysgnn_jax.reporting.tables import text_table

PARTS_CRYSTALS = 1000
"""Crystals for the times of the parts, which are measured one by one."""

DISTANCE_TOLERANCE = 0.01
"""Å. pymatgen moves atoms that are nearly at 1/3 or 2/3 of the cell there."""

SPACE_GROUP_AGREEMENT = 0.95
"""Least fraction of crystals to which both give the same space group; the searches differ."""


class Graph(NamedTuple):
    """What both sides must agree on.

    Attributes:
      distances: ``[12 N]`` Å, of the 12 nearest neighbours of each atom, ascending.
      space_group: international number.
    """

    distances: np.ndarray
    space_group: int


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
        with tempfile.TemporaryDirectory() as cache, peak_memory() as peak:
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
                "peak_memory_gb": round(peak.together / 1e9, 2),
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
        for start in range(0, len(crystals), CHUNK_SIZE):
            neighbour_lists(crystals[start : start + CHUNK_SIZE], settings)
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

    def write_cifs(self, folder: Path) -> list[Path]:
        """One CIF without symmetry for each crystal; the files by number of atoms."""
        source = self._source()
        sizes = {}
        for item in source.items(0, len(source)):
            crystal = _decoded(source, item)
            if crystal is not None:
                file = folder / f"{crystal.id}.cif"
                file.write_text(cif_text(crystal))
                sizes[file] = len(crystal.species)
        return sorted(sizes, key=sizes.get)

    def graphs(self, files: Sequence[Path]) -> list[Graph]:
        """What this project makes of these files, to be compared."""
        settings = FeaturiserSettings()
        with tempfile.TemporaryDirectory() as cache:
            store = build_store(self._source(), settings, cache_dir=cache, workers=1)
            rows = {id: row for row, id in enumerate(store.ids.tolist())}
            return [_graph(store, rows[file.stem]) for file in files]

    def _source(self) -> Source:
        return _some(open_source(self._data), self._n_crystals)


def _graph(store: GraphStore, row: int) -> Graph:
    degree = store.degree[slice(*store.node_offsets[row : row + 2])]
    distances = store.distances[slice(*store.edge_offsets[row : row + 2])]
    width = store.settings.n_neighbours
    nearest = [np.sort(edges)[:width] for edges in np.split(distances, np.cumsum(degree)[:-1])]
    return Graph(np.sort(np.concatenate(nearest)), int(store.space_group[row]))


class Pymatgen:
    """The same work by pymatgen; lives in a process of its own.

    Args:
      files: CIFs, from small to large crystals.
      repeats: turns among which they are divided, for pymatgen remembers symmetries.
    """

    def __init__(self, files: Sequence[Path], repeats: int):
        self._files = files
        self._repeats = repeats
        self._turn = 0
        self._graph(files[0])  # imports, and first calls

    def build(self) -> dict[str, float]:
        """Read the files of the next turn and make graphs of them, which are thrown away."""
        files = self._files[self._turn :: self._repeats]
        self._turn += 1
        start = time.perf_counter()
        for file in files:
            self._graph(file)
        seconds = time.perf_counter() - start
        return {
            "workers": 1,
            "crystals": len(files),
            "seconds": round(seconds, 2),
            "crystals_per_second": round(len(files) / seconds, 3),
        }

    def graphs(self) -> list[Graph]:
        """What pymatgen makes of the files, to be compared."""
        return [self._graph(file) for file in self._files]

    @staticmethod
    def _graph(file: Path) -> Graph:
        from pymatgen.core import Structure
        from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

        settings = FeaturiserSettings()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about rounded coordinates
            structure = Structure.from_file(file)
        # As CGCNN's code does: all neighbours in the cutoff, sorted, the first twelve.
        nearest = [
            sorted(neighbours, key=lambda neighbour: neighbour.nn_distance)[: settings.n_neighbours]
            for neighbours in structure.get_all_neighbors(settings.cutoff)
        ]
        distances = [neighbour.nn_distance for atom in nearest for neighbour in atom]
        analyser = SpacegroupAnalyzer(structure, symprec=settings.symprec)
        return Graph(np.sort(distances), analyser.get_space_group_number())


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


def parser() -> Parser:
    """The command's flags."""
    out = Parser("graphs", __doc__)
    out.add_argument("--data", default="bundled", metavar="NAME|PATH", help="default bundled")
    out.add_argument(
        "--crystals", type=flags.positive(int), metavar="N", help="drawn at random (default: all)"
    )
    out.add_argument(
        "--workers",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[1, 2],
        metavar="A,B",
        help="numbers of processes to build with (default 1,2)",
    )
    out.add_argument(
        "--cifs",
        type=flags.not_negative(int),
        default=5000,
        metavar="N",
        help="of the crystals, how many to build from CIF files too (default 5000; 0: none)",
    )
    out.add_argument(
        "--peer",
        type=flags.not_negative(int),
        default=60,
        metavar="N",
        help="of the CIF files, how many pymatgen reads in a turn (default 60; 0: none)",
    )
    out.add_argument(
        "--repeats",
        type=flags.positive(int),
        default=3,
        metavar="N",
        help="turns of each side (default 3)",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / "graphs.json",
        metavar="FILE",
        help="default results/benchmarks/graphs.json",
    )
    return out


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    if args.cifs and args.peer and importlib.util.find_spec("pymatgen") is None:
        raise UserError(
            "the comparison with pymatgen needs pymatgen: pip install pymatgen, or give --peer 0"
        )
    others = report.OtherWork()
    builds = measure(args.data, args.crystals, args.workers, args.repeats)
    with _builder(args.data, args.crystals, cores=1) as worker:
        parts = worker.call("parts")
    results = {"data": Path(args.data).name, "turns": args.repeats}
    if args.cifs:
        with tempfile.TemporaryDirectory() as folder:
            with _builder(args.data, args.cifs, cores=1) as worker:
                files = worker.call("write_cifs", Path(folder))
            peer = spread(files, args.peer * args.repeats)
            if peer:
                results["same_space_groups"] = require_equal(folder, peer)
            builds += measure(folder, None, args.workers, args.repeats, peer)
    results |= {"builds": builds, "seconds_per_1000_crystals": parts}
    report.write(args.output, results, others)
    shown = lambda value: str(value) if not isinstance(value, Mapping) else str(value["median"])
    columns = ("tool", "from", "workers", "crystals", "crystals_per_second", "speed_up",
               "ratio_to_pymatgen", "peak_memory_gb")  # fmt: skip
    rows = [[shown(build.get(name, "")) for name in columns] for build in builds]
    print(text_table(columns, rows))
    print(text_table(["s per 1,000 crystals", *parts], [["one core", *map(str, parts.values())]]))


def spread(files: Sequence[Path], n: int) -> list[Path]:
    """``n`` of the files, evenly from the first to the last: crystals of all sizes, whose mean is
    that of all."""
    n = min(n, len(files))
    return [files[int((k + 0.5) * len(files) / n)] for k in range(n)]


def require_equal(folder: str, files: Sequence[Path]) -> float:
    """Check that both sides make the same graphs.

    Returns:
      Fraction of the crystals with the same space group.

    Raises:
      UserError: the distances of a crystal differ by more than `DISTANCE_TOLERANCE`, or too many
        space groups do.
    """
    with _builder(folder, None, cores=1) as worker:
        ours = worker.call("graphs", files)
    with contextlib.closing(Worker(Pymatgen, (files, 1))) as worker:
        theirs = worker.call("graphs")
    for file, our, their in zip(files, ours, theirs):
        same = our.distances.shape == their.distances.shape
        if not (same and np.allclose(our.distances, their.distances, 0.0, DISTANCE_TOLERANCE)):
            raise UserError(f"{file.name}: this project and pymatgen find other neighbours")
    agreement = float(np.mean([our[1] == their[1] for our, their in zip(ours, theirs)]))
    if agreement < SPACE_GROUP_AGREEMENT:
        raise UserError(f"only {agreement:.0%} of the space groups are those of pymatgen")
    return round(agreement, 4)


def measure(
    data: str,
    n_crystals: int | None,
    workers: Sequence[int],
    repeats: int,
    peer: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Builds with each number of processes, and by pymatgen, in turns.

    Args:
      data: name or path of the crystals.
      n_crystals: how many of them to take; None for all.
      workers: numbers of processes; the first is what the others are compared with.
      repeats: turns of each.
      peer: the files that pymatgen reads, each in one of the turns; none where empty.

    Returns:
      One entry a side: the last build's numbers, and crystals per second, speed-up over the first
      number of processes, and ratio to pymatgen's rate, as median, least and greatest of the
      turns.
    """
    with contextlib.ExitStack() as stack:
        sides = [
            (stack.enter_context(_builder(data, n_crystals, cores=count)), (count,))
            for count in workers
        ]
        if peer:
            worker = Worker(Pymatgen, (peer, repeats))
            sides.append((stack.enter_context(contextlib.closing(worker)), ()))
        found = [[side.call("build", *given) for side, given in sides] for _ in range(repeats)]
    rates = np.array([[build["crystals_per_second"] for build in turn] for turn in found])
    origin = "CIF" if peer or Path(data).is_dir() else "crystal table"
    entries = []
    for k, build in enumerate(found[-1]):
        of_peer = bool(peer) and k == len(workers)
        entry = {
            "tool": "pymatgen" if of_peer else "this project",
            "from": origin,
            **build,
            "crystals_per_second": median_and_range(rates[:, k], 1),
        }
        if not of_peer:
            entry["speed_up"] = median_and_range(rates[:, k] / rates[:, 0], 2)
            if peer:
                entry["ratio_to_pymatgen"] = median_and_range(rates[:, k] / rates[:, -1], 1)
        entries.append(entry)
    return entries


def _builder(data: str, n_crystals: int | None, cores: int) -> contextlib.closing[Worker]:
    """A process with a `Builder`, which ends with the block."""
    return contextlib.closing(Worker(Builder, (data, n_crystals), threads=cores))


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
