"""Predicting: sources, models, and what is written."""

import csv
import dataclasses
import errno
import io
import json
import shutil
import sys

import ase.io
import numpy as np
import pytest
from ase.build import bulk

import crysgnn_jax as cg
from crysgnn_jax.commands import cli, models, predict
from crysgnn_jax.crystals.readers.standard_input import spool
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.reporting import prediction_files
from toys import collection

NAMES = ["BaTiO3", "Cu2O", "NaCl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("predict")
    write_table(path / "toys.npz", collection(48))
    for name, settings in (("a", {"seed": 0}), ("b", {"seed": 1})):
        cg.train(
            "cgcnn",
            path / "toys.npz",
            workdir=path / "runs" / name,
            model={"width": 8},
            epochs=1,
            cache=path / "cache",
            devices=1,
            quiet=True,
            **settings,
        )
    # The same network, said to predict another property.
    shutil.copytree(path / "runs" / "a", path / "gap")
    result = json.loads((path / "gap" / "result.json").read_text())
    (path / "gap" / "result.json").write_text(
        json.dumps({**result, "property": "band_gap", "unit": "eV"})
    )
    crystals = path / "crystals"
    crystals.mkdir()
    for name, kind in (("NaCl", "rocksalt"), ("Cu2O", "fcc"), ("BaTiO3", "bcc")):
        atoms = bulk("NaCl", kind, 5.6) if kind == "rocksalt" else bulk("Cu", kind, 3.6)
        atoms.write(crystals / f"{name}.cif")
    return path


def call(folder, *flags):
    cli.call(
        predict,
        [*map(str, flags), "--cache", str(folder / "cache"), "--workers", "1", "--devices", "1"],
    )


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_table_is_printed_and_what_it_rests_on_is_told(folder, capsys):
    call(folder, "--model", folder / "runs" / "a", folder / "crystals", "--level", "0.5")
    out, err = capsys.readouterr()
    rows = rows_of(out)
    assert [row["id"] for row in rows] == NAMES
    assert list(rows[0]) == [
        *("id", "formula", "prediction", "unit", "low", "high"),
        *("nearest", "nearest_value", "distance", "warning"),
    ]
    assert rows[2]["formula"] == "NaCl"
    found = cg.load(folder / "runs" / "a").predict(
        folder / "crystals", cache=folder / "cache", devices=1
    )
    assert [float(row["prediction"]) for row in rows] == pytest.approx(found.values, rel=1e-6)
    assert all(float(r["low"]) < float(r["prediction"]) < float(r["high"]) for r in rows)
    assert "3 predictions of energy" in err and "50 % intervals: ± " in err


def test_models_of_one_property_are_a_committee_and_others_are_columns(folder, capsys):
    call(
        *(folder, "--model", folder / "runs" / "*", "--model", folder / "gap"),
        *(folder / "crystals", "--nearest", "2"),
    )
    rows = rows_of(capsys.readouterr().out)
    members = [
        cg.load(folder / "runs" / name).predict(
            folder / "crystals", cache=folder / "cache", devices=1
        )
        for name in "ab"
    ]
    mean = np.mean([found.values for found in members], axis=0)
    assert [float(row["energy"]) for row in rows] == pytest.approx(mean, rel=1e-6)
    assert [float(row["band_gap"]) for row in rows] == pytest.approx(members[0].values, rel=1e-6)
    assert {row["band_gap_unit"] for row in rows} == {"eV"}
    assert all(float(row["energy_uncertainty"]) > 0 for row in rows)
    assert "band_gap_uncertainty" not in rows[0] and rows[0]["band_gap_nearest_2"]


def test_every_format_holds_the_same(folder, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    import pyarrow.parquet

    said = {}
    for suffix in (".csv", ".json", ".parquet", ".extxyz"):
        path = folder / f"out{suffix}"
        call(folder, "--model", folder / "runs" / "a", folder / "crystals", "--output", path)
        if suffix == ".csv":
            said[suffix] = [float(row["prediction"]) for row in rows_of(path.read_text())]
        elif suffix == ".json":
            content = json.loads(path.read_text())
            said[suffix] = [row["prediction"] for row in content["predictions"]]
            assert "too few" in content["notes"][0]
        elif suffix == ".parquet":
            said[suffix] = pyarrow.parquet.read_table(path)["prediction"].to_pylist()
        else:
            frames = ase.io.read(path, ":")
            said[suffix] = [atoms.info["prediction"] for atoms in frames]
            assert [atoms.info["id"] for atoms in frames] == NAMES
            assert frames[2].get_chemical_formula() == "ClNa" and frames[2].pbc.all()
    for values in said.values():
        assert values == pytest.approx(said[".json"], rel=1e-6)


def test_of_two_structures_with_one_id_that_which_was_predicted_is_written():
    crystals = [dataclasses.replace(crystal, id="same") for crystal in collection(2)]
    file = io.StringIO()
    prediction_files.write_extxyz(file, {"id": ["same"], "prediction": [1.0]}, crystals)
    (atoms,) = ase.io.read(io.StringIO(file.getvalue()), ":", format="extxyz")
    assert atoms.numbers.tolist() == crystals[0].species.tolist()


def test_a_bad_structure_is_listed_and_the_rest_is_predicted(folder, tmp_path, capsys):
    shutil.copytree(folder / "crystals", tmp_path / "crystals")
    (tmp_path / "crystals" / "broken.cif").write_text("data_x\n_cell_length_a 3\n")
    output = tmp_path / "out.csv"
    model = folder / "runs" / "a"
    call(folder, "--model", model, tmp_path / "crystals", "--output", output)
    assert [row["id"] for row in rows_of(output.read_text())] == NAMES
    assert [row["id"] for row in rows_of((tmp_path / "out.skipped.csv").read_text())] == ["broken"]
    assert not list(tmp_path.glob("*.tmp"))
    assert "1 crystal skipped, listed in" in capsys.readouterr().err
    # Given again without it, nothing says that one was skipped.
    call(folder, "--model", model, folder / "crystals", "--output", output)
    assert not (tmp_path / "out.skipped.csv").exists()


def test_an_output_is_named_when_it_is_there(folder, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(prediction_files.FORMATS, ".csv", ("w", fail))
    with pytest.raises(UserError, match="out.csv cannot be written .*make room"):
        call(
            *(folder, "--model", folder / "runs" / "a", folder / "crystals"),
            *("--output", tmp_path / "out.csv"),
        )
    assert "out.csv" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["cif", "extxyz", "vasp"])
def test_structures_can_be_piped_in(folder, capsys, monkeypatch, format):
    from crysgnn_jax.commands import data

    text = io.BytesIO() if format == "cif" else io.StringIO()
    ase.io.write(text, bulk("NaCl", "rocksalt", 5.6), format=format)
    content = text.getvalue() if format == "cif" else text.getvalue().encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    data._standard_input.cache_clear()
    call(folder, "--model", folder / "runs" / "a", "-")
    out, err = capsys.readouterr()
    assert rows_of(out)[0]["id"] == "stdin" and rows_of(out)[0]["formula"] == "NaCl"
    assert "standard input: 1 crystal" in err


@pytest.mark.parametrize(
    "content, message", [(b" \n", "nothing on standard input"), (b"hello there", "'hello there'")]
)
def test_what_is_no_structure_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        spool(io.BytesIO(content), tmp_path)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model", "runs/a", "--output", "out.txt"], "--output out.txt: name a file that ends"),
        (["--model", "nothing*"], "--model nothing.*fits nothing"),
        (["--model", "crysgnn-mp"], "predicts no property"),
        (["--model", "runs/a", "--cutoff", "5"], "cutoff"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(folder, monkeypatch, flags, message):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message):
        call(folder, *flags, "crystals")


def test_what_cannot_be_averaged_is_refused(folder):
    a, gap = (cg.load(path) for path in (folder / "runs" / "a", folder / "gap"))
    with pytest.raises(UserError, match="cannot be averaged"):
        cg.Committee([a, gap])


def test_of_a_wildcard_runs_that_are_not_finished_are_told(folder, capsys, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(folder / "runs" / name, tmp_path / name)
    (tmp_path / "b" / "result.json").unlink()
    call(folder, "--model", tmp_path / "*", folder / "crystals")
    told = capsys.readouterr().err
    assert f"1 run not finished, and not asked: {tmp_path / 'b'}\n" in told
    assert f"by {tmp_path / 'a'}\n" in told


def test_models_are_listed_with_their_errors(folder, capsys):
    cli.call(models, ["--runs", str(folder / "runs"), "--cache", str(folder / "cache")])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("crysgnn-mp ") for line in lines)
    (line,) = [line for line in lines if line.startswith(str(folder / "runs" / "a"))]
    mae = json.loads((folder / "runs" / "a" / "result.json").read_text())["test_mae"]
    assert "energy" in line and f"{mae:.4g}" in line
    cli.call(models, [str(folder / "gap")])
    assert "predicts: band_gap (eV)" in capsys.readouterr().out
    with pytest.raises(UserError, match="no trained network there; the package has .*crysgnn-mp"):
        cli.call(models, ["nothing"])
    with pytest.raises(UserError, match="runs holds several; name one of .*runs/a, "):
        cli.call(models, [str(folder / "runs")])
    with pytest.raises(UserError, match="--runs nowhere: no such folder"):
        cli.call(models, ["--runs", "nowhere"])


def test_a_model_is_shown_in_a_line():
    assert repr(cg.load("band_gap")) == "TrainedModel('band_gap': cgcnn, band_gap (eV))"
    assert repr(cg.load()) == "TrainedModel('crysgnn-mp': crysgnn, no property)"
