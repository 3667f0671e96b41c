"""Write the data sets in ``crysgnn_jax/crystals/bundled`` from the matminer 0.3.2 release.

    pip download --no-deps --no-binary :all: matminer==0.3.2
    python scripts/convert_matminer.py matminer-0.3.2.tar.gz

Prints, for each set, what was dropped and why, the range of every label, and how far single
precision moves a neighbour; ``crysgnn_jax/crystals/bundled/README.md`` has these numbers. Running
it again writes the same bytes.
"""

import argparse
import ast
import csv
import dataclasses
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping

import ase
import ase.io
import numpy as np
from ase.formula import Formula
from ase.neighborlist import neighbor_list

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.named import BUNDLED_DIR, unit_of
from crysgnn_jax.crystals.table import write_table

FOLDER = "matminer-0.3.2/matminer/datasets"
MIN_DISTANCE = 0.6
"""Å. The shortest bond there is, H–H, has 0.74 Å; atoms nearer than this are an error."""

Structure = tuple[np.ndarray, np.ndarray, np.ndarray]


def from_poscar(row: Mapping[str, str]) -> Structure:
    """Atomic numbers, fractional coordinates and lattice of a row with a POSCAR."""
    atoms = ase.io.read(io.StringIO(row["poscar"]), format="vasp")
    return atoms.numbers, atoms.get_scaled_positions(wrap=False), atoms.cell.array


def from_dict(row: Mapping[str, str]) -> Structure:
    """The same of a row with a pymatgen ``Structure`` written out as a Python dictionary."""
    structure = ast.literal_eval(row["structure"])
    numbers = []
    for site in structure["sites"]:
        (occupant,) = site["species"]
        if occupant["occu"] != 1:
            raise ValueError(f"{row['material_id']} has a partially occupied site")
        numbers.append(SYMBOLS.index(occupant["element"]))
    coords = np.array([site["abc"] for site in structure["sites"]])
    return np.array(numbers), coords, np.array(structure["lattice"]["matrix"])


