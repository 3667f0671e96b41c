"""Data sets by name, and the units of their properties."""

import dataclasses
from pathlib import Path

import numpy as np

from crysgnn_jax.crystals.sources import Combined, Source, select
from crysgnn_jax.crystals.table import CrystalTable
from crysgnn_jax.errors import UserError

BUNDLED_DIR = Path(__file__).with_name("bundled")

PROPERTY_UNITS = {
    # Materials Project and matminer
    "formation_energy_per_atom": "eV/atom",
    "crysxpp_formation_energy_per_atom": "eV/atom",
    "e_above_hull": "eV/atom",
    "energy_per_atom": "eV/atom",
    "band_gap": "eV",
    "band_gap_hse": "eV",
    "bulk_modulus_vrh": "GPa",
    "bulk_modulus_voigt": "GPa",
    "bulk_modulus_reuss": "GPa",
    "shear_modulus_vrh": "GPa",
    "shear_modulus_voigt": "GPa",
    "shear_modulus_reuss": "GPa",
    "log10_bulk_modulus": "log10(GPa)",
    "log10_shear_modulus": "log10(GPa)",
    "elastic_anisotropy": "",
    "poisson_ratio": "",
    "refractive_index": "",
    "poly_electronic": "",
    "poly_total": "",
    "eij_max": "C/m²",
    "last_phonon_dos_peak": "cm⁻¹",
    # the published CGCNN checkpoints
    "bulk_moduli": "log10(GPa)",
    "shear_moduli": "log10(GPa)",
    "efermi": "eV",
    "final_energy_per_atom": "eV/atom",
    # Materials Project 2018.6.1 as JARVIS distributes it
    "e_form": "eV/atom",
    "gap pbe": "eV",
    # perovskites of Castelli et al.
    "formation_energy_heat_all": "eV",
    "direct_band_gap": "eV",
    "indirect_band_gap": "eV",
    # JARVIS-DFT
    "formation_energy_peratom": "eV/atom",
    "optb88vdw_total_energy": "eV/atom",
    "optb88vdw_bandgap": "eV",
    "mbj_bandgap": "eV",
    "ehull": "eV/atom",
    "bulk_modulus_kv": "GPa",
    "shear_modulus_gv": "GPa",
    "spillage": "",
    "slme": "%",
    "epsx": "",
    "epsy": "",
    "epsz": "",
    "mepsx": "",
    "mepsy": "",
    "mepsz": "",
    "n-Seebeck": "µV/K",
    "n_Seebeck": "µV/K",
    "p-Seebeck": "µV/K",
    "p_Seebeck": "µV/K",
    "n-powerfact": "µW/(m K²)",
    "n_powerfact": "µW/(m K²)",
    "p-powerfact": "µW/(m K²)",
    "p_powerfact": "µW/(m K²)",
    "Tc_supercon": "K",
}
"""Property → unit; "" for a pure number."""


@dataclasses.dataclass(frozen=True)
class NamedDataset:
    """What a data set that comes with the package holds.

    Attributes:
      description: one line.
      default_property: the property to predict where none is asked for.
    """

    description: str
    default_property: str


NAMED = {
    "formation_energy": NamedDataset(
        "formation energies and energies above the hull of 3,938 crystals (Faber et al. 2015)",
        "formation_energy_per_atom",
    ),
    "elastic": NamedDataset(
        "elastic moduli of 1,181 crystals (de Jong et al. 2015)", "bulk_modulus_vrh"
    ),
    "dielectric": NamedDataset(
        "band gaps, refractive indices and dielectric constants of 1,056 crystals "
        "(Petousis et al. 2017)",
        "band_gap",
    ),
    "piezoelectric": NamedDataset(
        "piezoelectric moduli of 940 crystals (de Jong et al. 2015)", "eij_max"
    ),
    "bundled": NamedDataset(
        "the 6,316 distinct crystals of the four other sets", "formation_energy_per_atom"
    ),
}
"""Data set name → what it holds; `load_named` opens it."""

_BUNDLED_MEMBERS = ("formation_energy", "elastic", "dielectric", "piezoelectric")


def unit_of(label: str) -> str:
    """Unit of a property; "" for a pure number and for a property that is not known."""
    return PROPERTY_UNITS.get(label, "")


def load_named(name: str) -> Source:
    """Open a data set that comes with the package.

    ``bundled`` takes a crystal that several of the sets hold, by its Materials Project id, from
    the first of formation_energy, elastic, dielectric and piezoelectric: with the geometry and
    the labels of that set alone, since the sets relaxed their crystals differently.

    Raises:
      UserError: there is no data set of that name.
    """
    if name not in NAMED:
        raise UserError(f"there is no data set {name!r}; take one of {', '.join(NAMED)}")
    if name == "bundled":
        members = Combined([load_named(member) for member in _BUNDLED_MEMBERS])
        return select(members, np.flatnonzero(~members.repeated), name)
    return CrystalTable(BUNDLED_DIR / f"{name}.npz", name)
