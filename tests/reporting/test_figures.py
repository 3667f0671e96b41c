"""Pictures for print."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from crysgnn_jax.reporting import figures
from crysgnn_jax.reporting.records import Record
from made_runs import write_pretraining, write_run


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    out: list[Figure] = []
    save = figures.save
    monkeypatch.setattr(
        figures, "save", lambda figure, path: (out.append(figure), save(figure, path))
    )
    return out


def _texts(axis):
    return [line.get_label() for line in axis.lines]


def test_curves_have_words_units_and_the_mean_and_the_epoch_that_was_chosen(tmp_path, drawn):
    record = Record.read(write_run(tmp_path / "run", limit=1200))
    figures.loss_curves(record, tmp_path / "loss.png")
    (figure,) = drawn
    mae, loss = figure.axes
    assert (mae.get_ylabel(), mae.get_xlabel()) == ("mean absolute error (eV)", "epoch")
    assert _texts(mae) == ["train", "validation", "predicting the mean", "epoch chosen"]
    assert mae.lines[3].get_xdata()[0] == 4
    assert figure.get_suptitle() == "cgcnn vanilla, 1,200 crystals of my_cifs"
    assert figure.get_figwidth() == figures.PAGE
    letters = [t.get_fontsize() for t in mae.get_xticklabels() + [mae.yaxis.label]]
    assert min(letters) >= 7
    low, high = mae.get_ylim()
    assert low < mae.lines[2].get_ydata()[0] < high


def test_a_picture_is_a_png_of_300_dots_an_inch_and_an_svg(tmp_path):
    figures.loss_curves(Record.read(write_pretraining(tmp_path / "run")), tmp_path / "loss.png")
    png = (tmp_path / "loss.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    width = int.from_bytes(png[16:20])
    assert width == 300 * figures.PAGE
    assert b"<svg" in (tmp_path / "loss.svg").read_bytes()


def test_many_points_do_not_make_a_large_svg(tmp_path):
    x = np.random.default_rng(0).normal(size=30_000)
    figures.parity(
        x, x + 0.1, tmp_path / "parity.png", property="band_gap", unit="eV", of_mean=1.0, title="x"
    )
    assert (tmp_path / "parity.svg").stat().st_size < 400_000


def test_one_crystal_can_be_drawn(tmp_path):
    figures.parity(
        np.ones(1), np.ones(1), tmp_path / "one.png", property="x", unit="", of_mean=0.0, title=""
    )
    assert (tmp_path / "one.png").exists()


def test_weights_that_are_alike_are_not_ranked(tmp_path):
    alike = [("group", 1.0), ("period", 0.995), ("block", 0.992)]
    assert not figures.ranking(alike, tmp_path / "explanation.png", label="weight", title="x")
    assert not list(tmp_path.iterdir())


def test_a_ranking_shows_how_far_weights_are_from_their_mean(tmp_path, drawn):
    ranked = [("valence_electrons", 1.2), ("block", 0.8)]
    assert figures.ranking(ranked, tmp_path / "explanation.png", label="weight", title="x")
    axis = drawn[0].axes[0]
    assert [round(bar.get_width(), 9) for bar in axis.patches] == [-20.0, 20.0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["block", "valence electrons"]