def formula_of_text(text: str) -> dict[str, float]:
    """Element counts of ``Ba(CdAs)2``."""
    return Formula(text).count()


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How one csv file becomes a table.

    Attributes:
      file: name of the csv file.
      structure: reads the structure in a row.
      counts: reads the formula in a row's column ``formula``.
      labels: property name → column.
    """

    file: str
    structure: Callable[[Mapping[str, str]], Structure]
    counts: Callable[[str], Mapping[str, float]]
    labels: Mapping[str, str]


CONVERSIONS = {
    "formation_energy": Conversion(
        "flla_2015.csv",
        from_dict,
        ast.literal_eval,
        {
            "formation_energy_per_atom": "formation_energy_per_atom",
            "e_above_hull": "e_above_hull",
        },
    ),
    "elastic": Conversion(
        "elastic_tensor.csv",
        from_poscar,
        formula_of_text,
        {
            "bulk_modulus_vrh": "K_VRH",
            "bulk_modulus_voigt": "K_Voigt",
            "bulk_modulus_reuss": "K_Reuss",
            "shear_modulus_vrh": "G_VRH",
            "shear_modulus_voigt": "G_Voigt",
            "shear_modulus_reuss": "G_Reuss",
            "elastic_anisotropy": "elastic_anisotropy",
            "poisson_ratio": "poisson_ratio",
        },
    ),
    "dielectric": Conversion(
        "dielectric_constant.csv",
        from_poscar,
        formula_of_text,
        {
            "band_gap": "band_gap",
            "refractive_index": "n",
            "poly_electronic": "poly_electronic",
            "poly_total": "poly_total",
        },
    ),
    "piezoelectric": Conversion(
        "piezoelectric_tensor.csv", from_poscar, formula_of_text, {"eij_max": "eij_max"}
    ),
}


def read_rows(archive: tarfile.TarFile, file: str) -> Iterator[dict[str, str]]:
    """The rows of a csv file of the release, by column name."""
    stream = io.TextIOWrapper(archive.extractfile(f"{FOLDER}/{file}"), "utf-8", newline="")
    next(stream)  # the reference
    lines = csv.reader(stream)
    header = next(lines)
    for values in lines:
        # Two of the files have a first column, the row number, that the header leaves out.
        yield dict(zip(header, values[len(values) - len(header) :], strict=True))


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def pairs_of(crystal: Crystal) -> Pairs:
    """Atoms nearer than 5 Å: the indices of both and the lattice translation of the second."""
    atoms = ase.Atoms(
        crystal.species,
        positions=crystal.frac_coords @ crystal.lattice,
        cell=crystal.lattice,
        pbc=True,
    )
    return neighbor_list("ijS", atoms, 5.0)


def distances(pairs: Pairs, frac_coords: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """``[n_pairs]`` Å."""
    i, j, shift = pairs
    return np.linalg.norm((frac_coords[j] - frac_coords[i] + shift) @ lattice, axis=1)


def rounding_error(pairs: Pairs, crystal: Crystal) -> float:
    """Å: the most by which single precision, which the tables have, moves a neighbour."""
    exact = crystal.frac_coords, crystal.lattice
    single = (array.astype(np.float32).astype(np.float64) for array in exact)
    return float(abs(distances(pairs, *single) - distances(pairs, *exact)).max(initial=0.0))


def content_of(crystal: Crystal) -> bytes:
    """The structure, to 1e-5 in the coordinates and 1e-4 Å in the lattice, as a key."""
    # Adding zero makes −0 the same as 0.
    coords, lattice = crystal.frac_coords.round(5) + 0.0, crystal.lattice.round(4) + 0.0
    return crystal.species.tobytes() + coords.tobytes() + lattice.tobytes()


def fault_of(
    crystal: Crystal, pairs: Pairs, formula: Mapping[str, float], other_id: str
) -> str | None:
    """Why a crystal has to be dropped, if it has; ``other_id`` is who had its structure first."""
    counts = {SYMBOLS[z]: n for z, n in zip(*np.unique(crystal.species, return_counts=True))}
    factor = len(crystal.species) / sum(formula.values())
    nearest = distances(pairs, crystal.frac_coords, crystal.lattice).min(initial=np.inf)
    if counts != {symbol: n * factor for symbol, n in formula.items()}:
        return f"the formula {formula} is not that of the structure"
    if not np.isfinite(list(crystal.labels.values())).all():
        return "a label is not a number"
    if nearest < MIN_DISTANCE:
        return f"two atoms are {nearest:.2f} Å apart"
    if other_id != crystal.id:
        return f"it has the structure of {other_id}"
    return None


def convert(name: str, archive: tarfile.TarFile, ids: dict[bytes, str]) -> None:
    """Write one table and print what the README says of it; ``ids`` are those by content."""
    conversion = CONVERSIONS[name]
    crystals, worst = [], 0.0
    print(f"\n{name}: {conversion.file}")
    for row in read_rows(archive, conversion.file):
        labels = {label: float(row[column]) for label, column in conversion.labels.items()}
        crystal = Crystal(row["material_id"], *conversion.structure(row), labels)
        pairs = pairs_of(crystal)
        other_id = ids.setdefault(content_of(crystal), crystal.id)
        fault = fault_of(crystal, pairs, conversion.counts(row["formula"]), other_id)
        if fault:
            print(f"  dropped {crystal.id}: {fault}")
            continue
        crystals.append(crystal)
        worst = max(worst, rounding_error(pairs, crystal))
    path = BUNDLED_DIR / f"{name}.npz"
    write_table(path, crystals)
    sizes = [len(crystal.species) for crystal in crystals]
    print(f"  {len(crystals)} crystals of {min(sizes)} to {max(sizes)} atoms, {sum(sizes)} in all")
    print(f"  single precision moves a neighbour by at most {worst:.1e} Å")
    print(f"  {path.name}: {path.stat().st_size} bytes")
    for label in conversion.labels:
        values = np.array([crystal.labels[label] for crystal in crystals])
        low, median, high = np.quantile(values, [0, 0.5, 1])
        print(f"  | {label} | {unit_of(label)} | {low:.4g} | {median:.4g} | {high:.4g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archive", help="matminer-0.3.2.tar.gz")
    csv.field_size_limit(1 << 24)
    with tarfile.open(parser.parse_args().archive) as archive:
        ids: dict[bytes, str] = {}
        for name in CONVERSIONS:
            convert(name, archive, ids)


if __name__ == "__main__":
    main()
