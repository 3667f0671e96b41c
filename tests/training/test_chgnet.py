"""CHGNet as the teacher: a stand-in of its interface where it is not installed, and itself."""

import importlib
import json
import sys

import numpy as np
import pytest

from crysgnn_jax.commands import compare, distill
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.registry import find_network
from crysgnn_jax.training import lesson
from crysgnn_jax.training.chgnet import CHGNetTeacher
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.settings import UntaggedSettings
from toy_runs import run
from toys import caesium_chloride, collection, fcc, perovskite, random_crystal, rocksalt

STAND_IN = '''
"""What is used of chgnet: atom features that tell element and place, but none of helium."""
import numpy as np


class CHGNet:
    version = "0.0.1"
    n_seen = 0

    @classmethod
    def load(cls, verbose=True):
        print("CHGNet initialized")
        return cls()

    def graph_converter(self, structure, graph_id=None):
        if set(structure.atomic_numbers) == {2}:
            raise ValueError(f"Structure {graph_id} has isolated atoms")
        return structure

    def predict_graph(self, graphs, task, return_atom_feas, batch_size):
        assert task == "e" and return_atom_feas and len(graphs) <= batch_size
        type(self).n_seen += len(graphs)
        found = [
            {
                "atom_fea": np.concatenate(
                    [np.sin(np.outer(graph.atomic_numbers, np.arange(61))), graph.frac_coords], 1
                ).astype(np.float32)
            }
            for graph in graphs
        ]
        return found[0] if len(found) == 1 else found
'''
SHORT = ("--epochs", "1", "--batch-size", "12", "--teacher", "chgnet")


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "chgnet"]:
        del sys.modules[name]


@pytest.fixture
def stand_in(tmp_path_factory, monkeypatch):
    pytest.importorskip("pymatgen.core")
    folder = tmp_path_factory.mktemp("packages")
    (folder / "chgnet").mkdir()
    (folder / "chgnet/__init__.py").write_text('__version__ = "0.0.2"\n')
    (folder / "chgnet/model.py").write_text(STAND_IN)
    forget()
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("chgnet.model").CHGNet
    forget()


@pytest.fixture
def here(tmp_path, stand_in):
    write_table(tmp_path / "toys.npz", collection(24))
    return tmp_path


def store_of(crystals, path):
    return build_store(crystal_list(crystals), FeaturiserSettings(), cache_dir=path, workers=1)


def test_it_needs_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"chgnet.*pip install 'crysgnn-jax\[chgnet\]'"):
        lesson.load_teacher("chgnet")


def test_features_are_those_of_each_atom_in_the_order_of_its_file(stand_in, tmp_path, capsys):
    # More than are seen at once, and one alone at the end.
    crystals = [random_crystal(n + 1, seed=n, id=f"c{n}") for n in range(17)]
    store = store_of(crystals, tmp_path)
    found = CHGNetTeacher.load().embeddings(store)
    assert found.shape == (sum(range(18)), 64) and found.dtype == np.float32
    coords = np.concatenate([crystal.frac_coords for crystal in crystals])
    np.testing.assert_allclose(found[:, 61:], coords, atol=1e-6)
    assert capsys.readouterr().out == ""


def test_features_are_kept_under_the_version_of_the_package(stand_in, tmp_path):
    store = store_of(collection(3), tmp_path)
    first = CHGNetTeacher.load()
    first.embeddings(store)
    CHGNetTeacher.load().embeddings(store)
    assert stand_in.n_seen == 3
    sys.modules["chgnet"].__version__ = "0.0.3"
    second = CHGNetTeacher.load()
    second.embeddings(store)
    assert stand_in.n_seen == 6
    kept = {file.stem for file in (store.path / "embeddings").glob("*.npy")}
    assert kept == {first.fingerprint, second.fingerprint}


def test_crystals_that_it_cannot_take_are_named(stand_in, tmp_path, caplog):
    crystals = [rocksalt(), fcc(species=2, id="helium"), fcc(species=97, id="berkelium")]
    store = store_of(crystals, tmp_path)
    found = CHGNetTeacher.load().embeddings(store)
    assert np.isfinite(found[:8]).all() and np.isnan(found[8:]).all()
    *reasons, last = caplog.messages
    assert reasons == [
        "chgnet cannot take helium: Structure helium has isolated atoms",
        "chgnet cannot take berkelium: it has atomic number 97, beyond 94",
    ]
    assert "2 of 3 crystals, and does not pull on them: helium, berkelium" in last
    with pytest.raises(UserError, match="chgnet can take no crystal of"):
        CHGNetTeacher.load().embeddings(store_of(crystals[1:], tmp_path))


def test_a_student_follows_it_and_is_distilled_also_beside_crystals_it_cannot_take(
    here, stand_in, caplog
):
    strange = [fcc(species=2, id=f"he{n}", labels={"energy": 1.0 + n}) for n in range(8)]
    write_table(here / "toys.npz", [*collection(24), *strange])
    write_table(here / "more.npz", collection(40)[24:])
    student = ("--student", "cgcnn", "--set", "n_convolutions=1", "--weight", "0.5")
    flags = (*SHORT, *student, "--unlabelled", here / "more.npz")
    run(distill, here, *flags, "--untagged-epochs", "1", "--workdir", here / "run")
    result = json.loads((here / "run/result.json").read_text())
    assert result["n_train"] == 26 and np.isfinite(result["test_mae"])
    assert np.isfinite(result["start"]["validation_loss"])
    assert stand_in.n_seen == 40
    assert any("knows those labels" in line for line in caplog.messages)
    config = json.loads((here / "run/config.json").read_text())
    assert config["made_with"]["teacher"] == CHGNetTeacher.load().fingerprint


def test_without_other_crystals_a_student_follows_it_on_the_bundled_ones(here, monkeypatch):
    few = crystal_list(collection(30)[24:])
    monkeypatch.setattr(lesson, "read", lambda name: {"bundled": few}[name])
    build = lambda source, settings: build_store(source, settings, cache_dir=here / "cache")
    found = lesson.prepare(
        lesson.Student("cgcnn", find_network("cgcnn")), crystal_list(collection(24)), "energy",
        build, Devices(1), teacher=lesson.load_teacher("chgnet"), pull="standardised",
        untagged=UntaggedSettings(), quiet=True,
    )  # fmt: skip
    assert len(found.unlabelled) == 6 and found.untagged.untagged_epochs is None
    assert found.embeddings.shape == (found.store.n_nodes.sum(), 64)


def test_it_cannot_be_tuned(here):
    with pytest.raises(UserError, match="embeddings cannot be tuned"):
        run(compare, here, "--teacher", "chgnet", "--finetune", "--workdir", here / "table")


def test_the_features_are_those_of_chgnet_itself(tmp_path):
    pytest.importorskip("chgnet")
    from pymatgen.core import Structure

    crystals = [rocksalt(), caesium_chloride(), perovskite()]
    store = store_of(crystals, tmp_path)
    assert len(store.site_species) < len(store.species)  # reduced graphs are of fewer nodes
    teacher = CHGNetTeacher.load()
    found = teacher.embeddings(store)
    for crystal, first, last in zip(crystals, store.node_offsets, store.node_offsets[1:]):
        structure = Structure(crystal.lattice, crystal.species.tolist(), crystal.frac_coords)
        theirs = teacher.model.predict_structure(structure, return_atom_feas=True)["atom_fea"]
        np.testing.assert_allclose(found[first:last], theirs, atol=2e-5)
