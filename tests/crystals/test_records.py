"""Structures as plain dicts: of JARVIS, OPTIMADE and pymatgen."""

import json

import numpy as np
import pytest

from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import formulas_of
from crysgnn_jax.errors import InvalidCrystal, UserError

A = 4.12
CELL = [[A, 0.0, 0.0], [0.0, A, 0.0], [0.0, 0.0, A]]
HALF = [[0.0, 0.0, 0.0], [A / 2, A / 2, A / 2]]

JARVIS = {"lattice_mat": CELL, "coords": HALF, "elements": ["Cs", "Cl"], "cartesian": True}
OPTIMADE = {
    "lattice_vectors": CELL,
    "cartesian_site_positions": HALF,
    "species_at_sites": ["A", "B"],
    "species": [
        {"name": "A", "chemical_symbols": ["Cs"], "concentration": [1.0]},
        {"name": "B", "chemical_symbols": ["Cl"], "concentration": [1.0]},
    ],
    "nsites": 2,
    "dimension_types": [1, 1, 1],
    "_oqmd_delta_e": -1.9,
}
PYMATGEN = {
    "@module": "pymatgen.core.structure",
    "@class": "Structure",
    "charge": 0.0,
    "lattice": {"matrix": CELL, "pbc": [True, True, True]},
    "sites": [
        {"species": [{"element": "Cs", "oxidation_state": 1, "occu": 1}], "abc": [0.0, 0.0, 0.0]},
        {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]},
    ],
}
RECORDS = {
    "jarvis": {"jid": "JVASP-1", "atoms": JARVIS, "gap": "1.5", "formula": "CsCl"},
    "optimade": {"id": "oqmd-1", "type": "structures", "attributes": OPTIMADE},
    "pymatgen": {"material_id": "mp-1", "structure": PYMATGEN, "band_gap": np.float32(1.5)},
}


def crystals_of(source):
    return [source.decode(item) for item in source.items(0, len(source))]


def reason_of(thing):
    source = read([thing])
    with pytest.raises(InvalidCrystal) as error:
        source.decode(source.items(0, 1)[0])
    return error.value.reason


@pytest.mark.parametrize("kind", RECORDS)
def test_each_kind_is_the_same_crystal(kind):
    (crystal,) = crystals_of(read(RECORDS[kind]))
    assert crystal.species.tolist() == [55, 17]
    np.testing.assert_allclose(crystal.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-12)
    np.testing.assert_allclose(crystal.lattice, CELL)
    assert crystal.id == {"jarvis": "JVASP-1", "optimade": "oqmd-1", "pymatgen": "mp-1"}[kind]
    labels = {
        "jarvis": {"gap": 1.5},
        "optimade": {"_oqmd_delta_e": -1.9},
        "pymatgen": {"band_gap": 1.5},
    }
    assert crystal.labels == labels[kind]


def test_structures_alone_have_their_number_as_id_and_no_labels_of_their_own():
    source = read([JARVIS, OPTIMADE, PYMATGEN])
    assert source.ids().tolist() == ["0", "1", "2"]
    assert [crystal.labels for crystal in crystals_of(source)] == [{}, {"_oqmd_delta_e": -1.9}, {}]
    assert set(formulas_of(source)) == {"Cl1Cs1"}


def test_dicts_stand_beside_objects():
    from ase.build import bulk

    assert read([bulk("Cu"), RECORDS["jarvis"], OPTIMADE]).ids().tolist() == ["0", "JVASP-1", "2"]


def test_pymatgen_gives_what_its_object_gives():
    core = pytest.importorskip("pymatgen.core", reason="pymatgen is not installed")
    structure = core.Structure(core.Lattice.hexagonal(3.2, 5.1), ["Zn2+", "O2-"],
                               [[1 / 3, 2 / 3, 0.0], [1 / 3, 2 / 3, 0.38]])  # fmt: skip
    of_dict, of_object = (crystals_of(read(x))[0] for x in (structure.as_dict(), structure))
    np.testing.assert_array_equal(of_dict.species, of_object.species)
    np.testing.assert_array_equal(of_dict.frac_coords, of_object.frac_coords)
    np.testing.assert_array_equal(of_dict.lattice, of_object.lattice)


def changed(structure, **changes):
    return {**structure, **changes}


MIXED = [{"element": "Cs", "occu": 0.5}, {"element": "Rb", "occu": 0.5}]


@pytest.mark.parametrize(
    "thing, reason",
    [
        ({"a": 1}, "0 has no atoms, structure or attributes"),
        (changed(JARVIS, elements=["Cs", "Xx"]), "unknown element 'Xx'"),
        (changed(JARVIS, elements="CsCl"), "its elements are no list"),
        (
            changed(OPTIMADE, species=[{"name": "A", "chemical_symbols": ["Cs", "vacancy"],
                                        "concentration": [0.9, 0.1]}]),
            "a site is partially occupied ({'Cs': 0.9, 'vacancy': 0.1})",
        ),
        (changed(OPTIMADE, species_at_sites=None), "no species_at_sites; ask for it in the query"),
        (changed(OPTIMADE, species_at_sites=["A"]), "1 species need coordinates [1, 3]"),
        (changed(OPTIMADE, dimension_types=[1, 1, 0]), "not periodic in three directions"),
        (changed(OPTIMADE, lattice_vectors=[[None] * 3] * 3), "lattice_vectors is no 3 by 3"),
        (changed(OPTIMADE, species=["Cs"]), "its structure is not as it should be (TypeError"),
        (
            changed(PYMATGEN, sites=[{"species": MIXED, "abc": [0, 0, 0]}]),
            "a site is partially occupied ({'Cs': 0.5, 'Rb': 0.5}); give an ordered structure",
        ),
        (changed(PYMATGEN, lattice={"matrix": CELL, "pbc": [1, 1, 0]}), "(lattice.pbc)"),
        (changed(PYMATGEN, lattice={}), "its structure is not as it should be (KeyError"),
        (changed(PYMATGEN, sites=[]), "it has no atoms"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_skipped_with_a_reason(thing, reason):
    assert reason in reason_of(thing)


def test_a_file_may_be_a_response_or_a_structure(tmp_path):
    response = {"meta": {"api_version": "1.1.0"}, "data": [RECORDS["optimade"], {"id": "x"}]}
    (tmp_path / "response.json").write_text(json.dumps(response))
    source = read(tmp_path / "response.json")
    assert source.ids().tolist() == ["oqmd-1", "x"] and source.label_names == ["_oqmd_delta_e"]
    assert source.decode(source.items(0, 1)[0]).reduced_formula == "Cl1Cs1"
    assert read(response).ids().tolist() == ["oqmd-1", "x"]
    (tmp_path / "CsCl.json").write_text(json.dumps(PYMATGEN))
    assert read(tmp_path / "CsCl.json").ids().tolist() == ["CsCl"]
    (tmp_path / "empty.json").write_text(json.dumps({"lattice_vectors": 1, "data": []}))
    (crystal,) = [read(tmp_path / "empty.json")]
    with pytest.raises(InvalidCrystal, match="no cartesian_site_positions"):
        crystal.decode(crystal.items(0, 1)[0])


def test_nothing_is_told_of_nothing():
    with pytest.raises(UserError, match="there are no crystals"):
        read({"data": []})
