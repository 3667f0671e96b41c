"""A trained network as a calculator of ASE."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    all_changes,
    all_properties,
)

from crysgnn_jax.errors import UserError
from crysgnn_jax.training.committee import Committee
from crysgnn_jax.training.predictor import TrainedModel

ENERGIES = {
    "formation_energy_per_atom": "the elements in their standard states",
    "crysxpp_formation_energy_per_atom": "the elements in their standard states",
    "formation_energy_peratom": "the elements in their standard states",
    "e_form": "the elements in their standard states",
    "energy_per_atom": "the reference of the DFT code, that of its pseudopotentials",
    "final_energy_per_atom": "the reference of the DFT code, that of its pseudopotentials",
    "optb88vdw_total_energy": "the reference of the DFT code, that of its pseudopotentials",
}
"""Properties that are energies, in eV an atom → what they are relative to."""


class PropertyCalculator(Calculator):
    """The property that a network predicts, for ``atoms.calc``.

    A calculation puts it into ``calc.results`` and into ``atoms.info``, under its name, or under
    ``predicted_NAME`` where ASE has another meaning for that, such as ``energy``. Where it is
    an energy an atom (`ENERGIES`), ``atoms.get_potential_energy()`` is that of the cell, in eV:
    the property times the number of atoms. A formation energy is relative to the elements, and so
    differs from the total energy of a DFT code by a constant for each element; it can be compared
    between structures of any composition that its training data hold. There are no forces: the
    network has learned relaxed structures, and ASE's error says so.

    The first calculation takes seconds, for the network is compiled for graphs of that size; others
    of the same size take a small part of that. For many structures at once, `TrainedModel.predict`
    is faster by far.

    Args:
      model: a `TrainedModel`, a `Committee`, or the name or path of a network.
      is_energy: whether the property is an energy in eV an atom; by its name where not given.
      devices: how many local devices to use.

    Attributes:
      model: the network.
      relative_to: what the energy is relative to; empty where that is not known, or it is none.
      implemented_properties: what ``get_property`` knows.

    Raises:
      UserError: the network predicts no property, or there is none.

    Example:
      >>> atoms.calc = PropertyCalculator("formation_energy")
      >>> atoms.get_potential_energy()           # eV a cell, relative to the elements
      >>> atoms.info["formation_energy_per_atom"]
    """

    def __init__(
        self,
        model: TrainedModel | Committee | Path | str,
        is_energy: bool | None = None,
        devices: int | None = 1,
    ):
        super().__init__()
        self.model = TrainedModel.load(model) if isinstance(model, (str, Path)) else model
        if not isinstance(self.model, (TrainedModel, Committee)):
            raise UserError(
                f"`model` {model}: give a name or path, a TrainedModel, or a Committee of several"
            )
        if isinstance(self.model, TrainedModel):
            self.model.require_property()
        name = str(self.model.property)
        self._key = f"predicted_{name}" if name in all_properties else name
        self._devices = devices
        known = name in ENERGIES and self.model.unit in ("", "eV/atom")
        self._is_energy = known if is_energy is None else is_energy
        self.relative_to = ENERGIES.get(name, "") if self._is_energy else ""
        self.implemented_properties = [self._key]
        if self._is_energy:
            self.implemented_properties += ["energy", "free_energy"]

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Predict the property of ``atoms``, into its results and ``atoms.info``; where no training
        crystal was like them, with a warning there, ``PROPERTY_warning``.

        Raises:
          CalculationFailed: they cannot be used, such as without a periodic cell.
        """
        super().calculate(atoms, properties, system_changes)
        # Graphs of structures that change at each call are not worth keeping.
        with tempfile.TemporaryDirectory(prefix="crysgnn-") as folder:
            try:
                found = self.model.predict([self.atoms], cache=folder, devices=self._devices)
            except UserError as error:
                raise CalculationFailed(str(error)) from error
        value = float(found.values[0])
        self.results = {self._key: value}
        if self._is_energy:
            energy = value * len(self.atoms)
            self.results |= {"energy": energy, "free_energy": energy}
        if atoms is not None:
            atoms.info[self._key] = value
            # Of the structure before, if this one is like those of training.
            atoms.info.pop(f"{self._key}_warning", None)
            if len(found.warnings) and found.warnings[0]:
                atoms.info[f"{self._key}_warning"] = found.warnings[0]
