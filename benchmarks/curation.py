"""A large set curated: seconds by step, crystals/s, memory, and what is found of known copies.

    python -m benchmarks.curation --data crystals.npz --crystals 800000
    python -m benchmarks.curation --crystals 20000 --workers 1,2

The crystals are made of real ones: the first of each is as it is; the others have other elements
in the places of its own, and another volume, as the prototypes of large data bases do. Some are
copies of earlier ones. They are read from tables. See NOTES.md.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.memory import peak_memory
from benchmarks.parser import Parser
from benchmarks.timing import Worker
from crysgnn_jax.commands import cli, data, flags
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.curation.engine import engine_of
from crysgnn_jax.curation.pipeline import Plan, curate
from crysgnn_jax.reporting.curation import as_json
from crysgnn_jax.reporting.tables import text_table

TABLE = 50_000
"""Crystals a table."""

NOISE = 0.01
"""Å, standard deviation of the places of atoms of a copy, in each direction."""

ELEMENTS = tuple(z for z in range(1, 84) if z not in (2, 10, 18, 36, 43, 54, 61))
"""Those that are put in the places of others."""

VOLUMES = (0.75, 1.35)
"""Least and greatest volume, of the real crystal's."""


def crystals_like(real: Sequence[Crystal], n: int, copies: float, seed: int) -> Iterator[Crystal]:
    """``n`` crystals made of real ones, see the module; ids of copies end in ``=`` and the number
    of what they repeat.

    Args:
      real: the crystals.
      n: how many.
      copies: share of them that repeat an earlier one.
      seed: of what is drawn.
    """
    generator = np.random.default_rng(seed)
    made: list[tuple[int, int]] = []
    for k in range(n):
        if made and generator.random() < copies:
            number, place = made[generator.integers(len(made))]
            yield _copy(_variant(real, number, seed), f"{k}={place}", generator)
        else:
            number = len(made)
            made.append((number, k))
            crystal = _variant(real, number, seed)
            yield Crystal(str(k), crystal.species, crystal.frac_coords, crystal.lattice)


def _variant(real: Sequence[Crystal], number: int, seed: int) -> Crystal:
    """The same for the same number."""
    crystal = real[number % len(real)]
    if number < len(real):
        return crystal
    generator = np.random.default_rng((seed, number))
    kinds, inverse = np.unique(crystal.species, return_inverse=True)
    species = generator.choice(ELEMENTS, len(kinds), replace=False)[inverse]
    scale = generator.uniform(*VOLUMES) ** (1 / 3)
    return Crystal(crystal.id, species, crystal.frac_coords, scale * crystal.lattice)


def _copy(crystal: Crystal, id: str, generator: np.random.Generator) -> Crystal:
    """The same structure: atoms off by a little, in another order, another cell, often a larger."""
    basis = np.triu(generator.integers(-1, 2, (3, 3)), 1) + np.eye(3, dtype=int)
    shifts = np.zeros((1, 3))
    if len(crystal.species) <= 20 and generator.random() < 0.5:
        basis[0] *= 2
        shifts = np.array([[0, 0, 0], [1, 0, 0]])
    lattice = basis @ crystal.lattice
    coords = (crystal.frac_coords[None] + shifts[:, None]).reshape(-1, 3) @ np.linalg.inv(basis)
    noise = generator.normal(scale=NOISE, size=coords.shape) @ np.linalg.inv(lattice)
    order = generator.permutation(len(coords))
    species = np.tile(crystal.species, len(shifts))
    shift = generator.random(3)
    return Crystal(id, species[order], (coords + noise + shift)[order] % 1.0, lattice)


class Maker:
    """Writes tables of crystals; lives in a process of its own.

    Args:
      name: name or path of the real crystals.
    """

    def __init__(self, name: str):
        self._real = list(data.crystals_of(open_source(name)))

    def tables(self, folder: Path, n: int, copies: float) -> tuple[list[str], int]:
        """Write tables of `crystals_like`; their paths, and how many crystals are copies."""
        paths: list[str] = []
        some: list[Crystal] = []
        n_copies = 0
        for crystal in crystals_like(self._real, n, copies, seed=0):
            n_copies += "=" in crystal.id
            some.append(crystal)
            if len(some) == TABLE:
                paths.append(self._write(folder, len(paths), some))
                some = []
        if some:
            paths.append(self._write(folder, len(paths), some))
        return paths, n_copies

    @staticmethod
    def _write(folder: Path, number: int, crystals: Sequence[Crystal]) -> str:
        path = folder / f"part-{number:03d}.npz"
        write_table(path, crystals)
        return str(path)


class Curator:
    """Curates; lives in a process of its own."""

    def curate(self, paths: Sequence[str], output: str, workers: int) -> dict[str, Any]:
        """Curate some tables.

        Returns:
          What is measured.
        """
        with peak_memory() as peak:
            with engine_of("local", workers) as engine:
                found, facts = curate(Plan([open_source(path) for path in paths]), output, engine)
        assert facts is not None
        told = as_json(facts)
        seconds = sum(facts.seconds.values())
        plain = [id.rpartition("/")[2] for id, *_ in facts.duplicates]
        n_found = sum("=" in id for id in plain)
        return {
            "workers": workers,
            "crystals": told["read"],
            "skipped": told["skipped"],
            "duplicates": told["duplicates"],
            "kept": told["kept"],
            "atoms_per_crystal": round(told["totals"]["atoms"] / told["kept"], 1),
            "seconds": round(seconds, 1),
            "seconds_by_step": told["seconds"],
            "steps": told["steps"],
            "crystals_per_second": round(told["read"] / seconds, 1),
            "bytes_per_crystal": round(sum(s["bytes"] for s in found.shards) / len(found)),
            "peak_memory_gb": {
                "driver": round(peak.own / 1e9, 2),
                "largest_worker": round(peak.largest / 1e9, 2),
                "together": round(peak.together / 1e9, 2),
            },
            "copies_found": n_found,
            "others_joined": len(plain) - n_found,
        }


def parser() -> Parser:
    """The command's flags."""
    out = Parser("curation", __doc__)
    out.add_argument("--data", default="bundled", metavar="NAME|PATH", help="default bundled")
    out.add_argument(
        "--crystals",
        type=flags.positive(int),
        default=20_000,
        metavar="N",
        help="to make and curate (default 20000)",
    )
    out.add_argument(
        "--copies",
        type=flags.open_fraction,
        default=0.02,
        metavar="X",
        help="share of them that repeat an earlier one (default 0.02)",
    )
    out.add_argument(
        "--workers",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[2],
        metavar="A,B",
        help="numbers of processes to curate with (default 2)",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / "curation.json",
        metavar="FILE",
        help="default results/benchmarks/curation.json",
    )
    return out


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    others = report.OtherWork()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(Worker(Maker, (args.data,))) as maker:
            paths, n_copies = maker.call("tables", Path(folder), args.crystals, args.copies)
        for workers in args.workers:
            with contextlib.closing(Worker(Curator, (), threads=workers)) as worker:
                output = f"{folder}/set-{workers}"
                runs.append(worker.call("curate", paths, output, workers))
    results = {"data": Path(args.data).name, "copies": n_copies, "curations": runs}
    report.write(args.output, results, others)
    columns = ("workers", "crystals", "duplicates", "kept", "seconds", "crystals_per_second",
               "bytes_per_crystal")  # fmt: skip
    print(text_table(columns, [[str(run[name]) for name in columns] for run in runs]))


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
