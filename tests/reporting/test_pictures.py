"""Pictures of elements, structures and maps: that they are whole, and say what they should."""

import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.reporting.coloured_atoms import draw_atoms
from crysgnn_jax.reporting.colours import ink_on, scale
from crysgnn_jax.reporting.crystal_map import CrystalMap, draw_map, write_map_page
from crysgnn_jax.reporting.periodic_table import periodic_table


@pytest.fixture
def drawn(monkeypatch):
    """The figures that have been saved."""
    figures, save = [], Figure.savefig

    def keep(figure, *arguments, **named):
        figures.append(figure)
        save(figure, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_a_periodic_table_has_every_element_and_the_numbers_of_some(drawn, tmp_path):
    periodic_table({8: -1.25, 26: 0.5}, tmp_path / "a.png", label="x (eV)", title="oxides")

    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    said = texts(drawn[0])
    assert set(SYMBOLS[1:]) < set(said) and "−1.2" in said and "0.5" in said
    assert drawn[0].get_suptitle() == "oxides"
    assert "x (eV)" in [axis.get_title() for axis in drawn[0].axes[0].child_axes]


def test_a_structure_shows_the_images_on_its_faces(drawn, tmp_path):
    """Cs on the corners is there eight times, Cl in the middle once."""
    coords = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])

    draw_atoms(
        np.array([55, 17]), coords, 4.12 * np.eye(3), np.array([0.2, -0.7]), tmp_path / "a.png",
        label="contribution (eV)", title="CsCl",
    )  # fmt: skip

    assert sorted(texts(drawn[0])) == ["Cl"] + 8 * ["Cs"]
    assert drawn[0].axes[1].get_ylabel() == "contribution (eV)"


def test_numbers_of_both_signs_are_coloured_around_0_and_others_from_low_to_high():
    both, one = scale(np.array([-1.0, 3.0, np.nan])), scale(np.array([2.0, 4.0]))

    assert both.get_clim() == (-3.0, 3.0) and one.get_clim() == (2.0, 4.0)
    assert scale(np.array([2.0, 4.0]), centred=True).get_clim() == (-4.0, 4.0)
    assert ink_on((0, 0, 0.4, 1)) == "white" and ink_on((1, 1, 0.8, 1)) == "black"


def a_map(values, colour="band gap (eV)"):
    return CrystalMap(
        points=np.arange(6.0).reshape(3, 2),
        axes=("component 1 (60 % of the variance)", "component 2 (30 % of the variance)"),
        title="three crystals",
        ids=np.array(["mp-1", "<script src='x.js'>", "mp-3"]),
        formulas=np.array(["NaCl", "Si", "SrTiO3"]),
        colour=colour,
        values=values,
    )


@pytest.mark.parametrize(
    "values", [np.array(["cubic", "trigonal", "cubic"]), np.array([0.5, np.nan, 2.0])]
)
def test_a_page_needs_nothing_else_and_takes_no_name_for_a_tag(values, drawn, tmp_path):
    page, picture = io.StringIO(), tmp_path / "a.png"

    write_map_page(a_map(values), page)
    draw_map(a_map(values), picture)

    text = page.getvalue()
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)\s*=(?!\"data:)", text)
    assert len(text) > 1e6  # what draws it is inside
    for wanted in ("mp-1", "SrTiO3", "component 1 (60 % of the variance)", "three crystals"):
        assert wanted in text
    assert picture.stat().st_size > 1000
    assert drawn[0].axes[0].get_xlabel().startswith("component 1 (60 %")


def test_crystal_systems_stand_in_the_legend_in_their_order(drawn, tmp_path):
    found = a_map(np.array(["cubic", "triclinic", "cubic"]), "crystal system")

    draw_map(found, tmp_path / "a.png")

    legend = drawn[0].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["triclinic", "cubic"]
