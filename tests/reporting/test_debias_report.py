"""Errors against measurement, over shares and seeds."""

import numpy as np
import pytest

from crysgnn_jax.reporting import debias
from crysgnn_jax.reporting.debias import ADAPTED, CORRECTED, DFT, Judged

TRUTH = np.array([-1.0, -2.0])


def judged(method, off, seed=0, fraction=0.2):
    return Judged(method, fraction, seed, np.array(["a", "b"]), TRUTH, TRUTH + off)


ALL = [
    judged(method, np.array([off, -0.1 + shift]), seed, fraction)
    for fraction in (0.2, 0.8)
    for seed, shift in ((0, 0.0), (1, 0.04))
    for method, off in (
        (DFT, 0.3),
        (CORRECTED, 0.0),
        ("cgcnn vanilla", 0.4),
        ("cgcnn vanilla" + ADAPTED, 0.1),
        ("cgcnn distilled", 0.35),
        ("cgcnn distilled" + ADAPTED, 0.05),
    )
]


def test_errors_are_those_worked_out_by_hand():
    one = judged(DFT, np.array([0.3, -0.1]))
    assert one.mae == pytest.approx(0.2) and one.bias == pytest.approx(0.1)


def test_a_line_is_the_mean_over_the_seeds():
    line = debias.summarise(ALL)[0]
    assert (line.fraction, line.method, line.n_test) == (0.2, DFT, 2)
    assert line.mae == pytest.approx((0.19, np.std([0.2, 0.18], ddof=1)))
    assert line.bias == pytest.approx((0.11, np.std([0.1, 0.12], ddof=1)))


def test_the_table_has_signs_and_no_negative_zero():
    text = debias.table(debias.summarise([judged(DFT, -1e-9), judged("x", -0.25)]), "eV/atom")
    assert "bias (eV/atom)" in text and "+0.000" in text and "−0.250" in text


def test_one_seed_has_no_deviation():
    lines = debias.summarise([one for one in ALL if one.seed == 0])
    assert "±" in debias.table(debias.summarise(ALL), "eV")
    assert "±" not in debias.table(lines, "eV")
    assert debias.as_json(lines, ALL)[0]["mae_deviation"] is None


def test_the_record_has_every_seed():
    entry = debias.as_json(debias.summarise(ALL), ALL)[0]
    assert entry["seeds"]["1"] == pytest.approx({"mae": 0.18, "bias": 0.12, "n_test": 2})


def test_the_picture_and_the_values_are_written(tmp_path):
    about = {"property": "formation energy", "unit": "eV/atom", "data": "toys"}
    debias.draw(ALL, tmp_path / "debias.png", student="cgcnn", **about)
    assert (tmp_path / "debias.png").stat().st_size > 10_000
    debias.write_said(ALL, tmp_path / "said.csv")
    lines = (tmp_path / "said.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(ALL) and lines[1] == "0.2,0,DFT,a,-1,-0.7"
