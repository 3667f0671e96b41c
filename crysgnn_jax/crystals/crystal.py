"""A periodic crystal: what every reader returns and every featuriser takes."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from crysgnn_jax.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from crysgnn_jax.errors import InvalidCrystal, printable

MIN_VOLUME_PER_ATOM = 0.5
"""Å³. The densest known crystals have about 5 Å³ an atom (diamond 5.7, and 2 or so for
hydrogen at megabars); a cell below this is a broken file."""

MAX_COORDINATE = 1e6
"""Cells. In double precision 1e-10 of a cell are left of a coordinate there."""

MAX_LENGTH = 1e5
"""Å, 0.01 mm: longer lattice vectors are broken files."""


@dataclasses.dataclass(frozen=True, eq=False)
class Crystal:
    """A crystal with its labels.

    Attributes:
      id: identifier, unique within its source; control characters are written out.
      species: ``[n_atoms]`` uint8, atomic numbers 1…100.
      frac_coords: ``[n_atoms, 3]`` float64, fractional coordinates; any periodic image will do.
      lattice: ``[3, 3]`` float64, lattice vectors as rows, Å.
      labels: property name → value in the property's own unit; a missing label is absent.
      tags: name → text, such as the published split a crystal belongs to.
      notes: what a user should know of how it was read, a line each.

    Raises:
      InvalidCrystal: no atoms, an element outside the table, arrays of other shapes, numbers
        that are not finite or coordinates too large to mean anything, an infinite label, or a cell
        with (nearly) no volume.

    Example:
      ``Crystal("CsCl", [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.12 * np.eye(3))``
    """

    id: str
    species: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray
    labels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        numbers = np.atleast_1d(np.asarray(self.species))
        coords = np.asarray(self.frac_coords, dtype=np.float64)
        lattice = np.asarray(self.lattice, dtype=np.float64)
        if numbers.size == 0:
            raise InvalidCrystal(self.id, "it has no atoms")
        if numbers.dtype.kind not in "iu":
            raise InvalidCrystal(self.id, "its species must be atomic numbers, whole numbers")
        if coords.shape != (len(numbers), 3) or lattice.shape != (3, 3):
            raise InvalidCrystal(
                self.id,
                f"{len(numbers)} species need coordinates [{len(numbers)}, 3] and a lattice "
                f"[3, 3], not {list(coords.shape)} and {list(lattice.shape)}",
            )
        unknown = (numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)
        if unknown.any():
            raise InvalidCrystal(
                self.id,
                f"atomic number {numbers[unknown][0]} is not in the element table "
                f"(1 to {MAX_ATOMIC_NUMBER})",
            )
        # Largest values are NaN where any is, so that these tell of all numbers.
        largest, longest = float(np.abs(coords).max()), float(np.abs(lattice).max())
        if not (math.isfinite(largest) and math.isfinite(longest)):
            raise InvalidCrystal(self.id, "a coordinate or lattice vector is not a finite number")
        if largest > MAX_COORDINATE:
            raise InvalidCrystal(
                self.id,
                f"a fractional coordinate is {largest:.3g}; beyond {MAX_COORDINATE:g} cells "
                "nothing is left of its digits",
            )
        if longest > MAX_LENGTH:
            raise InvalidCrystal(
                self.id, f"a lattice vector is {longest:.3g} Å long; check the lattice"
            )
        for name, value in self.labels.items():
            if math.isinf(value):
                raise InvalidCrystal(
                    self.id, f"its {name} is infinite; leave it out where it is missing"
                )
        volume = abs(_determinant(lattice.tolist()))
        if volume < MIN_VOLUME_PER_ATOM * len(numbers):
            raise InvalidCrystal(
                self.id, f"the cell has {volume:.3g} Å³ for {len(numbers)} atoms; check the lattice"
            )
        object.__setattr__(self, "id", printable(self.id))
        object.__setattr__(self, "species", numbers.astype(np.uint8))
        object.__setattr__(self, "frac_coords", coords)
        object.__setattr__(self, "lattice", lattice)

    @property
    def reduced_formula(self) -> str:
        """Elements in alphabetical order with the smallest whole-number counts: ``Cl1Na1``."""
        counts = Counter(self.species.tolist())
        divisor = math.gcd(*counts.values())
        return "".join(
            f"{symbol}{count // divisor}"
            for symbol, count in sorted((SYMBOLS[z], n) for z, n in counts.items())
        )

    @classmethod
    def from_ase(
        cls,
        atoms,
        id: str,
        labels: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "Crystal":
        """The crystal in an ``ase.Atoms`` object.

        Raises:
          InvalidCrystal: the atoms are not periodic in all three directions, a site is partially
            occupied, or as in `Crystal`.
        """
        if not np.all(atoms.pbc):
            raise InvalidCrystal(
                id, "it is not periodic in three directions (no lattice, or pbc switched off)"
            )
        # ASE's CIF reader leaves the occupancies of each kind of site here.
        occupancies = (getattr(atoms, "info", None) or {}).get("occupancy")
        sites = occupancies.values() if isinstance(occupancies, Mapping) else ()
        for site in sites:
            if len(site) > 1 or any(abs(value - 1.0) > 1e-3 for value in site.values()):
                raise InvalidCrystal(
                    id, f"a site is partially occupied ({dict(site)}); give an ordered structure"
                )
        lattice = np.asarray(atoms.cell)
        if not np.isfinite(lattice).all():
            raise InvalidCrystal(id, "a coordinate or lattice vector is not a finite number")
        if abs(np.linalg.det(lattice)) < 1e-6:
            raise InvalidCrystal(id, "the cell has no volume; check the lattice")
        frac_coords = np.linalg.solve(lattice.T, np.asarray(atoms.positions).T).T
        return cls(id, atoms.numbers, frac_coords, lattice, labels or {}, tags or {})

    @classmethod
    def from_pymatgen(
        cls,
        structure,
        id: str,
        labels: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "Crystal":
        """The crystal in a ``pymatgen.core.Structure``.

        Raises:
          InvalidCrystal: a site is disordered, the lattice is not periodic in all three
            directions, or as in `Crystal`.
        """
        if not all(structure.lattice.pbc):
            raise InvalidCrystal(id, "it is not periodic in three directions (lattice.pbc)")
        if not structure.is_ordered:
            site = next(site for site in structure if not site.is_ordered)
            raise InvalidCrystal(
                id, f"a site is partially occupied ({site.species}); give an ordered structure"
            )
        return cls(
            id,
            np.array([site.specie.Z for site in structure]),
            np.array(structure.frac_coords),
            np.array(structure.lattice.matrix),
            labels or {},
            tags or {},
        )


def _determinant(matrix: list[list[float]]) -> float:
    """Of three rows of three; NumPy takes ten times as long over one so small."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
