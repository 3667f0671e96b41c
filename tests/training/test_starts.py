"""What a student begins with: what it learned without labels, and what members say of others."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.commands import distill, embed, finetune, pretrain
from crysgnn_jax.commands.cli import call
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.members import code_of
from crysgnn_jax.models.registry import find_network
from crysgnn_jax.objectives.distillation import standardised_loss
from crysgnn_jax.pretraining.teacher_embeddings import TeacherEmbeddings
from crysgnn_jax.training.lesson import Student, shipped_start
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.pretraining_task import _differing
from crysgnn_jax.training.property_task import Start
from crysgnn_jax.training.run import name_of_leaf
from crysgnn_jax.training.taught import what_members_say
from toy_runs import prepare, run
from toys import batcher_for_all, collection, one_batch

STUDENT = ("--student", "cgcnn", "--set", "n_convolutions=1")
"""A small one is compiled soon."""

HEAD = ("params/hidden_0/kernel", "params/output/kernel")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    path = prepare(tmp_path_factory.mktemp("starts"))
    write_table(path / "more.npz", collection(40)[24:])
    short = ("--epochs", "2", "--batch-size", "12", "--n-convolutions", "1")
    run(pretrain, path, "--network", "cgcnn", "--workdir", path / "direct", *short)
    run(
        pretrain, path, "--network", "cgcnn", "--follow", path / "teacher", "--workdir",
        path / "followed", *short,
    )  # fmt: skip
    return path


def result(path):
    return json.loads((path / "result.json").read_text())


def leaves(variables):
    return {name_of_leaf(path): x for path, x in jax.tree_util.tree_leaves_with_path(variables)}


def test_a_start_of_the_package_takes_the_place_of_one_that_nobody_asked_for():
    teacher = TrainedModel.load("crysgnn-mp")
    found = lambda student: shipped_start(teacher, student, "standardised", teacher.featuriser)
    autoencoder = Start(lambda variables: variables, "of an auto-encoder")
    student = Student("crysxpp", find_network("crysxpp"), start=autoencoder)
    assert found(student) is None
    there = found(dataclasses.replace(student, start_is_default=True))
    assert there is not None and there.path.name == "crysgnn-mp-crysxpp"


def own_pull(student, teacher, batch):
    """Not one of the package's."""
    return standardised_loss(student, teacher, batch)


def test_a_start_that_followed_by_an_own_pull_is_found_by_the_code_of_that():
    found = _differing(TeacherEmbeddings(64, own_pull))
    assert found["pull"].endswith(":own_pull") and found["pull_code"] == code_of(own_pull)
    assert _differing(TeacherEmbeddings(64)) == {}


def test_a_student_learns_without_labels_all_but_its_head(here):
    for name in ("direct", "followed"):
        untouched = result(here / name)["untouched"]
        assert untouched and all("hidden_0" in x or "output" in x for x in untouched)
    direct = result(here / "direct")
    assert direct["validation_hidden_scale_trivial"] == pytest.approx(1 / 3)
    followed = result(here / "followed")
    assert followed["validation_teacher_embeddings_trivial"] == 1.0
    assert "validation_masked_elements" not in followed
    model = TrainedModel.load(here / "direct")
    assert model.name == "cgcnn" and model.property is None
    embedded = model.embed(here / "more.npz", cache=here / "cache")
    assert embedded.atoms.shape[1] == 64 and np.isfinite(embedded.atoms).all()
    out = ["--output", str(here / "direct.npz"), "--cache", str(here / "cache")]
    call(embed, ["--model", str(here / "direct"), str(here / "more.npz"), *out])
    np.testing.assert_array_equal(np.load(here / "direct.npz")["embeddings"], embedded.atoms)


