"""A trained network as a calculator of ASE."""

import dataclasses
import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError

import crysgnn_jax as cg
from crysgnn_jax.crystals.table import write_table
from toys import collection


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("calculator")
    write_table(path / "toys.npz", collection(12))
    settings = {"epochs": 1, "model": {"width": 8, "n_convolutions": 1}}
    return cg.train("cgcnn", path / "toys.npz", workdir=path / "run", cache=path / "cache",
                    devices=1, quiet=True, **settings)  # fmt: skip


def test_an_energy_an_atom_becomes_the_energy_of_the_cell(model, tmp_path):
    model = dataclasses.replace(model, property="formation_energy_per_atom", unit="eV/atom")
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    (value,) = model.predict([atoms], cache=tmp_path, devices=1).values
    atoms.calc = cg.PropertyCalculator(model)
    assert atoms.get_potential_energy() == pytest.approx(2 * value, rel=1e-6)
    assert atoms.info["formation_energy_per_atom"] == pytest.approx(value, rel=1e-6)
    assert "elements in their standard states" in atoms.calc.relative_to
    double = atoms * (2, 1, 1)
    double.calc = cg.PropertyCalculator(model)
    assert double.get_potential_energy() == pytest.approx(4 * value, rel=1e-4)
    # What has not changed is not computed again.
    seen = atoms.calc.results
    atoms.get_potential_energy()
    assert atoms.calc.results is seen
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_forces()


def test_structures_of_one_size_are_compiled_for_once(model):
    calculator = cg.PropertyCalculator(dataclasses.replace(model))
    values = []
    for a in (3.6, 3.7, 3.8):
        atoms = bulk("Cu", a=a)
        calculator.calculate(atoms)
        values.append(atoms.info["predicted_energy"])
    assert len(set(values)) == 3
    (program,) = calculator.model._programs.values()
    assert program.compilations == 1
    # It stays in this process.
    again = pickle.loads(pickle.dumps(dataclasses.replace(calculator.model, module=None)))
    assert again._programs == {}


def test_another_property_is_no_energy(model):
    atoms = bulk("Cu")
    atoms.calc = cg.PropertyCalculator(model)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()
    # The label of the toys has a name that ASE means the cell's energy by.
    assert np.isfinite(atoms.calc.get_property("predicted_energy", atoms))
    assert "energy" not in atoms.calc.results


def test_what_no_training_crystal_was_like_is_said_beside_the_value(model):
    atoms = bulk("Cu", a=30.0)
    calculator = cg.PropertyCalculator(model)
    calculator.calculate(atoms)
    assert "Å³ an atom, in training" in atoms.info["predicted_energy_warning"]
    known = next(c for c in collection(12) if c.id == str(model.reference.ids[0]))
    same = Atoms(known.species, scaled_positions=known.frac_coords, cell=known.lattice, pbc=True)
    same.info = atoms.info
    calculator.calculate(same)
    assert "predicted_energy_warning" not in same.info


def test_what_cannot_be_used_fails_as_calculations_do(model):
    molecule = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])
    with pytest.raises(CalculationFailed, match="not periodic in three directions"):
        cg.PropertyCalculator(model).calculate(molecule)


def test_a_network_without_a_property_is_refused():
    with pytest.raises(cg.UserError, match="predicts no property"):
        cg.PropertyCalculator("crysgnn-mp")
    with pytest.raises(cg.UserError, match="`model` .* give a name or path"):
        cg.PropertyCalculator(["formation_energy", "band_gap"])
