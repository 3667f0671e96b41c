"""Measure how many copies of crystals are found, how many others are joined, and how fast.

    python -m benchmarks.duplicates --data mp_155k.npz

Copies are made of crystals drawn at random: in another cell, half of them two or three times as
large, from another origin, their atoms in another order and off by 0.01 Å (standard deviation)
along each direction. A copy is found where it is joined with the crystal that it was made of.

What is joined among the crystals as they came is judged by pymatgen's `StructureMatcher`: a pair is
falsely joined unless it matches with its own tolerances, and the atoms are then off by no more than
0.05 of the cube root of the volume per atom (root mean square), some 0.12 Å. The matcher first
reduces each structure by itself, and where it makes cells of different numbers of atoms of the two,
it never matches them; it is then asked again about the cells as they are.

Times are of all crystals of formulas drawn at random; beyond their number, of all of them several
times over, at volumes 10 % apart, so that as large a share of them is compared. See NOTES.md.
"""

import argparse
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.parser import Parser
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list, read
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.duplicates import TOLERANCE, cell_of, first_of_each
from crysgnn_jax.graphs.looks import N_NEIGHBOURS, Looks, looks_of_store
from crysgnn_jax.graphs.primitive import Cell
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.reporting.tables import text_table

NOISE = 0.01
"""Å, standard deviation of each coordinate."""

SUPERCELLS = ((1, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 3))
"""Cells of a copy along each vector: one of these at random."""

LARGEST_RMS = 0.05
"""Of the judge, in cube roots of the volume per atom."""

APART = 1.1
"""Ratio of the volumes of a crystal and the next of its images where a set is enlarged."""

_CHUNK = 5_000
"""Crystals whose looks are computed at a time."""


class Crystals:
    """The crystals of several stores, one store after the other.

    Attributes:
      formulas: ``[n]``, reduced.
      looks: of the crystals.
      seconds: that the looks took.
    """

    def __init__(self, *stores: GraphStore):
        self._stores = stores
        self._ends = np.cumsum([len(store) for store in stores])
        self.formulas = np.concatenate([store.reduced_formula for store in stores])
        start = time.perf_counter()
        parts = [
            looks_of_store(store, np.arange(begin, min(begin + _CHUNK, len(store))))
            for store in stores
            for begin in range(0, len(store), _CHUNK)
        ]
        self.looks = Looks(*map(np.concatenate, zip(*parts)))
        self.seconds = time.perf_counter() - start

    def __len__(self) -> int:
        return len(self.formulas)

    def structure(self, row: int) -> Cell:
        """The structure of a crystal."""
        which = int(np.searchsorted(self._ends, row, "right"))
        store = self._stores[which]
        return cell_of(store, row - int(self._ends[which]) + len(store))


def disturbed(crystal: Crystal, random: np.random.Generator) -> Crystal:
    """A copy of a crystal as the module describes it."""
    times = np.array(SUPERCELLS[random.integers(len(SUPERCELLS))])
    shifts = np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), -1).reshape(-1, 3)
    coords = ((crystal.frac_coords[None] + shifts[:, None]) / times).reshape(-1, 3)
    lattice = crystal.lattice * times[:, None]
    change = np.eye(3, dtype=int)
    for row, other in random.permutation(3)[:2], random.permutation(3)[:2]:
        change[row] += random.choice([-1, 1]) * change[other]
    coords = coords + random.normal(0, NOISE, coords.shape) @ np.linalg.inv(lattice)
    coords = coords @ np.linalg.inv(change) + random.random(3)
    order = random.permutation(len(coords))
    species = np.tile(crystal.species, len(shifts))[order]
    return Crystal(f"copy of {crystal.id}", species, coords[order] % 1.0, change @ lattice)


