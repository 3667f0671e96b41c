"""The nine element properties that describe an atom, as 92 binary features.

Source of the values: the element table of CGCNN (Xie and Grossman, Phys. Rev. Lett. 120, 145301
(2018)), as jarvis-tools (NIST; MIT licence) distributes it; ``scripts/convert_elements.py``
makes the file.
"""

import csv
import functools
from pathlib import Path

import numpy as np

TABLE_PATH = Path(__file__).with_name("elements.csv")

PROPERTY_BINS = {
    "group": 19,
    "period": 7,
    "electronegativity": 10,
    "covalent_radius": 10,
    "valence_electrons": 12,
    "first_ionisation_energy": 10,
    "electron_affinity": 10,
    "block": 4,
    "atomic_volume": 10,
}
"""Property → number of bins, in the order of the features."""

N_FEATURES = sum(PROPERTY_BINS.values())
MAX_ATOMIC_NUMBER = 100

SYMBOLS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm"
).split()
"""Chemical symbols by atomic number; entry 0 stands for padding."""


@functools.cache
def element_features() -> np.ndarray:
    """``[101, 92]`` float32: the features of each atomic number; row 0, padding, is zero.

    A property that is not known for an element leaves its bins at zero.
    """
    offsets = dict(zip(PROPERTY_BINS, np.cumsum([0, *PROPERTY_BINS.values()])))
    table = np.zeros((MAX_ATOMIC_NUMBER + 1, N_FEATURES), np.float32)
    with open(TABLE_PATH, newline="") as file:
        for row in csv.DictReader(file):
            for name, offset in offsets.items():
                if row[name]:
                    table[int(row["number"]), offset + int(row[name])] = 1.0
    table.flags.writeable = False
    return table


def place_in_table(number: int) -> tuple[int, int]:
    """Row and column of an element in the periodic table as it is drawn: rows 1…7 and columns 1…18;
    lanthanides and actinides (La to Yb, Ac to No) in rows 9 and 10 below it, columns 3…16.

    Args:
      number: atomic number, from 1.

    Example:
      >>> place_in_table(26)
      (4, 8)
    """
    if 57 <= number <= 70:
        return 9, number - 54
    if 89 <= number <= 102:
        return 10, number - 86
    ends = [2, 10, 18, 36, 54, 86, 118]
    period = next(row for row, last in enumerate(ends, 1) if number <= last)
    if number == 1:
        return 1, 1
    after = ends[period - 1] - number  # elements of the row that follow
    before = number - (ends[period - 2] if period > 1 else 0)
    # The first two columns are filled from the left, all others from the right.
    return period, before if before <= 2 and period > 1 else 18 - after
