"""Every finding of a check, on crystals of which it is known."""

import csv
import dataclasses
import itertools
import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

import crysgnn_jax as cg
from crysgnn_jax.commands import check as command
from crysgnn_jax.commands import cli
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.reporting.check import by_reason, modified_z_scores
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.shipped import seen
from toys import caesium_chloride, collection, fcc, random_crystal, rocksalt


def crystals():
    """40 ordinary ones, and one for each finding."""
    plain = [
        dataclasses.replace(one, labels={**one.labels, "constant": 1.0, "decades": 10.0 ** (k % 4)})
        for k, one in enumerate(collection(40))
    ]
    third = plain[3]
    shifted = third.frac_coords[None] + np.array([[0, 0, 0], [1, 0, 0]])[:, None]
    twin = Crystal(
        "twin",
        np.tile(third.species, 2),
        shifted.reshape(-1, 3) / [2, 1, 1],
        third.lattice * [[2], [1], [1]],
        {"energy": third.labels["energy"] + 0.5},
    )
    far = random_crystal(4, seed=90, id="far", labels={"energy": 1000.0})
    crushed = Crystal("crushed", [11, 17], [[0, 0, 0], [0.01, 0, 0]], 4.0 * np.eye(3))
    xenon = fcc(a=6.2, species=54, id="xenon", labels={"energy": 1.5})
    roomy = Crystal("roomy", [11], [[0, 0, 0]], 12.0 * np.eye(3))
    return [*plain, twin, far, crushed, xenon, roomy]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("check")
    write_table(path / "t.npz", crystals())
    return path


@pytest.fixture(scope="module")
def found(folder):
    return cg.check(folder / "t.npz", cache=folder / "cache")


def label(found, name):
    return next(one for one in found.labels if one.name == name)


def test_a_bad_crystal_is_counted_and_told(found):
    assert found.n == 44
    assert [id for id, _ in found.skipped] == ["crushed"]
    assert "1 skipped" in str(found)


def test_a_label_has_its_numbers(found):
    energy = label(found, "energy")
    assert (energy.n, energy.missing) == (43, 1)
    assert energy.high == 1000.0 and sum(energy.counts) == 43
    values = [c.labels["energy"] for c in crystals() if "energy" in c.labels]
    assert energy.median == pytest.approx(np.median(values), rel=1e-6)


def test_an_outlier_is_named_first(found):
    assert label(found, "energy").outliers[0].id == "far"
    assert "far (1000)" in str(found)


def test_a_label_over_decades_is_judged_by_its_logarithm(found):
    decades = label(found, "decades")
    assert decades.spans_decades and not decades.outliers
    assert any("decades: positive, and over two decades" in line for line in found.advice)


def test_a_constant_label_is_nothing_to_learn(found):
    assert label(found, "constant").is_constant
    assert "constant is 1 everywhere: there is nothing to learn" in found.advice


def test_a_supercell_is_the_same_structure_and_tells_how_far_labels_are_apart(found):
    (group,) = found.duplicates
    assert group.ids == ["c3", "twin"]
    assert group.spread["energy"] == pytest.approx(0.5, rel=1e-5)
    assert any("1 crystal repeats another" in line for line in found.advice)


def test_crystals_of_one_formula_are_counted(found):
    same = {id for group in found.formulas for id in group.ids}
    assert {"c3", "twin"} <= same and found.n_repeated == len(same)


def test_what_the_teacher_hardly_knows_is_named(found):
    assert found.hardly_seen[54] == seen(TEACHER).elements[54] == 140
    strange = {(one.id, one.what) for one in found.strange}
    assert {("xenon", "element"), ("roomy", "volume per atom")} <= strange
    assert any("hardly knows" in line and "Xe" in line for line in found.advice)


def test_too_few_to_test_on_is_said(found):
    assert any("80/10/10 % of 43 crystals leaves 4 to test on" in line for line in found.advice)


def test_one_label_alone(folder):
    only = cg.check(folder / "t.npz", "constant", cache=folder / "cache")
    assert [one.name for one in only.labels] == ["constant"]
    with pytest.raises(cg.UserError, match="has no 'gap' among its labels"):
        cg.check(folder / "t.npz", "gap", cache=folder / "cache")


def test_good_crystals_get_no_advice(tmp_path):
    metals, others = (3, 11, 12, 19, 20, 25, 26, 27, 28, 29), (5, 6, 7, 8, 9, 14, 15, 16, 17, 35)
    values = np.random.default_rng(0).normal(size=100).clip(-2, 2)
    many = [
        caesium_chloride(a=3.5, species=(x, y), id=f"{x}-{y}", labels={"energy": values[k]})
        for k, (x, y) in enumerate(itertools.product(metals, others))
    ]
    found = cg.check(cg.crystal_list(many), cache=tmp_path)
    assert found.advice == ["nothing speaks against training on these crystals"]