def found(crystals: Crystals, originals: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """How many copies are found, and which of the others are joined.

    Args:
      crystals: their last ones are the copies.
      originals: ``[n_copies]``, rows that these were made of.

    Returns:
      Counts; and the pairs ``[p, 2]`` of others that are joined, the later one first.
    """
    n = len(crystals) - len(originals)
    first = first_of_each(crystals.formulas, crystals.looks, crystals.structure)
    own = np.arange(n, len(crystals))
    with_own = first[own] == first[originals]
    elsewhere = ~with_own & (first[own] != own)
    joined = np.flatnonzero(first[:n] != np.arange(n))
    counts = {
        "copies": len(own),
        "copies_found": int(with_own.sum()),
        "found": round(float(with_own.mean()), 5),
        "copies_joined_with_another": int(elsewhere.sum()),
        "crystals": n,
        "crystals_joined": len(joined),
    }
    return counts, np.column_stack([joined, first[joined]])


def judged(crystals: Crystals, pairs: np.ndarray) -> dict[str, Any]:
    """What `StructureMatcher` says of pairs that are joined."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    reduced = StructureMatcher()
    as_they_are = StructureMatcher(primitive_cell=False, attempt_supercell=True)
    n_unmatched = n_off = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about electronegativities
        for pair in pairs.tolist():
            cells = map(crystals.structure, pair)
            structures = [Structure(c.lattice, c.species, c.frac_coords) for c in cells]
            off = reduced.get_rms_dist(*structures)
            if off is None:
                off = as_they_are.get_rms_dist(*sorted(structures, key=len, reverse=True))
            n_unmatched += int(off is None)
            n_off += int(off is not None and off[0] > LARGEST_RMS)
    return {"pairs_judged": len(pairs), "pairs_not_matched": n_unmatched, "pairs_far_off": n_off}


def timed(crystals: Crystals, n: int) -> dict[str, Any]:
    """Seconds of a part of the crystals, or of more than there are."""
    if n <= len(crystals):
        # Whole formulas, so that as large a share of the crystals has another of its kind.
        _, formula = np.unique(crystals.formulas, return_inverse=True)
        place = np.random.default_rng(0).permutation(formula.max() + 1)[formula]
        rows = np.sort(np.argsort(place, kind="stable")[:n])
        scale = np.ones(n)
    else:
        rows = np.arange(n) % len(crystals)
        scale = APART ** (np.arange(n) // len(crystals) / 3)
    counts = crystals.looks.counts[rows]
    first = (np.cumsum(crystals.looks.counts) - crystals.looks.counts)[rows]
    begin = np.cumsum(counts) - counts
    nth = np.arange(counts.sum()) - np.repeat(begin, counts)
    values = crystals.looks.values[np.repeat(first, counts) + nth]
    n_distances = N_NEIGHBOURS * (np.round(np.sqrt(counts + 35.0)).astype(int) - 6)
    values[begin] *= scale**3
    is_distance = (nth > 0) & (nth <= np.repeat(n_distances, counts))
    values[is_distance] *= np.repeat(scale, counts)[is_distance]
    asked = 0

    def structure(row: int) -> Cell:
        nonlocal asked
        asked += 1
        cell = crystals.structure(int(rows[row]))
        return cell._replace(lattice=cell.lattice * scale[row])

    start = time.perf_counter()
    result = first_of_each(
        crystals.formulas[rows], Looks(counts, values.astype(np.float32)), structure
    )
    seconds = time.perf_counter() - start
    return {
        "crystals": n,
        "enlarged": bool(n > len(crystals)),
        "seconds": round(seconds, 2),
        "microseconds_a_crystal": round(1e6 * seconds / n, 1),
        "structures_asked_for": asked,
        "joined": int((result != np.arange(n)).sum()),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def parser() -> Parser:
    """The command's flags."""
    out = Parser("duplicates", __doc__)
    out.add_argument("--data", default="bundled", metavar="NAME|PATH", help="default bundled")
    out.add_argument(
        "--copies",
        type=flags.positive(int),
        default=5000,
        metavar="N",
        help="disturbed copies (default 5000)",
    )
    out.add_argument(
        "--sizes",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[10_000, 30_000, 100_000, 150_000, 800_000],
        metavar="A,B",
        help="numbers of crystals to time (default 10000,30000,100000,150000,800000)",
    )
    out.add_argument(
        "--judged",
        type=flags.not_negative(int),
        default=2000,
        metavar="N",
        help="joined pairs that pymatgen judges, drawn at random (default 2000; 0: none)",
    )
    out.add_argument(
        "--workers", type=flags.positive(int), default=2, metavar="N", help="to build (default 2)"
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / "duplicates.json",
        metavar="FILE",
        help="default results/benchmarks/duplicates.json",
    )
    return out


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    others = report.OtherWork()
    random = np.random.default_rng(0)
    settings = FeaturiserSettings()
    store = build_store(read(args.data), settings, workers=args.workers)
    if args.copies > len(store):
        raise UserError(f"`copies` {args.copies}: there are {len(store)} crystals; give fewer")
    rows = np.sort(random.choice(len(store), args.copies, replace=False))
    copies = [disturbed(store.crystal(row), random) for row in rows.tolist()]
    of_copies = build_store(crystal_list(copies), settings, workers=args.workers)
    row_of = {f"copy of {id}": row for row, id in enumerate(store.ids.tolist())}
    crystals = Crystals(store, of_copies)
    counts, pairs = found(crystals, np.array([row_of[id] for id in of_copies.ids.tolist()]))
    n_judged = min(args.judged, len(pairs))
    said = judged(crystals, pairs[random.choice(len(pairs), n_judged, replace=False)])
    if n_judged:
        n_false = (said["pairs_not_matched"] + said["pairs_far_off"]) / n_judged * len(pairs)
        said["falsely_joined"] = round(n_false / (len(store) - len(pairs) + n_false), 6)
    times = times_of(store, args.sizes)
    results = {
        "data": Path(args.data).name,
        "tolerance": TOLERANCE,
        "noise_angstrom": NOISE,
        **counts,
        **said,
        "looks_microseconds_a_crystal": round(1e6 * crystals.seconds / len(crystals), 1),
        "looks_bytes_a_crystal": round(crystals.looks.values.nbytes / len(crystals)),
        "times": times,
    }
    report.write(args.output, results, others)
    names = ("copies", "found", "crystals", "crystals_joined", "falsely_joined")
    print(text_table(names, [[str(results.get(name, "")) for name in names]]))
    print(text_table(list(times[0]), [[str(x) for x in entry.values()] for entry in times]))


def times_of(store: GraphStore, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """`timed` of each number of crystals, the smallest first."""
    crystals = Crystals(store)
    return [timed(crystals, n) for n in sorted(sizes)]


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
