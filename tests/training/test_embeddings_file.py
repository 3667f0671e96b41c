"""Distillation from embeddings that another program has made."""

import json

import numpy as np
import pytest

from crysgnn_jax.commands import distill, embed
from crysgnn_jax.commands.cli import call
from crysgnn_jax.errors import UserError
from toy_runs import prepare, run

SHORT = ("--student", "cgcnn", "--epochs", "1", "--batch-size", "12", "--weight", "0.5")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    path = prepare(tmp_path_factory.mktemp("file"))
    flags = ["--cache", str(path / "cache"), "--workers", "1", "--devices", "1"]
    words = ["--model", str(path / "teacher"), str(path / "toys.npz"), *flags]
    call(embed, [*words, "--output", str(path / "made.npz")])
    return path


@pytest.mark.slow
def test_a_file_teaches_as_the_network_that_wrote_it(here):
    # In another order of crystals: they are found by id.
    with np.load(here / "made.npz") as made:
        order = np.argsort(made["ids"])[::-1]
        ends = np.cumsum(made["n_atoms"])
        parts = [made["embeddings"][ends[k] - made["n_atoms"][k] : ends[k]] for k in order]
        np.savez(
            here / "turned.npz", ids=made["ids"][order], n_atoms=made["n_atoms"][order],
            embeddings=np.concatenate(parts),
        )  # fmt: skip
    for name in ("teacher", "turned.npz"):
        run(distill, here, *SHORT, "--teacher", here / name, "--workdir", here / f"by_{name}")
    texts = [
        (here / f"by_{name}/predictions.csv").read_text() for name in ("teacher", "turned.npz")
    ]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_a_student_follows_a_file_on_its_own_crystals(here):
    flags = ("--teacher", here / "made.npz", "--workdir", here / "followed")
    run(distill, here, *SHORT, *flags, "--untagged-epochs", "1")
    start = json.loads((here / "followed/result.json").read_text())["start"]
    assert start["n_train"] == 21  # less 2 to be tested on, and 1 to judge the epochs by


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda made: {"ids": np.char.add("x", made["ids"])}, "has no embeddings of c0; make them"),
        (lambda made: {"embeddings": made["embeddings"][1:]}, "do not fit together"),
        (lambda made: {"ids": np.full(24, "c0")}, "some ids are there more than once"),
        (lambda made: {"embeddings": made["embeddings"] * np.nan}, "embeddings are not finite"),
        (lambda made: {"n_atoms": made["n_atoms"][::-1]}, "c0 has .* atoms there and .* in the"),
    ],
)
def test_what_cannot_teach_is_told(here, change, message):
    with np.load(here / "made.npz") as made:
        np.savez(here / "bad.npz", **{**made, **change(made)})
    with pytest.raises(UserError, match=message):
        run(distill, here, *SHORT, "--teacher", here / "bad.npz", "--workdir", here / "bad")
    assert not (here / "bad").exists()


def test_no_file_damaged_file_missing_array(here):
    with pytest.raises(UserError, match="nowhere.npz: no such file"):
        run(distill, here, *SHORT, "--teacher", here / "nowhere.npz", "--workdir", here / "bad")
    (here / "cut.npz").write_bytes((here / "made.npz").read_bytes()[:-200])
    with pytest.raises(UserError, match="cut.npz is damaged"):
        run(distill, here, *SHORT, "--teacher", here / "cut.npz", "--workdir", here / "bad")
    np.savez(here / "less.npz", ids=np.array(["c0"]), n_atoms=np.array([1]))
    with pytest.raises(UserError, match="has no array embeddings; it needs"):
        run(distill, here, *SHORT, "--teacher", here / "less.npz", "--workdir", here / "bad")