def test_what_others_have_too_is_told_by_id_and_formula(tmp_path):
    write_table(tmp_path / "a.npz", [rocksalt(id="x"), fcc(id="y"), caesium_chloride(id="z")])
    write_table(tmp_path / "b.npz", [rocksalt(a=5.9, id="other"), fcc(id="y")])
    found = cg.check(tmp_path / "a.npz", against=tmp_path / "b.npz", cache=tmp_path)
    assert found.overlap.ids == {"all": ["y"]} and found.overlap.formulas == ["x", "y"]
    assert "1 of 3 crystals are there by id, 2 by reduced formula" in " ".join(str(found).split())


def test_what_a_run_has_learned_from_is_told(tmp_path):
    write_table(tmp_path / "a.npz", [rocksalt(id="x"), fcc(id="y"), caesium_chloride(id="z")])
    sides = {"train": ["x", "elsewhere"], "validation": [], "test": ["z"]}
    (tmp_path / "splits.json").write_text(json.dumps(sides))
    for other in (tmp_path, tmp_path / "splits.json"):
        found = cg.check(tmp_path / "a.npz", against=other, cache=tmp_path / "cache")
        assert found.overlap.ids == {"train": ["x"], "validation": [], "test": ["z"]}
    (tmp_path / "splits.json").write_text("[1]")
    with pytest.raises(cg.UserError, match="not a splits.json"):
        cg.check(tmp_path / "a.npz", against=tmp_path, cache=tmp_path / "cache")


def test_without_labels_there_is_still_something_to_do(tmp_path):
    found = cg.check([rocksalt()], cache=tmp_path)
    assert found.labels == [] and found.advice[0].startswith("there is no label to learn")


def test_files_hold_all_that_was_found(folder, capsys):
    out = folder / "findings"
    flags = ["--cache", str(folder / "cache"), "--workers", "1", "--output", str(out)]
    cli.call(command, [str(folder / "t.npz"), *flags])
    assert "what to do" in capsys.readouterr().out
    names = {"check.json", "skipped.csv", "outliers.csv", "duplicates.csv", "check.png"}
    assert {file.name for file in out.iterdir()} == names
    told = json.loads((out / "check.json").read_text())
    assert told["n_crystals"] == 44 and told["n_duplicates"] == 1
    assert told["crystals_by_element"]["Xe"] >= 1
    with open(out / "outliers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["id"] == "far" and float(rows[0]["score"]) > 3.5
    with open(out / "duplicates.csv", newline="") as file:
        pairs = [row["id"] for row in csv.DictReader(file) if row["kind"] == "structure"]
    assert pairs == ["c3", "twin"]


def test_a_folder_of_cifs_with_a_broken_one(tmp_path, capsys):
    for k, a in enumerate((5.5, 5.9)):
        one = rocksalt(a=a)
        atoms = Atoms(one.species, cell=one.lattice, pbc=True, scaled_positions=one.frac_coords)
        write(tmp_path / f"{k}.cif", atoms)
    (tmp_path / "broken.cif").write_text("data_broken\n_cell_length_a 3\n")
    cli.call(command, [str(tmp_path), "--cache", str(tmp_path / "cache"), "--workers", "1"])
    text = " ".join(capsys.readouterr().out.split())  # lines end where the folder's name lets them
    assert "2 crystals read, 1 skipped" in text and "skipped: 1 ×" in text


def test_nothing_to_read_is_told(tmp_path):
    with pytest.raises(cg.UserError, match="there is nothing to read"):
        cli.call(command, [])


def test_scores_are_those_worked_out_by_hand():
    # Median 3.5; above it 0.5, 1.5 and 96.5 away, of which the middle is 1.5.
    scores = modified_z_scores(np.array([1.0, 2, 3, 4, 5, 100]))
    assert scores[5] == pytest.approx(0.6745 * 96.5 / 1.5)
    assert scores[0] == pytest.approx(0.6745 * 2.5 / 1.5)


def test_a_long_tail_on_one_side_is_measured_by_itself():
    values = np.concatenate([np.zeros(50), np.linspace(1, 3, 40)])
    assert modified_z_scores(values).max() < 3.5


def test_mostly_one_value_has_no_scores():
    assert not modified_z_scores(np.array([0.0] * 20 + [5.0])).any()


def test_reasons_are_counted_without_what_is_of_one_crystal():
    entries = [("a", "the cell has 0.1 Å³ for 2 atoms"), ("b", "the cell has 0.3 Å³ for 4 atoms")]
    assert by_reason(entries) == [("the cell has … Å³ for … atoms", 2)]


def test_what_the_teacher_has_seen_is_known():
    known = seen(TEACHER)
    assert known.n_crystals == 151_280
    assert known.elements[8] == max(known.elements.values())
    assert known.n_atoms[0.5] == 18 and known.volume_per_atom[0.01] < 10
    with pytest.raises(cg.UserError, match="is not known; it is of crysgnn-mp"):
        seen("crysgnn-mp-cgcnn")
