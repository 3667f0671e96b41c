"""The networks that come with the package."""

import json

import jax
import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.commands import cli, distill
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.training import shipped
from crysgnn_jax.training.catalogue import described
from crysgnn_jax.training.run import name_of_leaf
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.workdir import read_made_with
from toys import collection, fcc, rocksalt

FOLDERS = shipped.folders()


PREDICTORS = ("formation_energy", "band_gap", "bulk_modulus", "shear_modulus")


def test_all_are_there_and_small():
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.iterdir()) for folder in FOLDERS
    }
    assert sizes.keys() >= {TEACHER, f"{TEACHER}-cgcnn", *PREDICTORS}
    assert sum(sizes[name] for name in (TEACHER, *PREDICTORS)) < 3e6


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors_have_a_card_and_are_tested_where_no_formula_was_seen(name):
    entry = described(name)
    assert entry.licence == "CC-BY 4.0" and entry.card["not_for"] and entry.card["cite"]
    model = cg.load(name)
    assert model.result["n_test"] > 500
    assert model.result["test_mae"] < 0.4 * model.result["test_mae_of_mean"]
    made_with = read_made_with(model.path)
    assert made_with["teacher"] == cg.load(TEACHER).fingerprint
    assert "/" not in str(made_with["data"]) + made_with["split"]["rule"]


def test_a_predictor_tells_rock_salt_from_copper(tmp_path):
    """Against experiment: NaCl is −411 kJ/mol (JANAF), −2.13 eV/atom, and copper is an element."""
    crystals = crystal_list([rocksalt(), fcc(a=3.61, species=29, id="Cu")])
    found = cg.load("formation_energy").predict(crystals, cache=tmp_path)
    assert found.values == pytest.approx([-2.13, 0.0], abs=0.2)
    assert (found.low < found.values).all() and found.nearest.ids.shape == (2, 1)
    gap = cg.load("band_gap").predict(crystals, cache=tmp_path).values
    assert gap[0] > 3 and gap[1] < 0.5


@pytest.mark.parametrize(
    "folder",
    [folder for folder in FOLDERS if folder.name not in PREDICTORS],
    ids=lambda folder: folder.name,
)
def test_each_is_found_by_name_and_tells_no_path(folder):
    model = cg.load(folder.name)
    assert model.property is None and model.path == folder
    made_with = read_made_with(folder)
    assert all("/" not in name for name in made_with["data"])
    if folder.name != TEACHER:
        assert made_with["teacher"] == cg.load(TEACHER).fingerprint
        # All but the head has been trained.
        assert all("convolution" not in name for name in model.result["untouched"])


def test_the_teacher_knows_what_is_natural(tmp_path):
    """Rock salt at its own distances and stretched by a tenth are far apart, beside a shift of a
    thousandth; and embeddings are those of the weights, whatever order the atoms are in."""
    teacher = cg.load(TEACHER)
    crystals = [rocksalt(a=a, id=str(a)) for a in (5.64, 5.646, 6.2)]
    found = teacher.embed(crystal_list(crystals), cache=tmp_path)
    assert found.crystals.shape == (3, 64) and np.isfinite(found.atoms).all()
    near, far = (np.linalg.norm(found.crystals[k] - found.crystals[0]) for k in (1, 2))
    assert far > 10 * near


def test_a_folder_of_the_same_name_is_taken_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / TEACHER).mkdir()
    with pytest.raises(cg.UserError, match="no trained model there"):
        cg.load(TEACHER)


def test_weights_are_written_and_read_as_they_are(tmp_path):
    tree = {"params": {"a": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}},
            "batch_stats": {"n": {"mean": np.float32([1.5])}}}  # fmt: skip
    shipped.write_weights(tmp_path / "w.npz", tree)
    found = shipped.read_weights(tmp_path / "w.npz")
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, found, tree)
    whole = (tmp_path / "w.npz").read_bytes()
    for damaged in (b"PK", whole[:-100]):
        (tmp_path / "w.npz").write_bytes(damaged)
        with pytest.raises(cg.UserError, match=r"w.npz is damaged .*; install the package again"):
            shipped.read_weights(tmp_path / "w.npz")


def test_distillation_without_a_flag_takes_both(tmp_path):
    """No teacher, no crystals without labels, no untagged stage: what comes with the package."""
    write_table(tmp_path / "toys.npz", collection(24))
    cli.call(
        distill,
        ["--student", "cgcnn", "--data", str(tmp_path / "toys.npz"), "--workdir",
         str(tmp_path / "run"), "--epochs", "1", "--learning-rate", "1e-30", "--devices", "1",
         "--cache", str(tmp_path / "cache"), "--workers", "1"],
    )  # fmt: skip
    result = json.loads((tmp_path / "run/distilled/result.json").read_text())
    assert result["start"]["from"] == f"{TEACHER}-cgcnn" and result["weight"] == 0.1
    assert not (tmp_path / "cache" / "starts").exists()
    start = cg.load(f"{TEACHER}-cgcnn").variables["params"]
    model = cg.load(tmp_path / "run/distilled").variables["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(start):
        if "convolution" in name_of_leaf(path):
            same = dict(jax.tree_util.tree_leaves_with_path(model))[path]
            np.testing.assert_array_equal(leaf, same)
