"""Distillation with crystals without labels, as a command."""

import json

import numpy as np
import pytest
from toy_sets import write_set

from crysgnn_jax.commands import distill, embed
from crysgnn_jax.commands.cli import call
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from toy_runs import COMMON, prepare, run
from toys import collection


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Twenty-four crystals with labels; forty of which the first 24 are these, and four are not
    but have the ids of others."""
    path = prepare(tmp_path_factory.mktemp("unlabelled"))
    more = collection(44)[:40]
    write_table(path / "more.npz", more)
    strange = [type(c)(c.id, c.species, c.frac_coords, c.lattice, {"energy": 1e6}) for c in more]
    write_table(path / "strange.npz", strange)
    return path


def _distil(path, workdir, *flags):
    short = ("--epochs", "2", "--batch-size", "8", "--teacher", path / "teacher")
    run(distill, path, "--student", "cgcnn", *short, "--workdir", path / workdir, *flags)


def _result(path):
    return json.loads((path / "result.json").read_text())


def _predictions(path):
    return (path / "predictions.csv").read_text()


@pytest.fixture(scope="module")
def twins(here):
    _distil(here, "twins", "--unlabelled", here / "more.npz", "--unlabelled-per-batch", "4")
    return here / "twins"


def test_crystals_that_have_labels_elsewhere_are_left_out(twins):
    result = _result(twins / "distilled")
    assert result["n_unlabelled"] == 16
    assert result["n_train"] + result["n_validation"] + result["n_test"] == 24
    made_with = json.loads((twins / "distilled" / "config.json").read_text())["made_with"]
    assert made_with["unlabelled"]["per_batch"] == 4
    # What the pull looks through is no part of the student.
    assert result["parameters"] == _result(twins / "vanilla")["parameters"]
    lines = _predictions(twins / "distilled").splitlines()
    assert len(lines) == 1 + 24


def test_the_twin_without_a_teacher_knows_nothing_of_them(here, twins):
    _distil(here, "alone", "--vanilla")
    assert _predictions(here / "alone") == _predictions(twins / "vanilla")
    configs = [
        json.loads((path / "config.json").read_text())["made_with"]
        for path in (here / "alone", twins / "vanilla")
    ]
    assert configs[0] == configs[1]


def test_they_change_what_is_learned(here, twins):
    _distil(here, "without", "--weight", "0.1")
    assert _predictions(here / "without") != _predictions(twins / "distilled")
    both = [(path / "splits.json").read_text() for path in (here / "without", twins / "distilled")]
    assert both[0] == both[1]


def test_their_labels_are_not_looked_at(here, twins):
    flags = ("--unlabelled", here / "strange.npz", "--unlabelled-per-batch", "4")
    _distil(here, "strange", "--weight", "0.1", *flags)
    assert _predictions(here / "strange") == _predictions(twins / "distilled")


def test_how_many_a_step_holds_is_a_setting(here, twins):
    flags = ("--unlabelled", here / "more.npz", "--unlabelled-per-batch", "8")
    with pytest.raises(UserError, match="unlabelled.per_batch 4, and this one has 8"):
        _distil(here, "twins", *flags)


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--vanilla", "--unlabelled", "more.npz"), "--unlabelled: there is no teacher to pull"),
        (("--unlabelled", "toys.npz"), "--unlabelled: none of its crystals can be used, or all"),
        (("--unlabelled", "nowhere"), "nowhere: no such file or folder"),
        (
            ("--weight", "0.1", "--teacher", "vectors.npz", "--unlabelled-per-batch", "4"),
            "--unlabelled-per-batch: there are no crystals without labels; give --unlabelled",
        ),
        (
            ("--weight", "0.1", "--teacher", "vectors.npz", "--taught-by", "2"),
            "--taught-by: there are no crystals without a label that members could tell of",
        ),
        (
            (
                "--weight",
                "0.1",
                "--unlabelled",
                "more.npz",
                "--taught-by",
                "2",
                "--unlabelled-per-batch",
                "0",
            ),
            "--unlabelled-per-batch 0: nothing would be learned from what members say",
        ),
    ],
)
def test_what_cannot_be_used_is_told(here, monkeypatch, flags, message):
    monkeypatch.chdir(here)
    words = [*COMMON, "--cache", "cache", "--output", "vectors.npz", "toys.npz"]
    call(embed, ["--model", "teacher", *words])
    with pytest.raises(UserError, match=message):
        _distil(here, "bad", *flags)
    assert not (here / "bad").exists()


def test_those_of_a_formula_that_is_tested_on_are_left_out(here, twins):
    iron = collection(6)[5]
    other = type(iron)("other", iron.species, iron.frac_coords, 1.1 * iron.lattice)
    write_table(here / "iron.npz", [other, *collection(44)[30:32]])
    sides = {"train": range(7, 24), "validation": [0, 1, 2], "test": [3, 4, 5, 6]}
    split = {name: [f"c{row}" for row in rows] for name, rows in sides.items()}
    (here / "apart.json").write_text(json.dumps(split))
    flags = ("--unlabelled", here / "iron.npz", "--unlabelled-per-batch", "4")
    _distil(here, "apart", "--weight", "0.1", "--split", here / "apart.json", *flags)
    assert _result(here / "apart")["n_unlabelled"] == 2


def test_each_step_holds_some_of_them(here):
    """By the batches themselves: every step has both kinds, and each crystal has its turn."""
    from crysgnn_jax.batches.loader import Loader, lay_out
    from crysgnn_jax.batches.needs import Needs
    from crysgnn_jax.crystals.readers import read
    from crysgnn_jax.graphs.build import build_store
    from crysgnn_jax.graphs.settings import FeaturiserSettings

    store = build_store(read(here / "more.npz"), FeaturiserSettings(), cache_dir=here / "cache")
    own, beside = np.arange(24), np.arange(24, 40)
    batcher, share = lay_out(store, own, Needs(reduced=True), 8, beside=(beside, 4))

    class Two:
        def __len__(self):
            return 2

        def own(self, step):
            return step

        def put(self, stacked):
            return stacked

    loader = Loader(batcher, Two(), share=share, beside=beside)
    steps = loader.epoch(own, (0, 0))
    batches = [batch for step in steps for batch in step]
    assert sorted(row for batch in batches for row in batch if row < 24) == own.tolist()
    more = [sum(row >= 24 for row in batch) for batch in batches]
    assert min(more) >= 1 and max(more) <= 8
    again = loader.epoch(own, (0, 0))
    assert all(np.array_equal(a, b) for x, y in zip(steps, again) for a, b in zip(x, y))
    seen = {int(row) for epoch in range(4) for step in loader.epoch(own, (0, epoch))
            for batch in step for row in batch if row >= 24}  # fmt: skip
    assert seen == set(beside.tolist())


@pytest.mark.slow
def test_a_curated_set_of_them_teaches_the_same(here, twins):
    copy = here / "sets" / "more"
    graphs = build_store(read(here / "more.npz"), FeaturiserSettings(), cache_dir=here / "other")
    write_set(graphs, copy, crystals_a_shard=16)
    stores = len(list((here / "cache").glob("*/meta.json")))
    _distil(here, "of set", "--unlabelled", copy, "--unlabelled-per-batch", "4")
    assert _predictions(here / "of set" / "distilled") == _predictions(twins / "distilled")
    # Another store is not built of it.
    assert len(list((here / "cache").glob("*/meta.json"))) == stores
