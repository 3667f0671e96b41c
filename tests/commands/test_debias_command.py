"""Adapting to measured values that are DFT's and 0.3 more."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest
from toy_student import Composition

import crysgnn_jax as cg
import toy_runs
from crysgnn_jax.commands import cli, debias
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.training.predictor import start_of
from toys import collection

FLAGS = (
    *("--dft-column", "energy", "--experiment-column", "measured", "--experiment"),
    "measured.csv",
    *("--fractions", "0.5", "--seeds", "0", "--untagged-epochs", "0"),
    *("--epochs", "25", "--adapt-epochs", "25", "--learning-rate", "0.02", "--limit", "40"),
    *("--students", "toy_student:Composition"),
)


def run(folder, *more):
    toy_runs.run(debias, folder, *FLAGS, "--workdir", folder / "run", *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run on 40 crystals with a DFT value and 40 that were measured too."""
    path = tmp_path_factory.mktemp("debias")
    write_table(path / "toys.npz", collection(84))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        with open("measured.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "measured"])
            for one in collection(84)[:40]:
                writer.writerow([one.id, one.labels["energy"] + 0.3])
        run(path, "--record", path / "record.json")
    return path


def lines(folder):
    told = json.loads((folder / "run" / "debias.json").read_text())
    return told, {line["method"]: line for line in told["lines"]}


def test_dft_is_off_by_what_it_is_off_and_the_straight_line_is_exact(folder):
    told, found = lines(folder)
    assert told["n_compounds"] == 40 and told["formulas"] == "disjoint"
    assert found["DFT"]["mae"] == pytest.approx(0.3, abs=1e-5)
    assert found["DFT"]["bias"] == pytest.approx(-0.3, abs=1e-5)
    assert found["DFT, straight line"]["mae"] == pytest.approx(0, abs=1e-5)


def test_adaptation_takes_bias_away(folder):
    _, found = lines(folder)
    for name in ("Composition vanilla", "Composition distilled"):
        before, after = found[name], found[f"{name}, adapted"]
        assert before["bias"] < -0.1
        assert abs(after["bias"]) < abs(before["bias"])
        assert after["n_test"] == before["n_test"] == found["DFT"]["n_test"] == 20


def test_the_adapted_run_keeps_the_scale_of_what_it_started_from(folder):
    results = [
        json.loads((folder / "run" / name / "result.json").read_text())
        for name in ("Composition-vanilla-0", "Composition-vanilla-0-adapted-50")
    ]
    assert results[0]["target_mean"] == results[1]["target_mean"]
    assert results[1]["start"]["from"] == "Composition-vanilla-0"
    assert not results[1]["distilled"]


def test_what_goes_on_begins_with_its_own_predictions(folder):
    network = cg.Network(Composition)
    model = cg.load(folder / "run" / "Composition-vanilla-0", network=network)
    start = start_of(model)
    begun = start.begin(jax.tree.map(np.zeros_like, model.variables))
    for ours, theirs in zip(jax.tree.leaves(begun), jax.tree.leaves(model.variables)):
        np.testing.assert_array_equal(ours, theirs)
    assert start.standardiser == model.standardiser


def test_files_and_record_are_there(folder):
    assert (folder / "run" / "debias.png").stat().st_size > 10_000
    record = json.loads((folder / "record.json").read_text())
    assert set(record["runs"]) == {
        f"Composition-{variant}-0{stage}"
        for variant in ("vanilla", "distilled")
        for stage in ("", "-adapted-50")
    }


def test_given_again_the_runs_are_found(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    run(folder)
    out = capsys.readouterr()
    assert out.err.count("holds a finished run") == 4
    assert "DFT, straight line" in out.out


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("measured", "--experiment-column measured: is that of --dft-column too"),
        ("gap", "--dft-column gap: .* has measured, energy"),
        (None, "no crystal has both"),
    ],
)
def test_columns_that_are_not_there_are_told(tmp_path, column, said):
    some = collection(4)
    some[0] = dataclasses.replace(some[0], labels={"measured": 1.0})
    write_table(tmp_path / "toys.npz", some)
    flags = ("--dft-column", column or "energy", "--experiment-column", "measured")
    with pytest.raises(UserError, match=said):
        toy_runs.run(debias, tmp_path, *flags, "--workdir", tmp_path / "run")


def test_two_students_of_one_name_are_refused():
    with pytest.raises(UserError, match="--students a:Net b:Net: two have the same name"):
        cli.call(
            debias,
            ["--data", "x", "--dft-column", "a", "--experiment-column", "b", "--students", "a:Net",
             "b:Net"],
        )  # fmt: skip
