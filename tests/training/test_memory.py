"""A teacher remembers what it was trained on, and a student tested on that is told so."""

import dataclasses
import json

import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.commands import distill, pretrain
from crysgnn_jax.crystals.named import load_named
from crysgnn_jax.crystals.sources import formulas_of
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError, warn_once
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.reporting.verdict import verdict
from crysgnn_jax.training.lesson import Lesson, Student
from crysgnn_jax.training.memory import Memory, Seen
from crysgnn_jax.training.predictor import TrainedModel
from toy_runs import prepare, run
from toys import caesium_chloride, collection, fcc, perovskite, rocksalt

SHORT = ("--epochs", "1", "--batch-size", "12")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("memory"))


def store_of(crystals, tmp_path, **settings):
    settings = FeaturiserSettings(**settings)
    return cg.build_store(cg.crystal_list(crystals), settings, cache=tmp_path)


def test_formula_and_structure_are_told_apart(tmp_path):
    known = store_of([rocksalt(), perovskite(), perovskite(a=4.2, id="wide")], tmp_path)
    memory = Memory.of(known, np.arange(3))
    asked = [
        rocksalt(a=5.70, id="relaxed"),
        rocksalt(a=6.2, id="expanded"),
        caesium_chloride(species=(11, 17), id="polymorph"),
        perovskite(a=4.19, id="also wide"),
        fcc(),
    ]
    store = store_of(asked, tmp_path)
    assert memory.seen(store, np.arange(5)) == Seen(5, 4, 2)
    assert memory.seen(store, np.array([4])) == Seen(1, 0, 0)
    assert memory.knows(["Cl1Na1", "Al1"]).tolist() == [True, False]


def test_what_another_network_has_seen_is_inherited(tmp_path):
    """By formula from one that kept no structures, by structure from one that did."""
    formulas = Memory.of_formulas(["O3Sr1Ti1"], bits=32)
    own = Memory.of(store_of([fcc()], tmp_path), np.arange(1), [formulas, None])
    structures = Memory.of(store_of([rocksalt()], tmp_path), np.arange(1))
    Memory.of(store_of([fcc()], tmp_path), np.arange(1), [own, structures]).save(tmp_path / "m.npz")
    memory = Memory.load(tmp_path / "m.npz")
    assert memory.knows(["Al1", "O3Sr1Ti1", "Cl1Na1", "Fe1"]).tolist() == [True, True, True, False]
    asked = [fcc(), perovskite(), rocksalt(), rocksalt(a=7.0, id="expanded")]
    assert memory.seen(store_of(asked, tmp_path), np.arange(4)) == Seen(4, 4, 2)


def test_it_is_kept_in_16_bytes_a_crystal_and_2_a_formula(tmp_path):
    random = np.random.default_rng(0)
    looks = random.random((10_000, 4)).astype(np.float16)
    memory = Memory(64, np.sort(random.integers(0, 2**64 - 1, 10_000, np.uint64)), looks)
    memory.save(tmp_path / "memory.npz")
    assert (tmp_path / "memory.npz").stat().st_size < 16 * 10_000
    again = Memory.load(tmp_path / "memory.npz")
    assert again.bits == 64 and np.array_equal(again.formulas, memory.formulas)
    assert np.array_equal(again.looks, looks)
    short = Memory.of_formulas((f"A{k}" for k in range(100_000)), bits=32)
    short.save(tmp_path / "short.npz")
    assert (tmp_path / "short.npz").stat().st_size < 2.4 * 100_000
    again = Memory.load(tmp_path / "short.npz")
    assert again.knows(["A0", "A99999"]).all()
    assert again.knows([f"B{k}" for k in range(1000)]).mean() < 0.01


def test_a_damaged_memory_is_refused(tmp_path):
    (tmp_path / "memory.npz").write_bytes(b"no memory")
    with pytest.raises(UserError, match="memory.npz is damaged"):
        Memory.load(tmp_path / "memory.npz")


