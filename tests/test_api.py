"""The package as Python users see it."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest
from ase.build import bulk

import crysgnn_jax as cg
from crysgnn_jax.crystals.table import write_table
from toys import collection

ROOT = Path(__file__).resolve().parents[1]


class Small(nn.Module):
    """A student that knows nothing of padding, equivalent atoms and devices."""

    width: int = 8

    @nn.compact
    def __call__(self, graph, train):
        batch = cg.Batch(graph)
        atoms = nn.Embed(101, self.width)(batch.species)
        messages = nn.Dense(self.width)(atoms)[batch.edges.senders]
        atoms = nn.silu(atoms + batch.edges.sum(messages / (1.0 + batch.distances[:, None])))
        return cg.Prediction(nn.Dense(1)(batch.mean_of_atoms(atoms))[:, 0], atoms)


SMALL = cg.Network(Small, cg.Needs(reduced=True), cg.Recipe(learning_rate=0.02, batch_size=8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("api")
    write_table(path / "toys.npz", collection(24))
    return path


@pytest.fixture(scope="module")
def here(folder):
    """What every call is given."""
    return {"cache": folder / "cache", "devices": 1, "quiet": True}


@pytest.fixture(scope="module")
def teacher(folder, here):
    model = {"width": 8, "n_convolutions": 1}
    return cg.pretrain(
        folder / "toys.npz",
        workdir=folder / "teacher",
        model=model,
        epochs=1,
        batch_size=12,
        **here,
    )


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, crysgnn_jax; print([m for m in ('jax', 'numpy', 'ase') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_type_checkers_see_is_what_is_there():
    tree = ast.parse((ROOT / "crysgnn_jax" / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {name.name: found.module for found in guarded.body for name in found.names}
    assert set(seen) == set(cg.__all__) - {"__version__"}
    for name, module in seen.items():
        assert getattr(cg, name) is getattr(sys.modules[module], name)
    with pytest.raises(AttributeError, match="no attribute 'destil'"):
        cg.destil  # noqa: B018


def test_everything_public_explains_itself_with_an_example():
    for name in set(cg.__all__) - {"__version__"}:
        thing = getattr(cg, name)
        text = inspect.getdoc(thing) or ""
        is_error = isinstance(thing, type) and issubclass(thing, Exception)
        assert "Example:" in text or is_error, name


def test_a_module_of_ones_own_is_distilled_into_and_predicts(folder, here, teacher):
    model = cg.train(
        Small,
        folder / "toys.npz",
        teacher=teacher,
        workdir=folder / "own",
        epochs=2,
        untagged_epochs=0,
        **here,
    )
    assert model.name == "test_api:Small" and model.result["distilled"]
    # What a run by its config.json alone would need is in there.
    config = json.loads((folder / "own" / "config.json").read_text())
    assert config["named"] == {"teacher": str(teacher.path), "untagged_epochs": 0}
    found = model.predict([bulk("Cu"), bulk("NaCl", "rocksalt", a=5.64)], cache=here["cache"])
    assert found.ids.tolist() == ["0", "1"] and np.isfinite(found.values).all()
    again = cg.load(folder / "own").predict([bulk("Cu")], cache=here["cache"])
    assert again.values == pytest.approx(found.values[:1], rel=1e-6)
    assert again.property == "energy"


def test_a_network_of_ones_own_is_trained_as_it_says_and_found_again(folder, here):
    model = cg.train(SMALL, folder / "toys.npz", workdir=folder / "network", epochs=1, **here)
    assert model.name == "test_api:SMALL" and cg.load(folder / "network").network is SMALL
    assert not model.result["distilled"]
    with pytest.raises(cg.UserError, match="write NETWORK = Network"):
        cg.train(cg.Network(Small), folder / "toys.npz", workdir=folder / "nameless", **here)


def test_a_finished_run_is_loaded_and_another_asks_for_its_place(folder, here, teacher):
    settings = {"epochs": 1, "workdir": folder / "twice", "split": "formula", **here}
    first = cg.train("cgcnn", folder / "toys.npz", model={"width": 8}, **settings)
    again = cg.train("cgcnn", folder / "toys.npz", model={"width": 8}, **settings)
    assert again.fingerprint == first.fingerprint
    with pytest.raises(cg.UserError, match="holds a run with model.width 8"):
        cg.train("cgcnn", folder / "toys.npz", model={"width": 9}, **settings)


def test_a_student_follows_a_teacher_without_labels(folder, here, teacher):
    start = cg.pretrain(
        folder / "toys.npz",
        network="cgcnn",
        follow=teacher,
        workdir=folder / "start",
        epochs=1,
        **here,
    )
    assert start.property is None and start.name == "cgcnn"
    assert set(start.result) >= {"validation_teacher_embeddings", "untouched"}
    assert "validation_masked_elements" not in start.result


def test_embeddings_stand_atom_by_atom_and_crystal_by_crystal(folder, here, teacher):
    found = teacher.embed(folder / "toys.npz", cache=here["cache"])
    assert len(found.ids) == 24 and found.atoms.shape == (found.n_atoms.sum(), 8)
    first = found.atoms[: found.n_atoms[0]].mean(axis=0)
    np.testing.assert_allclose(found.crystals[0], first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: cg.read("nowhere"), "`data` nowhere: no such file"),
        (lambda: cg.read([]), "there are no crystals"),
        (lambda: cg.read(3.0), "float is neither a name or path"),
        (lambda: cg.load("nowhere"), "`model` nowhere: no trained model there"),
        (
            lambda: cg.pretrain("elastic", workdir="x", network="cgcn"),
            "`network` cgcn: there is crysgnn",
        ),
        (lambda: cg.train("cgcn", "elastic", workdir="x"), "`student` cgcn: did you mean cgcnn"),
        (lambda: cg.train("cgcnn", "elastic", "gap", workdir="x"), "`property` gap: elastic has"),
        (lambda: cg.train("cgcnn", "elastic", workdir="x", epoch=3), "`epoch`: there is no such"),
        (lambda: cg.train("cgcnn", "elastic", workdir="x", epochs=0), "`epochs` 0: give a whole"),
        (lambda: cg.train("cgcnn", "elastic", workdir="x", weight=2.0), "`weight` 2.0: give a num"),
        (lambda: cg.load("band_gap").predict("x", level=2), "`level` 2: give a number above 0"),
        (lambda: cg.load("band_gap").predict("x", n_nearest=-1), "`n_nearest` -1: give a whole"),
        (lambda: cg.load().predict("x"), "`model` crysgnn-mp holds crysgnn"),
        (lambda: cg.load().export("no/such/folder/x"), "x.* cannot be written .No such file"),
        (lambda: cg.train("cgcnn", "elastic", workdir="x", pull="far"), "`pull` far: there is"),
        (lambda: cg.objectives_of("crysgnn", {"colour": 1.0}), "`objectives` colour: there is"),
        (lambda: cg.objectives_of("crysae", temperature=0.1), "`temperature`: no objective"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(call, message):
    with pytest.raises(cg.UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_script_without_a_guard_builds_graphs(folder):
    script = folder / "script.py"
    script.write_text(
        "import crysgnn_jax as cg\n"
        f"print(len(cg.build_store({str(folder / 'toys.npz')!r}, cache={str(folder / 'new')!r})))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True,
                          env={"PYTHONPATH": str(ROOT), "PATH": ""})  # fmt: skip
    assert done.stdout.strip() == "24", done.stderr


def test_a_unit_that_is_known_to_be_another_is_refused(tmp_path):
    with pytest.raises(
        cg.UserError, match="`unit` furlongs: bulk_modulus_vrh of elastic is in GPa"
    ):
        cg.train("cgcnn", "elastic", unit="furlongs", workdir=tmp_path / "run", devices=1, epochs=1)