@pytest.mark.slow
def test_it_is_taken_over_whole_but_for_the_head(here):
    """At a rate of next to nothing, what training ends with is what it started from."""
    still = ("--epochs", "1", "--learning-rate", "1e-30", "--batch-size", "12")
    tuned = {}
    for seed in ("0", "1"):
        path = here / f"still{seed}"
        run(finetune, here, "--teacher", here / "direct", "--workdir", path, "--seed", seed, *still)
        tuned[seed] = leaves(TrainedModel.load(path).variables)
    begun = leaves(TrainedModel.load(here / "direct").variables)
    for name, start in begun.items():
        if name.startswith("params") and name not in HEAD and not name.endswith("bias"):
            np.testing.assert_array_equal(tuned["0"][name], start)
    for name in HEAD:
        assert not np.array_equal(tuned["0"][name], tuned["1"][name])
    made = json.loads((here / "still0" / "config.json").read_text())["made_with"]
    assert made["network"] == "cgcnn" and made["start"]
    assert result(here / "still0")["start"]["from"] == "direct"


@pytest.mark.slow
def test_twins_differ_by_the_start_alone(here):
    """`--start` is for the distilled twin; the vanilla one is what it was without."""
    short = (*STUDENT, "--epochs", "1", "--batch-size", "12")
    teacher = ("--teacher", here / "teacher")
    run(distill, here, *short, *teacher, "--workdir", here / "begun", "--start", here / "followed")
    run(distill, here, *short, "--vanilla", "--workdir", here / "plain")
    text = lambda path: (path / "predictions.csv").read_text()
    assert text(here / "begun/vanilla") == text(here / "plain")
    assert "start" not in result(here / "begun/vanilla")
    assert result(here / "begun/distilled")["start"]["from"] == "followed"


def test_the_untagged_stage_is_made_once_for_all_properties(here):
    crystals = [
        type(c)(c.id, c.species, c.frac_coords, c.lattice, {**c.labels, "other": float(i)})
        for i, c in enumerate(collection(24))
    ]
    write_table(here / "two.npz", crystals)
    starts = here / "cache" / "starts"
    before = set(starts.glob("*/result.json"))
    for name in ("energy", "other"):
        run(
            distill, here, *STUDENT, "--epochs", "1", "--teacher", here / "teacher",
            "--unlabelled", here / "more.npz", "--property", name, "--workdir",
            here / f"two_{name}", "--untagged-epochs", "2", "--weight", "0.1", data="two.npz",
        )  # fmt: skip
    made = set(starts.glob("*/result.json")) - before
    assert len(made) == 1
    stage = json.loads(made.pop().read_text())
    told = [result(here / f"two_{name}")["start"] for name in ("energy", "other")]
    assert told[0] == told[1] and told[0]["seconds"] == stage["seconds"]
    # 24 and 16 crystals, less the 2 to be tested on.
    assert stage["n_train"] + stage["n_validation"] == 38 and stage["epochs"] == 2


def test_the_standardised_pull_by_hand(here):
    store = build_store(crystal_list(collection(6)), FeaturiserSettings(), cache_dir=here / "cache")
    batch = Batch(jax.tree.map(jnp.asarray, one_batch(store, graphs=store.reduced, more=2)))
    atoms = batch.atoms
    teacher = jax.random.normal(jax.random.key(0), (len(batch.species), 5))
    centred = teacher - atoms.mean(teacher)
    standard = centred / jnp.sqrt(atoms.mean(jnp.square(centred)))
    assert standardised_loss(standard, teacher, batch) == pytest.approx(0.0, abs=1e-9)
    # The unit and the origin of each dimension do not matter.
    scaled = teacher * jnp.array([0.1, 1.0, 10.0, 3.0, 0.5]) + jnp.arange(5.0)
    assert standardised_loss(standard, scaled, batch) == pytest.approx(0.0, abs=1e-5)
    # Each crystal counts the same.
    by_hand = [
        np.average(np.square(standard[of]).mean(1), weights=atoms.weights[of])
        for of in (np.asarray(batch.crystal_of_node) == k for k in range(6))
    ]
    zero = standardised_loss(jnp.zeros_like(teacher), teacher, batch)
    assert zero == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_where_members_differ_their_mean_counts_less():
    predictions = np.array([[1.0, 2.0, 0.0], [1.0, 4.0, 9.0], [1.0, 3.0, 3.0]])
    found = what_members_say(predictions, np.array([7, 9, 4]), ["a", "b", "c"])
    np.testing.assert_allclose(found.targets, [1.0, 3.0, 4.0])
    assert found.weights[0] == 1.0 and found.weights[1] == 0.5 and found.weights[2] < 0.1
    alone = what_members_say(predictions[:1], np.array([7, 9, 4]), ["a"])
    assert alone.weights.tolist() == [1.0, 1.0, 1.0] and alone.fingerprint != found.fingerprint


