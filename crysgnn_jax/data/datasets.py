"""Data sets by name, the units of their properties, and sources made of other sources."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.data.crystal import Crystal
from crysgnn_jax.data.crystal_table import CrystalTable
from crysgnn_jax.data.source import Source
from crysgnn_jax.errors import InvalidCrystal, UserError

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


def select(source: Source, indices: Sequence[int] | np.ndarray, name: str = "") -> "Selection":
    """The items of a source at ``indices``, in that order; ``name`` replaces the source's name.

    Raises:
      IndexError: an index is negative, or not below ``len(source)``.
    """
    return Selection(source, indices, name)


class Selection:
    """Some of the items of a source, as a `Source`; see `select`."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray, name: str = ""):
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64)
        outside = (self._indices < 0) | (self._indices >= len(source))
        if outside.any():
            raise IndexError(f"{source.name} has no item {self._indices[outside][0]}")
        self.name = name or source.name
        self.label_names = source.label_names
        self.decode = source.decode

    def __len__(self) -> int:
        return len(self._indices)

    def ids(self) -> np.ndarray | None:
        """``[len(self)]`` text: the ids where the source knows them unread, else None."""
        ids = self._source.ids()
        return None if ids is None else ids[self._indices]

    def fingerprint(self) -> str:
        return _digest(self._source.fingerprint(), self._indices.astype("<i8").tobytes().hex())

    def labelled(self, label: str) -> np.ndarray:
        return self._source.labelled(label)[self._indices]

    def items(self, start: int, stop: int) -> list[Any]:
        chosen = self._indices[start:stop]
        if not len(chosen):
            return []
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
        return [item for run in runs for item in self._source.items(run[0], run[-1] + 1)]


class CombinedItem(NamedTuple):
    """An item of one member, what decodes it, and what to put before its id."""

    decode: Callable[[Any], Crystal]
    item: Any
    prefix: str


def decode_combined(item: CombinedItem) -> Crystal:
    """The crystal in an item of `Combined`.

    Raises:
      InvalidCrystal: as the member's ``decode``, with the id that the crystal has here.
    """
    try:
        crystal = item.decode(item.item)
    except InvalidCrystal as error:
        raise InvalidCrystal(item.prefix + error.crystal_id, error.reason) from error
    return dataclasses.replace(crystal, id=item.prefix + crystal.id) if item.prefix else crystal


class Combined:
    """Several sources one after the other, as a `Source`.

    An id that an earlier member has already may be another crystal by accident, so such a
    crystal is kept, under the id ``<member's name>/<id>``. Where the ids of the member, or of
    one before it, are not known unread, all of its crystals are renamed in this way.

    Attributes:
      repeated: ``[len(self)]`` bool: which items are renamed.

    Raises:
      UserError: no sources, or two of the same name.
    """

    decode = staticmethod(decode_combined)

    def __init__(self, sources: Iterable[Source]):
        self._sources = list(sources)
        if not self._sources:
            raise UserError("there are no data to combine; name at least one source")
        names = [source.name for source in self._sources]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"the data {name!r} are given twice; give them once")
        self.name = " + ".join(names)
        self.label_names = tuple(
            dict.fromkeys(label for source in self._sources for label in source.label_names)
        )
        self._offsets = np.cumsum([0, *map(len, self._sources)])
        member_ids = [source.ids() for source in self._sources]
        self.repeated = np.concatenate(
            [_repeated(source, member_ids[: k + 1]) for k, source in enumerate(self._sources)]
        )
        self._ids = None
        if all(ids is not None for ids in member_ids):
            prefixes = np.repeat([f"{name}/" for name in names], np.diff(self._offsets))
            ids = np.concatenate(member_ids)
            self._ids = np.where(self.repeated, np.char.add(prefixes, ids), ids)

    def __len__(self) -> int:
        return len(self.repeated)

    def ids(self) -> np.ndarray | None:
        """``[len(self)]`` text: the ids where all members know theirs unread, else None."""
        return self._ids

    def fingerprint(self) -> str:
        parts = []
        for source, begin, end in zip(self._sources, self._offsets, self._offsets[1:]):
            # The name is part of the content only where it is part of an id.
            parts += [source.fingerprint(), source.name if self.repeated[begin:end].any() else ""]
        return _digest(*parts)

    def labelled(self, label: str) -> np.ndarray:
        return np.concatenate([source.labelled(label) for source in self._sources])

    def items(self, start: int, stop: int) -> list[CombinedItem]:
        items = []
        for source, begin, end in zip(self._sources, self._offsets, self._offsets[1:]):
            first, last = max(start, begin), min(stop, end)
            if first < last:
                items += [
                    CombinedItem(source.decode, item, f"{source.name}/" if repeated else "")
                    for item, repeated in zip(
                        source.items(first - begin, last - begin), self.repeated[first:last]
                    )
                ]
        return items


def _repeated(source: Source, ids: Sequence[np.ndarray | None]) -> np.ndarray:
    """``[len(source)]`` bool: which items have, or may have, an id of an earlier member.

    ``ids`` are those of the earlier members, then of the source itself.
    """
    *earlier, own = ids
    if not earlier:
        return np.zeros(len(source), dtype=bool)
    if any(member is None for member in ids):
        return np.ones(len(source), dtype=bool)
    return np.isin(own, np.concatenate(earlier))


def _digest(*parts: str) -> str:
    """Hex digest of a sequence of texts."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
