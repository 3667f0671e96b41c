"""A unit is guessed by name and range, and never against the range."""

import numpy as np
import pytest

from crysgnn_jax.crystals.units import guess_unit


@pytest.mark.parametrize(
    ("name", "values", "unit"),
    [
        ("formation_energy_per_atom", [-3.1, 0.2], "eV/atom"),
        ("Formation energy", [-3.1, 0.2], "eV/atom"),
        ("enthalpy of formation", [-411.0, -1675.0], "kJ/mol"),
        ("my gap", [0.0, 5.4], "eV"),
        ("K_vrh modulus", [40.0, 250.0], "GPa"),
        ("log_modulus", [1.6, 2.4], "log10(GPa)"),
        ("bulk modulus", [1.6, 2.4], "log10(GPa)"),
        ("last phonon peak", [300.0, 900.0], "cm⁻¹"),
        ("refractive_index", [1.3, 4.0], ""),
        ("Tc", [4.2, 92.0], "K"),
    ],
)
def test_known_words_in_their_range(name, values, unit):
    assert guess_unit(name, np.array(values)).unit == unit


def test_a_name_that_the_values_speak_against_is_not_believed():
    found = guess_unit("formation_energy_per_atom", np.array([-411.0, -1675.0]))
    assert found.unit == "?" and "the values are not" in found.why
    assert guess_unit("band gap", np.array([-30.0, 700.0])).unit == "?"


def test_a_name_that_says_nothing_is_left_open():
    assert str(guess_unit("target", np.array([1.0, 2.0]))) == "?"


def test_a_guess_is_shown_as_one():
    assert str(guess_unit("my gap", np.array([1.0]))) == "eV?"