def test_a_target_counts_as_much_as_it_weighs(here):
    store = build_store(crystal_list(collection(3)), FeaturiserSettings(), cache_dir=here / "cache")
    batcher = batcher_for_all(
        store, label=np.array([1.0, 5.0, np.nan]), label_weight=np.array([1.0, 0.25, 1.0])
    )
    batch = Batch(jax.tree.map(jnp.asarray, batcher(np.arange(3))))
    assert batch.labelled.mean(batch.labels) == pytest.approx((1.0 + 0.25 * 5.0) / 1.25)


@pytest.mark.slow
def test_members_teach_the_student(here):
    flags = (
        *STUDENT, "--epochs", "2", "--batch-size", "12", "--teacher", here / "teacher",
        "--unlabelled", here / "more.npz", "--taught-by", "2",
    )  # fmt: skip
    run(distill, here, *flags, "--weight", "0.1", "--workdir", here / "taught")
    members = list((here / "cache" / "members").glob("*/result.json"))
    assert len(members) == 2
    found = result(here / "taught")
    assert found["n_unlabelled"] == 16
    made = json.loads((here / "taught/config.json").read_text())["made_with"]
    assert made["taught_by"] and made["settings"]["taught_by"] == 2
    # Not their own labels: the members and the split are the same where these are wrong.
    strange = [
        type(c)(c.id, c.species, c.frac_coords, c.lattice, {"energy": 1e6})
        for c in collection(40)[24:]
    ]
    write_table(here / "more.npz", strange)
    run(distill, here, *flags, "--weight", "0.1", "--workdir", here / "again")
    text = lambda path: (path / "predictions.csv").read_text()
    assert text(here / "again") == text(here / "taught")


@pytest.mark.slow
def test_formulas_to_be_tested_on_are_left_out(here):
    both = ("--exclude", here / "more.npz", "--epochs", "1", "--batch-size", "12")
    write_table(here / "all.npz", collection(40))
    run(pretrain, here, "--workdir", here / "some", "--width", "8", *both, data="all.npz")
    found = result(here / "some")
    assert found["n_train"] + found["n_validation"] == 24


def test_a_start_can_be_of_a_student_that_differs_from_the_published(here):
    short = ("--epochs", "1", "--batch-size", "12", "--workdir", here / "narrow")
    settings = ("--set", "n_convolutions=1", "--set", "head_width=16")
    run(pretrain, here, "--network", "cgcnn", "--follow", here / "teacher", *settings, *short)
    begun = TrainedModel.load(here / "narrow").variables["params"]
    assert begun["hidden_0"]["kernel"].shape == (64, 16) and "convolution_1" not in begun["encoder"]
    with pytest.raises(cg.UserError, match="crysgnn takes --width and --n-convolutions"):
        run(pretrain, here, "--set", "width=8", *short)
    with pytest.raises(cg.UserError, match="--set depth=2: CGCNN has the settings"):
        run(pretrain, here, "--network", "cgcnn", "--set", "depth=2", *short)


def test_what_is_no_start_is_told(here):
    short = (*STUDENT, "--epochs", "1")
    with pytest.raises(cg.UserError, match="holds crysgnn; name a run of pretrain --network cgcnn"):
        run(distill, here, *short, "--start", here / "teacher", "--workdir", here / "x")
    with pytest.raises(cg.UserError, match="that would not be vanilla; use finetune --teacher"):
        flags = ("--vanilla", "--start", here / "direct", "--workdir", here / "x")
        run(distill, here, *short, *flags)
    with pytest.raises(cg.UserError, match="only a teacher's encoder can be kept"):
        run(finetune, here, "--teacher", here / "direct", "--freeze", "--workdir", here / "x")
