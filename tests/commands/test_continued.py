"""A finished run goes on for more epochs, and ends as one file."""

import json
import shutil

import jax
import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax import stopping
from crysgnn_jax.commands import distill, pretrain
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.training.checkpoints import restore_best
from crysgnn_jax.training.logs import Progress
from toy_runs import prepare, run
from toys import collection


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    path = tmp_path_factory.mktemp("continued")
    write_table(path / "toys.npz", collection(16))
    train(path, "run", "--epochs", "2", "--export", path / "model.safetensors")
    return path


def train(path, workdir, *more):
    small = ("--student", "cgcnn", "--set", "n_convolutions=1", "--set", "width=8", "--vanilla")
    run(distill, path, *small, "--workdir", path / workdir, *more)


def copy(here, name):
    shutil.copytree(here / "run", here / name)


def result_of(path):
    return json.loads((path / "result.json").read_text())


def test_a_finished_run_goes_on_from_its_best_weights(here, capsys):
    copy(here, "longer")
    before = result_of(here / "longer")
    train(here, "longer", "--epochs", "5", "--continue")
    said = capsys.readouterr().err
    assert f"5 epochs (from epoch {before['best_epoch']}, the best of the first 2)" in said
    after = result_of(here / "longer")
    assert (after["epochs"], after["steps"]) == (5, before["steps"] // 2 * 5)
    (told,) = after["continued"]
    assert told["after_epoch"] == 2 and told["from_epoch"] == before["best_epoch"]
    assert told["after_step"] == before["steps"] and told["test_mae"] == before["test_mae"]
    assert after["validation_mae"] <= before["validation_mae"] * (1 + 1e-6)
    lines = (here / "longer" / "metrics.jsonl").read_text().splitlines()
    epochs = [entry["epoch"] for entry in map(json.loads, lines) if "validation_mae" in entry]
    assert epochs == [1, 2, 3, 4, 5]
    # The same command again reports it, and without the flag it is another run.
    train(here, "longer", "--epochs", "5", "--continue")
    assert "holds a finished run" in capsys.readouterr().err
    with pytest.raises(UserError, match="was continued after epoch 2; give --continue too"):
        train(here, "longer", "--epochs", "5")
    # At a rate of nothing, it ends with the best weights that it had.
    best = restore_best(here / "longer" / "checkpoints")["params"]
    train(here, "longer", "--epochs", "6", "--continue", "--learning-rate", "1e-30")
    assert [x["after_epoch"] for x in result_of(here / "longer")["continued"]] == [2, 5]
    last = restore_best(here / "longer" / "checkpoints")["params"]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-20), best, last)


@pytest.mark.slow  # interrupted, and gone on with, it is seen by itself in faster tests
def test_interrupted_again_it_ends_with_the_same_parameters(here, monkeypatch):
    for name in ("whole", "stopped"):
        copy(here, name)
    flags = ("--epochs", "5", "--continue", "--checkpoint-seconds", "0")
    train(here, "whole", *flags)
    step = Progress.step

    def interrupt(self, position, values):
        step(self, position, values)
        if (position.epoch, position.batch) == (3, 1):
            stopping._wish.number = 2

    monkeypatch.setattr(Progress, "step", interrupt)
    with pytest.raises(stopping.Stopped):
        train(here, "stopped", *flags)
    monkeypatch.setattr(Progress, "step", step)
    monkeypatch.setattr(stopping._wish, "number", None)
    assert not (here / "stopped" / "result.json").exists()
    train(here, "stopped", *flags)
    weights = [restore_best(here / x / "checkpoints") for x in ("whole", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *weights)
    assert result_of(here / "whole")["test_mae"] == result_of(here / "stopped")["test_mae"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--epochs", "2"), "was given 2 epochs; give more, with --epochs"),
        (("--epochs", "4", "--seed", "1"), "with --seed 0, and this one has 1"),
        (("--epochs", "4", "--overwrite"), "--overwrite deletes what --continue goes on from"),
    ],
)
def test_what_cannot_go_on_says_why(here, flags, message):
    with pytest.raises(UserError, match=message):
        train(here, "run", "--continue", *flags)
    assert (here / "run" / "result.json").exists()


def test_there_must_be_a_finished_run(here):
    with pytest.raises(UserError, match="holds no run; leave it out"):
        train(here, "nothing", "--epochs", "4", "--continue")
    copy(here, "unfinished")
    (here / "unfinished" / "result.json").unlink()
    with pytest.raises(UserError, match="is not finished; give its command again without"):
        train(here, "unfinished", "--epochs", "4", "--continue")


@pytest.mark.slow
def test_a_teacher_goes_on_too(tmp_path):
    here = prepare(tmp_path, 16)
    small = ("--batch-size", "12", "--n-convolutions", "1", "--width", "16")
    shutil.copytree(here / "teacher", here / "longer-teacher")
    run(pretrain, here, "--workdir", here / "longer-teacher", *small, "--epochs", "3",
        "--continue", "--export", here / "teacher.safetensors")  # fmt: skip
    assert result_of(here / "longer-teacher")["continued"][0]["after_epoch"] == 1
    assert cg.load(here / "teacher.safetensors").fingerprint == (
        cg.load(here / "longer-teacher").fingerprint
    )


def test_a_model_is_one_file(here, tmp_path):
    model, file = cg.load(here / "run"), cg.load(here / "model.safetensors")
    assert file.fingerprint == model.fingerprint
    assert (file.property, file.unit, file.result) == (model.property, model.unit, model.result)
    predict = lambda x: x.predict(here / "toys.npz", cache=here / "cache", devices=1).values
    np.testing.assert_array_equal(predict(file), predict(model))
    # A file of a file, and of what comes with the package.
    file.export(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        here / "model.safetensors"
    ).read_bytes()
    teacher = cg.load()
    teacher.export(tmp_path / "teacher.safetensors")
    assert cg.load(tmp_path / "teacher.safetensors").fingerprint == teacher.fingerprint


def test_a_damaged_file_is_refused(here, tmp_path):
    content = bytearray((here / "model.safetensors").read_bytes())
    file = tmp_path / "model.safetensors"
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: its weights are not as written"):
        cg.load(file)
    file.write_bytes(content[:200])
    with pytest.raises(UserError, match="is no file of a network"):
        cg.load(file)
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, file)
    with pytest.raises(UserError, match="of another program"):
        cg.load(file)
