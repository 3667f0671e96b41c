"""What a network keeps of its training crystals, and what is said by it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.array_files import read_arrays
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.training import reference as module
from crysgnn_jax.training import shipped
from crysgnn_jax.training.predictions import Predictions, table
from crysgnn_jax.training.reference import Reference
from toys import collection, fcc, random_crystal, rocksalt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference")
    write_table(path / "toys.npz", collection(48))
    return path


def trained(folder, name, seed):
    return cg.train(
        "cgcnn",
        folder / "toys.npz",
        workdir=folder / name,
        model={"width": 8},
        epochs=1,
        seed=seed,
        cache=folder / "cache",
        devices=1,
        quiet=True,
    )


@pytest.fixture(scope="module")
def model(folder):
    return trained(folder, "run", 0)


def predict(model, folder, crystals, **how):
    return model.predict(crystals, cache=folder / "cache", devices=1, **how)


def test_a_training_crystal_is_nearest_to_itself_in_any_cell(model, folder):
    by_id = {crystal.id: crystal for crystal in collection(48)}
    id = str(model.reference.ids[0])
    one = by_id[id]
    double = Crystal(
        "double",
        np.tile(one.species, 2),
        np.concatenate([one.frac_coords, one.frac_coords + [1, 0, 0]]) / [2, 1, 1],
        one.lattice * [[2], [1], [1]],
    )
    found = predict(model, folder, [one, double], n_nearest=3)
    assert found.nearest.ids[:, 0].tolist() == [id, id]
    assert found.nearest.ids.shape == (2, 3)
    assert found.nearest.targets[0, 0] == pytest.approx(one.labels["energy"], rel=1e-6)
    # As near as 127 steps along each axis let it be.
    assert (found.nearest.distances[:, 0] < 0.05).all()
    assert (np.diff(found.nearest.distances, axis=1) >= 0).all()


def test_two_training_crystals_are_about_as_far_apart_as_said(model):
    kept = model.reference.coordinates * model.reference.steps
    between = np.linalg.norm(kept[:, None] - kept[None], axis=2)
    assert np.sqrt(np.mean(between**2)) == pytest.approx(np.sqrt(2), rel=0.1)


def test_what_training_never_held_is_said_of_each_crystal(model, folder):
    seen = set(np.flatnonzero(model.reference.elements).tolist())
    unseen = next(number for number in range(1, 90) if number not in seen)
    known = next(number for number in seen if 20 < number < 90)
    crystals = [
        fcc(species=unseen, id="unseen", a=4.0),
        random_crystal(64),
        fcc(species=known, id="dilute", a=9.0),
    ]
    found = predict(model, folder, crystals)
    assert f"no training crystal holds {SYMBOLS[unseen]}" in found.warnings[0]
    assert f"64 atoms, in training {model.reference.most_atoms} at most" in found.warnings[1]
    assert "182 Å³ an atom" in found.warnings[2]
    assert "3 crystals are unlike those of training" in found.notes()[-1]


def test_a_perfect_supercell_is_what_its_cell_is(model, folder):
    cell = rocksalt()
    supercell = dataclasses.replace(
        cell,
        id="supercell",
        species=np.tile(cell.species, 8),
        frac_coords=np.concatenate(
            [(cell.frac_coords + [i, j, k]) / 2 for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        ),
        lattice=2 * cell.lattice,
    )
    assert len(supercell.species) > model.reference.most_atoms > len(cell.species)
    found = predict(model, folder, [cell, supercell])
    assert "atoms, in training" not in "".join(found.warnings)


def test_a_crystal_of_the_training_set_is_not_strange(model, folder):
    chosen = [c for c in collection(48) if c.id in set(model.reference.ids.tolist())][:5]
    assert predict(model, folder, chosen).warnings == [""] * 5


def test_intervals_are_those_of_the_validation_errors(model, folder):
    reference = model.reference
    assert len(reference.validation_ids) < 9  # too few for 9 in 10
    assert predict(model, folder, [fcc()]).low is None
    found = predict(model, folder, [fcc()], level=0.5)
    off = np.abs(reference.validation_targets - reference.validation_predictions)
    width = np.sort(off)[int(np.ceil((len(off) + 1) / 2)) - 1]
    assert found.high - found.values == pytest.approx(width)
    assert found.values - found.low == pytest.approx(width)


def test_many_training_crystals_are_a_sample(monkeypatch):
    monkeypatch.setattr(module, "N_KEPT", 5)
    chosen = module.kept(np.arange(100, 120))
    assert len(chosen) == 5 and set(chosen) < set(range(100, 120))
    assert np.array_equal(chosen, module.kept(np.arange(100, 120)))


def test_a_damaged_file_is_told_in_a_line(model, tmp_path):
    content = (model.path / "reference.npz").read_bytes()
    (tmp_path / "reference.npz").write_bytes(content[:-200])
    with pytest.raises(cg.UserError, match="reference.npz is damaged .*; delete it"):
        Reference.load(tmp_path / "reference.npz")


def test_a_damaged_file_is_found_before_graphs_are_made(model, tmp_path, monkeypatch):
    shutil.copytree(model.path, tmp_path / "run")
    content = (model.path / "reference.npz").read_bytes()
    (tmp_path / "run" / "reference.npz").write_bytes(content[:-200])
    damaged = cg.load(tmp_path / "run")
    with pytest.raises(cg.UserError, match="reference.npz is damaged"):
        damaged.predict([rocksalt()], cache=tmp_path / "cache")
    with pytest.raises(cg.UserError, match="reference.npz is damaged"):
        cg.Committee([damaged])
    assert not (tmp_path / "cache").exists()
    # Of what comes with the package, nothing can be trained again.
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(cg.UserError, match="is damaged .*; install the package again"):
        cg.load(tmp_path / "run").predict([rocksalt()], cache=tmp_path / "cache")


def test_what_was_kept_by_an_earlier_version_is_read(model, tmp_path):
    arrays = dict(read_arrays(model.path / "reference.npz"))
    arrays["n_atoms"] = np.array([1, arrays.pop("most_atoms")])
    np.savez_compressed(tmp_path / "reference.npz", **arrays)
    assert Reference.load(tmp_path / "reference.npz").most_atoms == model.reference.most_atoms


def test_a_model_as_one_file_says_the_same(model, folder, tmp_path):
    model.export(tmp_path / "model.safetensors")
    crystals = collection(4, seed=90)
    (one, other) = (
        predict(found, folder, crystals, level=0.5)
        for found in (model, cg.load(tmp_path / "model.safetensors"))
    )
    assert one.columns().keys() == other.columns().keys()
    assert np.array_equal(one.low, other.low)
    assert np.array_equal(one.nearest.ids, other.nearest.ids)


def test_members_of_one_property_are_asked_together(model, folder):
    another = trained(folder, "ran", 1)
    committee = cg.load(str(folder / "r*n"))
    crystals = crystal_list(collection(6, seed=90))
    both = predict(committee, folder, crystals, level=0.5)
    one, other = (predict(member, folder, crystals, level=0.5) for member in (model, another))
    assert np.allclose(both.values, (one.values + other.values) / 2)
    apart = np.abs(one.values - other.values) / np.sqrt(2)
    assert both.uncertainty == pytest.approx(apart) and one.uncertainty is None
    assert list(both.columns()) == ["prediction", "unit", "uncertainty", *list(one.columns())[2:]]
    assert [member.path.name for member in committee.members] == ["ran", "run"]
    assert repr(committee) == "Committee('energy', 2 members)"
    for member in (model, another):
        member.export(folder / f"{member.path.name}.safetensors")
    (folder / "notes.md").touch()
    files = cg.load(str(folder / "*.*"))  # of which toys.npz and notes.md are no models
    assert [member.path.name for member in files.members] == ["ran.safetensors", "run.safetensors"]
    assert np.array_equal(predict(files, folder, crystals).values, both.values)
    with pytest.raises(cg.UserError, match="fits no finished run"):
        cg.load(str(folder / "cac*"))
    with pytest.raises(cg.UserError, match="fits nothing"):
        cg.load(str(folder / "nothing*"))


def test_a_network_and_its_copy_are_no_committee(model, folder):
    shutil.copytree(folder / "run", folder / "copy", dirs_exist_ok=True)
    with pytest.raises(cg.UserError, match="run and .*copy are the same network; name one"):
        cg.Committee([model, cg.load(folder / "copy")])


def test_a_table_of_several_properties_has_the_crystals_that_all_are_of():
    several = [
        Predictions(np.array(ids), np.array(values), name, "", [], np.array(ids))
        for name, ids, values in (("a", ["x", "y", "z"], [1, 2, 3]), ("b", ["z", "x"], [30, 10]))
    ]
    columns = table(several)
    assert columns["id"] == ["x", "z"] and columns["a"] == [1, 3] and columns["b"] == [10, 30]


def test_a_file_of_a_model_does_not_tell_where_things_lay(model, folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["made_with"]["split"]["rule"] = "/home/someone/splits.json"
    config["named"] = {"teacher": "/home/someone/teacher", "unlabelled": ["/home/someone/a.npz"]}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    cg.load(tmp_path / "run").export(tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    assert b"teacher" in content and b"splits.json" in content
    assert b"someone" not in content and str(folder).encode() not in content
