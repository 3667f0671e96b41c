"""Oxidation states of formulas, as a chemist would say them."""

import numpy as np
import pytest

from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.formula import Formula
from crysgnn_jax.crystals.oxidation import CLASSES, OxidationTable, balance


def of(formula):
    """The states of a formula's elements, by symbol, and the class."""
    counts = Formula(formula).count()
    numbers = tuple(SYMBOLS.index(symbol) for symbol in counts)
    states, kind = balance(numbers, tuple(counts.values()))
    return dict(zip(counts, states)), CLASSES[kind]


@pytest.mark.parametrize(
    "formula, states",
    {
        "NaCl": {"Na": 1, "Cl": -1},
        "Fe2O3": {"Fe": 3, "O": -2},
        "SrTiO3": {"Sr": 2, "Ti": 4, "O": -2},
        "LiCoO2": {"Li": 1, "Co": 3, "O": -2},
        "SiC": {"Si": 4, "C": -4},
        "BaSO4": {"Ba": 2, "S": 6, "O": -2},
        "GaAs": {"Ga": 3, "As": -3},
        "NH3": {"N": -3, "H": 1},
        "NaH": {"Na": 1, "H": -1},
    }.items(),
)
def test_compounds_of_common_states(formula, states):
    assert of(formula) == (states, "common")


@pytest.mark.parametrize("formula, kind", [("Cu2O", "one rarer"), ("TiO", "one rarer")])
def test_a_rarer_state_is_taken_where_no_common_one_does(formula, kind):
    assert of(formula)[1] == kind


@pytest.mark.parametrize("formula", ["Cu", "NiAl", "Fe3O4", "ArF", "LiO3", "OsSi"])
def test_metals_mixed_valence_and_what_no_state_makes_neutral_have_none(formula):
    states, kind = of(formula)
    assert kind == "none" and not any(states.values())


def test_so_many_elements_that_there_are_too_many_choices_have_none():
    symbols = "C N P S Cl Br Se As Mn Cr W Re".split()
    numbers = tuple(SYMBOLS.index(symbol) for symbol in symbols)
    assert CLASSES[balance(numbers, (1,) * len(numbers)).kind] == "none"


def test_atoms_have_the_states_of_their_elements():
    table = OxidationTable(np.array(["Fe2O3", "Cl1Na1", "Al1Ni1", "Fe2O3", "Cl1Na1O3"]))
    rows = np.array([3, 3, 0, 1, 1, 2, 2, 4, 4, 4])
    species = np.array([8, 26, 8, 11, 17, 13, 28, 17, 11, 8])
    states, kinds = table(rows, species).T
    assert states.tolist() == [-2, 3, -2, 1, -1, 0, 0, 5, 1, -2]
    assert [CLASSES[int(k)] for k in kinds] == 5 * ["common"] + 2 * ["none"] + 3 * ["common"]
