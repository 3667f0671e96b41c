"""The page of a map in a real browser: by crystal system, and by a number that some lack."""

import re
import time

import numpy as np
import pytest

from browsers import open_page
from crysgnn_jax.reporting.crystal_map import MANY, CrystalMap, write_map_page

KINDS = np.array(["triclinic", "cubic", "trigonal", "monoclinic"])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    generator = np.random.default_rng(0)
    for name, n in (("system", 40), ("number", 40), ("many", MANY + 1)):
        values = KINDS[np.arange(n) % 4]
        if name != "system":
            values = np.where(np.arange(n) % 5, generator.uniform(1.0, 3.0, n), np.nan)
        found = CrystalMap(
            points=generator.normal(size=(n, 2)),
            axes=("component 1 (60 % of the variance)", "component 2 (30 % of the variance)"),
            title=f"{n} crystals of <toys>, embedded by crysgnn",
            ids=np.array([f"<c{k}>" for k in range(n)]),
            formulas=np.array(["SrTiO3"] * n),
            colour="crystal system" if name == "system" else "band gap (eV)",
            values=values,
        )
        with open(folder / f"{name}.html", "w", encoding="utf-8") as file:
            write_map_page(found, file)
    return folder


@pytest.mark.parametrize("name", ["system", "number"])
def test_a_crystal_under_the_pointer_tells_its_id_and_formula(browser, pages, name):
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, (pages / f"{name}.html").as_uri())
    plot = browser.find_element("css selector", "#map")
    shown, end = "", time.monotonic() + 20
    # A point may lie under another.
    for point in plot.find_elements("css selector", ".points path")[-5:]:
        ActionChains(browser).move_to_element(point).perform()
        while not shown and time.monotonic() < end:
            labels = plot.find_elements("css selector", ".hovertext")
            shown = labels[0].text if labels else ""
        if shown:
            break
    assert re.search(r"<c\d+>\s*SrTiO3\s*(no value|[a-z]+|\d)", shown)
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["system", "number"])
def test_a_map_is_readable_on_a_phone(browser, pages, name, dark):
    open_page(browser, (pages / f"{name}.html").as_uri(), width=390, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    width = browser.execute_script(
        "return document.querySelector('#map .draglayer .nsewdrag').getBoundingClientRect().width"
    )
    assert width > 280  # the plane itself
    ink = browser.execute_script(
        "return getComputedStyle(document.querySelector('#map .xtick text')).fill"
    )
    levels = [int(x) for x in re.findall(r"\d+", ink)[:3]]
    assert min(levels) > 180 if dark else max(levels) < 80
    assert browser.get_log("browser") == []


def test_many_crystals_are_drawn_too(browser, pages):
    open_page(browser, (pages / "many.html").as_uri())
    assert browser.find_elements("css selector", "#map .gl-canvas, #map canvas")
    # Where there is no WebGL, plotly says so on the page and not in the log.
    assert [line for line in browser.get_log("browser") if "WebGL" not in line["message"]] == []
