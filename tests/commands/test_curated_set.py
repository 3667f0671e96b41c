"""Commands on a curated set: what comes out is what comes of the same crystals in a table."""

import json

import jax
import numpy as np
import pytest
from toy_sets import write_set

from crysgnn_jax import stopping
from crysgnn_jax.commands import check, distill, embed, predict, pretrain
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.training.checkpoints import restore_best
from crysgnn_jax.training.logs import Progress
from toy_runs import run
from toys import collection

SMALL = ("--epochs", "2", "--batch-size", "12", "--n-convolutions", "1", "--width", "8",
         "--checkpoint-seconds", "0")  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A table, the same as a set, and a teacher of each."""
    path = tmp_path_factory.mktemp("curated")
    write_table(path / "toys.npz", collection(24))
    store = build_store(read(path / "toys.npz"), FeaturiserSettings(), cache_dir=path / "elsewhere")
    write_set(store, path / "set", crystals_a_shard=5)
    for data in ("toys.npz", "set"):
        run(pretrain, path, *SMALL, "--workdir", path / f"of {data}", data=data)
    return path


def weights(path):
    return restore_best(path / "checkpoints")


def losses(path):
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("seconds", "time")} for line in lines]


def test_pretraining_is_the_same(here):
    assert losses(here / "of set") == losses(here / "of toys.npz")
    one, other = weights(here / "of set"), weights(here / "of toys.npz")
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_no_other_store_is_built(here):
    stores = [file.parent.name for file in (here / "cache").glob("*/meta.json")]
    assert len(stores) == 1  # of the table


def test_a_stopped_run_goes_on_as_if_it_had_not_been(here, monkeypatch):
    step = Progress.step

    def interrupt(self, position, values):
        step(self, position, values)
        if (position.epoch, position.batch) == (1, 1):
            stopping._wish.number = 2

    monkeypatch.setattr(Progress, "step", interrupt)
    with pytest.raises(stopping.Stopped):
        run(pretrain, here, *SMALL, "--workdir", here / "stopped", data="set")
    monkeypatch.setattr(Progress, "step", step)
    monkeypatch.setattr(stopping._wish, "number", None)
    run(pretrain, here, *SMALL, "--workdir", here / "stopped", data="set")
    assert losses(here / "stopped") == losses(here / "of set")
    jax.tree.map(np.testing.assert_array_equal, weights(here / "stopped"), weights(here / "of set"))


def test_a_teacher_embeds_it(here):
    flags = ("--model", here / "of set", "--output")
    for data in ("toys.npz", "set"):
        run(embed, here, *flags, here / f"{data}.out.npz", data=data)
    found = [np.load(here / f"{data}.out.npz") for data in ("toys.npz", "set")]
    assert sorted(found[0].files) == sorted(found[1].files)
    for name in found[0].files:
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_a_student_learns_from_it_and_is_asked_about_it(here, capsys):
    short = ("--student", "cgcnn", "--set", "n_convolutions=1", "--set", "width=8", "--vanilla")
    said = {}
    for data in ("toys.npz", "set"):
        workdir = here / f"student of {data}"
        run(distill, here, *short, "--epochs", "1", "--workdir", workdir, data=data)
        capsys.readouterr()
        run(predict, here, "--model", workdir, data=data)
        run(check, here, data=data, more=("--workers", "1"))
        said[data] = capsys.readouterr().out
        assert (workdir / "predictions.csv").read_text().count("\n") > 2
    assert said["toys.npz"].replace("toys.npz", "set") == said["set"]
    names = ("predictions.csv", "splits.json", "worst.npz")
    for name in names:
        one, other = (here / f"student of {data}" / name for data in ("toys.npz", "set"))
        assert one.read_bytes() == other.read_bytes(), name