def test_the_teacher_of_the_package_knows_nothing_of_its_data_sets():
    memory = TrainedModel.load("crysgnn-mp").memory
    assert memory is not None and len(memory.formulas) > 100_000
    for name in ("formation_energy", "elastic", "dielectric"):
        assert not memory.knows(list(formulas_of(load_named(name)))).any()
    assert memory.knows(["Cl1Na1", "Si1"]).sum() == 0  # among the formulas that were left out
    assert memory.knows(
        ["Mg1N3Rb1", "Cu4Ho3Sn4"]
    ).all()  # hypothetical, and of the Materials Project


def test_a_student_that_is_tested_on_what_its_teacher_has_seen_is_told(here, caplog):
    flags = ("--student", "cgcnn", "--teacher", here / "teacher", "--weight", "0.1", *SHORT)
    warn_once.cache_clear()  # tests of other files have toy crystals too
    run(distill, here, *flags, "--workdir", here / "distilled")
    result = json.loads((here / "distilled" / "result.json").read_text())
    n = result["n_test"]
    assert result["teacher_has_seen"] == {"n": n, "by_formula": n, "by_structure": n}
    said = [x.getMessage() for x in caplog.records if "has seen" in x.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(f"the teacher has seen {n} of the {n} test crystals, and 0 others")
    assert "pretrain --exclude" in said[0]
    assert (
        f"has seen {n} of the {n} test crystals, and 0 others of the same formula: its"
        in " ".join(verdict(result, []))
    )


def test_one_who_starts_from_what_has_seen_them_is_told_too(here, caplog):
    TrainedModel.load(here / "teacher").export(here / "teacher.safetensors")
    model = TrainedModel.load(here / "teacher.safetensors")
    store = cg.build_store(cg.read(here / "toys.npz"), model.featuriser, cache=here / "cache")
    student = Student.of_pretrained(model, freeze=False)
    warn_once.cache_clear()
    own = Lesson(student, "energy", store, np.arange(len(store)))
    seen = own.seen(own.split("random", 0))
    assert seen == Seen(2, 2, 2)
    assert "what the student starts from has seen 2" in caplog.text
    vanilla = Lesson(dataclasses.replace(student, start=None), "energy", store, own.labelled)
    assert vanilla.seen(own.split("random", 0)) is None


def test_who_follows_a_teacher_inherits_its_memory(here):
    write_table(here / "others.npz", [fcc(a=3.5 + 0.1 * k, id=f"fcc {k}") for k in range(12)])
    run(
        pretrain, here, "--network", "cgcnn", "--follow", here / "teacher", *SHORT,
        "--workdir", here / "follower", data="others.npz",
    )  # fmt: skip
    teacher, follower = (TrainedModel.load(here / name).memory for name in ("teacher", "follower"))
    store = store_of(collection(4), here)
    rows = np.arange(len(store))
    assert follower.knows(["Al1"]).all() and not teacher.knows(["Al1"]).any()
    assert follower.seen(store, rows) == teacher.seen(store, rows) == Seen(4, 4, 4)


@pytest.mark.slow
def test_a_teacher_that_was_kept_from_the_test_crystals_has_seen_none(here, caplog):
    flags = ("--student", "cgcnn", "--vanilla", "--workdir", here / "vanilla", *SHORT)
    run(distill, here, *flags)
    write_table(here / "all.npz", [*collection(24), *collection(24, seed=500)])
    run(
        pretrain, here, "--workdir", here / "kept_from", "--n-convolutions", "2", "--width", "16",
        "--exclude", here / "vanilla/splits.json", *SHORT, data="all.npz",
    )  # fmt: skip
    found = json.loads((here / "kept_from/result.json").read_text())
    vanilla = json.loads((here / "vanilla/result.json").read_text())
    assert found["n_train"] + found["n_validation"] <= 48 - vanilla["n_test"]
    flags = ("--student", "cgcnn", "--teacher", here / "kept_from", "--weight", "0.1", *SHORT)
    run(distill, here, *flags, "--workdir", here / "honest")
    assert "has seen" not in caplog.text
    assert "teacher_has_seen" not in json.loads((here / "honest/result.json").read_text())
