"""The element table."""

import pytest

from crysgnn_jax.crystals.elements import SYMBOLS, place_in_table


@pytest.mark.parametrize(
    ("symbol", "place"),
    [
        ("H", (1, 1)), ("He", (1, 18)), ("Be", (2, 2)), ("B", (2, 13)), ("Sc", (4, 3)),
        ("Fe", (4, 8)), ("Xe", (5, 18)), ("La", (9, 3)), ("Yb", (9, 16)), ("Lu", (6, 3)),
        ("Hf", (6, 4)), ("Rn", (6, 18)), ("Fr", (7, 1)), ("U", (10, 6)), ("Fm", (10, 14)),
    ],
)  # fmt: skip
def test_an_element_stands_in_its_period_and_group(symbol, place):
    assert place_in_table(SYMBOLS.index(symbol)) == place


def test_no_two_elements_stand_in_one_place():
    places = [place_in_table(number) for number in range(1, 101)]
    assert len(set(places)) == 100
