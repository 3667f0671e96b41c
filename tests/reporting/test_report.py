"""The page of a run: what it says, and what a real browser makes of it."""

import re
import time

import pytest

from browsers import open_page
from crysgnn_jax.reporting import page
from crysgnn_jax.reporting.crystal_svg import drawing
from crysgnn_jax.reporting.records import Record
from crysgnn_jax.reporting.report import page_of
from made_runs import write_pretraining, write_run
from toys import rocksalt


def _page(path, **how):
    return page_of(Record.read(path), **how)


def test_a_page_holds_settings_result_verdict_and_plots(tmp_path):
    text = _page(write_run(tmp_path / "run"))
    assert "The band gap of 20 test crystals is predicted with" in text
    for part in ("curve-0", "parity", "elements", "systems", "sizes"):
        assert f'id="{part}-figure"' in text
    assert text.count("<svg") == 10
    assert "settings.epochs" in text and "my_cifs" in text and "/somewhere/else/my_cifs" in text
    assert "SrTiO<sub>3</sub>" in text and "epoch 4 chosen" in text
    assert "1 crystal that could not be used" in text


def test_a_page_needs_no_network(tmp_path):
    text = _page(write_run(tmp_path / "run"))
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert "@import" not in text and "url(" not in text
    assert len(text) < 2_500_000


def test_ids_are_text_and_no_html(tmp_path):
    text = _page(write_run(tmp_path / "run"))
    assert "&lt;c2&gt;" in text and "<c2>" not in text.split("<body>")[1].split("<script")[0]


def test_the_same_run_gives_the_same_page(tmp_path):
    write_run(tmp_path / "run")
    assert _page(tmp_path / "run") == _page(tmp_path / "run")


def test_a_run_of_before_is_told_with_what_it_has(tmp_path):
    text = _page(write_run(tmp_path / "run", old=True))
    assert 'id="parity-figure"' in text and 'id="elements-figure"' not in text
    assert "Formulas, sizes and space groups: the run was made before" in text
    assert "The structures of the largest errors" in text


def test_of_many_crystals_some_are_drawn_and_that_is_said(tmp_path):
    text = _page(write_run(tmp_path / "run", n=24_000))
    assert "5,000 of the 12,000 test crystals are drawn, by lot." in text
    assert len(text) < 4_000_000


def test_objectives_stand_beside_the_best_constant_answer(tmp_path):
    text = _page(write_pretraining(tmp_path / "run"))
    assert "masked elements: loss 1.50, 50 % lower than that of the best constant answer" in text
    assert 'id="objectives-figure"' in text and "60.0 %" in text


def test_weights_that_are_alike_are_told_and_not_drawn(tmp_path):
    run = write_run(tmp_path / "run")
    alike = _page(run, explanation=[("group", 1.001), ("period", 0.999)])
    assert "within 1 % of each other" in alike and 'id="explanation-figure"' not in alike
    assert 'id="explanation-figure"' in _page(run, explanation=[("group", 1.2), ("period", 0.8)])


def test_a_drawing_has_the_atoms_of_all_faces():
    text = drawing(rocksalt())
    # 4 + 4 atoms in the cell; 14 and 13 where those on faces, edges and corners are drawn on all.
    assert text.count("<circle") == 27
    assert text.count("<path") == 12 * 6


def test_a_logarithmic_axis_is_for_values_that_span_a_factor_of_ten():
    assert page.axis_of([1.0, 9.0]) == {} and page.axis_of([0.0, 9.0]) == {}
    found = page.axis_of([0.3, 9.0])
    assert found["type"] == "log" and found["ticktext"] == ["0.1", "0.2", "0.5", "1", "2", "5"]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = write_run(tmp_path_factory.mktemp("page") / "run") / "report.html"
    path.write_text(_page(path.parent), encoding="utf-8")
    return path.as_uri()


def test_hovering_shows_id_and_formula_and_nothing_is_wrong(browser, report):
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, report)
    plot = browser.find_element("css selector", "#parity")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    point = plot.find_elements("css selector", ".points path")[0]
    ActionChains(browser).move_to_element(point).perform()
    end = time.monotonic() + 20
    shown = ""
    while not shown and time.monotonic() < end:
        labels = plot.find_elements("css selector", ".hovertext")
        shown = labels[0].text if labels else ""
    assert re.search(r"(NaCl|CsCl|SrTiO3) <c\d+>", shown) and "predicted" in shown
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_is_readable_on_a_phone(browser, report, dark):
    open_page(browser, report, width=390, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    colour = lambda script: [
        int(x) for x in re.findall(r"\d+", browser.execute_script(f"return {script}"))[:3]
    ]
    back = colour("getComputedStyle(document.body).backgroundColor")
    ink = colour("getComputedStyle(document.querySelector('#parity .xtick text')).fill")
    assert (max(back) < 60 and min(ink) > 180) if dark else (min(back) > 200 and max(ink) < 80)
    assert browser.get_log("browser") == []
