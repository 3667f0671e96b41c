"""The example files under ``docs/examples/`` do what they say."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.batches.loader import lay_out
from crysgnn_jax.commands import cli, distill
from crysgnn_jax.crystals.table import write_table
from toys import collection

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
sys.path.append(str(EXAMPLES))

import cosine_pull  # noqa: E402
import hidden_blocks  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("examples")
    write_table(path / "toys.npz", collection(24))
    write_table(path / "more.npz", collection(40)[24:])
    cg.pretrain(
        path / "toys.npz",
        workdir=path / "teacher",
        model={"width": 8, "n_convolutions": 1},
        epochs=1,
        cache=path / "cache",
        devices=1,
        quiet=True,
    )
    return path


@pytest.fixture
def batch(folder):
    store = cg.build_store(folder / "toys.npz", cache=folder / "cache")
    batcher, _ = lay_out(store, np.arange(24), cg.Needs(reduced=True), 24)
    return cg.Batch(jax.tree.map(jnp.asarray, batcher(np.arange(20))))


def lines_of_code(name):
    """Lines of an example that are neither empty nor in its first docstring."""
    text = (EXAMPLES / name).read_text().split('"""', 2)[2]
    return [line for line in text.splitlines() if line.strip()]


def run(script, *words, cache):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, words)],
        capture_output=True,
        text=True,
        env={
            "PATH": "",
            "PYTHONPATH": str(EXAMPLES.parents[1]),
            "CRYSGNN_CACHE": str(cache),
            "JAX_PLATFORMS": "cpu",
        },
    )


def test_the_examples_are_as_short_as_promised():
    assert len((EXAMPLES / "hidden_blocks.py").read_text().splitlines()) < 60
    assert len(lines_of_code("cosine_pull.py")) < 10


def test_hidden_blocks_knows_the_periodic_table():
    some = {"H": 1, "He": 2, "B": 5, "Ne": 10, "Na": 11, "Fe": 26, "Ga": 31, "La": 57, "Lu": 71,
            "Hf": 72, "Tl": 81, "Ra": 88, "U": 92}  # fmt: skip
    blocks = ["spdf"[hidden_blocks.BLOCKS[number]] for number in some.values()]
    assert "".join(blocks) == "ssppsdpffdpsf"


def test_hidden_blocks_asks_for_what_it_hid_and_nothing_else(batch):
    objective = hidden_blocks.HiddenBlocks(fraction=0.5)
    seen = objective.corrupt(batch, jax.random.key(0))
    hidden = np.asarray((seen.species == 0) & (batch.species > 0))
    real = np.asarray(batch.species) > 0
    assert 0.2 < hidden.sum() / real.sum() < 0.8
    logits = 20.0 * jax.nn.one_hot(hidden_blocks.BLOCKS[np.asarray(batch.species)], 4)
    assert objective.loss(logits, batch, seen) < 1e-3
    # What was shown, and padding, may be guessed at will.
    anything = jnp.where(jnp.asarray(hidden)[:, None], logits, jnp.arange(4.0))
    assert objective.loss(anything, batch, seen) == objective.loss(logits, batch, seen)
    wrong = jnp.roll(logits, 1, axis=1)
    assert objective.loss(wrong, batch, seen) == pytest.approx(20.0, rel=1e-3)


@pytest.mark.slow
def test_hidden_blocks_trains_as_a_script(folder):
    done = run(
        "hidden_blocks.py", folder / "toys.npz", "--workdir", folder / "blocks", "--epochs", 1,
        cache=folder / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "blocks" / "result.json").read_text())
    assert 0 < result["validation_hidden_blocks"] < np.inf
    assert cg.load(folder / "blocks").embed(folder / "more.npz", cache=folder / "cache").atoms.size


def test_the_cosine_pull_is_zero_along_the_teacher_and_two_against_it(batch):
    teacher = jax.random.normal(jax.random.key(0), (len(batch.species), 8))
    assert cosine_pull.cosine(3.0 * teacher, teacher, batch) == pytest.approx(0.0, abs=1e-5)
    assert cosine_pull.cosine(-teacher, teacher, batch) == pytest.approx(2.0, rel=1e-5)


def test_the_cosine_pull_is_a_flag_away(folder):
    words = ["--data", folder / "toys.npz", "--teacher", folder / "teacher", "--weight", 0.5,
             "--pull", "cosine_pull:cosine", "--untagged-epochs", 0,
             "--workdir", folder / "cosine", "--epochs", 1,
             "--cache", folder / "cache", "--devices", 1, "--workers", 1]  # fmt: skip
    cli.call(distill, ["--student", "cgcnn", *map(str, words)])
    settings = json.loads((folder / "cosine" / "config.json").read_text())["made_with"]["settings"]
    assert settings["pull"] == "cosine_pull:cosine" and settings["pull_code"]


@pytest.mark.slow
def test_crystals_without_labels_are_distilled_on_as_a_script(folder):
    done = run(
        "unlabelled.py", folder / "toys.npz", "energy", folder / "more.npz",
        "--teacher", folder / "teacher", "--workdir", folder / "unlabelled", "--epochs", 1,
        cache=folder / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # 24 and 16, less 2 to be tested on, and 2 to judge the epochs by.
    assert done.stdout.startswith("36 crystals before 19 labels")
