"""Every student through the commands: training, distilling, using what came out."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from crysgnn_jax.commands import cli, distill, embed, finetune, predict, pretrain
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError, warn_once
from toy_runs import COMMON, prepare, run
from toys import collection

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "cgcnn": (),
    "crysxpp": ("--set", "width=16", "--set", "n_convolutions=2"),
    "gatgnn": ("--set", "width=8", "--set", "n_layers=1"),
    "alignn": ("--set", "width=8", "--set", "n_alignn=1", "--set", "n_gcn=1"),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("students"))


def _distil(path, student, *flags):
    short = ("--epochs", "1", "--batch-size", "8", "--teacher", path / "teacher")
    run(distill, path, "--student", student, *short, *flags)


def _predictions(path):
    with open(path, newline="") as file:
        return {row["id"]: float(row["prediction"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("student", ["gatgnn", "alignn"])
def test_distilled_student_can_be_used(here, tmp_path, student):
    workdir = tmp_path / "run"
    _distil(here, student, "--weight", "0.5", "--workdir", workdir, *SMALL[student])
    result = json.loads((workdir / "result.json").read_text())
    assert result["distilled"] and result["compilations"] == 1
    flags = ["--model", str(workdir), "--cache", str(here / "cache"), *COMMON]
    flags.append(str(here / "toys.npz"))
    cli.call(predict, [*flags, "--output", str(tmp_path / "out.csv")])
    # Using the model gives what its run reported.
    reported = _predictions(workdir / "predictions.csv")
    again = _predictions(tmp_path / "out.csv")
    assert again.keys() == reported.keys()
    for id, value in reported.items():
        assert again[id] == pytest.approx(value, abs=1e-5)
    cli.call(embed, [*flags, "--output", str(tmp_path / "out.npz")])
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["embeddings"].shape == (arrays["n_atoms"].sum(), 8)
        first = arrays["embeddings"][: arrays["n_atoms"][0]]
        np.testing.assert_allclose(arrays["crystal_embeddings"][0], first.mean(axis=0), rtol=1e-5)


@pytest.mark.slow
def test_crysxpp_starts_from_the_autoencoder_and_explains_itself(here, tmp_path, capsys):
    autoencoder = tmp_path / "crysae"
    run(
        pretrain, here, "--teacher", "crysae", "--workdir", autoencoder, "--epochs", "1",
        "--width", "16", "--n-convolutions", "2",
    )  # fmt: skip
    flags = ("--vanilla", *SMALL["crysxpp"])
    _distil(here, "crysxpp", "--autoencoder", autoencoder, "--workdir", tmp_path / "a", *flags)
    with open(tmp_path / "a" / "explanation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    weights = [float(row["mean_absolute_weight"]) for row in rows]
    assert len(rows) == 9 and "electronegativity" in {row["element_property"] for row in rows}
    assert weights == sorted(weights, reverse=True)
    # One epoch leaves them where they began, and a picture of that would say nothing.
    assert not (tmp_path / "a" / "explanation.png").exists()
    assert "within 1 % of each other" in (tmp_path / "a" / "report.html").read_text()
    # Other weights to start from are another run.
    with pytest.raises(UserError, match="with start "):
        _distil(here, "crysxpp", "--workdir", tmp_path / "a", *flags)
    assert "starts from random convolutions" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds crysgnn; crysxpp starts from crysae"):
        _distil(
            here, "crysxpp", "--autoencoder", here / "teacher", "--workdir", tmp_path / "b", *flags
        )
    # Neither in part: three convolutions of which two would come from the auto-encoder.
    for name, settings in (("convolution_0", ()), ("convolution_2", ("--set", "width=16"))):
        with pytest.raises(UserError, match=f"its {name} is not shaped like this network's"):
            _distil(
                here, "crysxpp", "--autoencoder", autoencoder, "--workdir", tmp_path / name,
                "--vanilla", *settings,
            )  # fmt: skip
    with pytest.raises(UserError, match="holds crysxpp, whose encoder cannot be taken over"):
        run(finetune, here, "--teacher", tmp_path / "a", "--workdir", tmp_path / "tuned")
    with pytest.raises(UserError, match="--autoencoder: cgcnn starts from random weights"):
        _distil(here, "cgcnn", "--autoencoder", autoencoder, "--vanilla")


def test_fine_tuning(here, tmp_path):
    flags = ("--teacher", here / "teacher", "--epochs", "1", "--batch-size", "8")
    for name, more in (("all", ()), ("frozen", ("--freeze",))):
        run(finetune, here, *flags, "--workdir", tmp_path / name, *more)
        result = json.loads((tmp_path / name / "result.json").read_text())
        assert np.isfinite(result["test_mae"]) and not result["distilled"]
    embeddings = {}
    for name, workdir in (
        ("teacher", here / "teacher"),
        ("all", tmp_path / "all"),
        ("frozen", tmp_path / "frozen"),
    ):
        flags = ["--model", str(workdir), "--cache", str(here / "cache"), *COMMON]
        cli.call(embed, [*flags, str(here / "toys.npz"), "--output", str(tmp_path / "e.npz")])
        with np.load(tmp_path / "e.npz") as arrays:
            vectors = arrays["embeddings"]
        embeddings[name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # The frozen encoder is the teacher's; the other one started there and has moved.
    np.testing.assert_allclose(embeddings["frozen"], embeddings["teacher"], atol=1e-5)
    assert np.abs(embeddings["all"] - embeddings["teacher"]).max() > 1e-3
    with pytest.raises(UserError, match="--weight-decay would shrink"):
        run(finetune, here, "--freeze", "--weight-decay", "0.1", "--workdir", tmp_path / "x")


def test_crystals_without_a_value_are_counted(tmp_path, caplog):
    some = collection(24)
    for crystal in some[:5]:
        crystal.labels.clear()
    write_table(tmp_path / "toys.npz", some)
    warn_once.cache_clear()
    run(distill, tmp_path, "--vanilla", "--student", "cgcnn", "--epochs", "1",
        "--workdir", tmp_path / "run")  # fmt: skip
    (said,) = [x for x in caplog.messages if "have no" in x]
    assert said == (
        "5 of 24 crystals have no energy: training, validation and test are on the other 19"
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert sum(result[f"n_{side}"] for side in ("train", "validation", "test")) == 19


def test_a_teacher_predicts_no_property(here):
    with pytest.raises(UserError, match="holds crysgnn, which was trained without labels"):
        cli.call(predict, ["--model", str(here / "teacher"), str(here / "toys.npz")])
    with pytest.raises(UserError, match="--model .*nowhere: no trained model there"):
        cli.call(predict, ["--model", str(here / "nowhere"), str(here / "toys.npz")])
    with pytest.raises(UserError, match="cutoff=5.0 but the network .* cutoff=8.0"):
        cli.call(embed,
            ["--model", str(here / "teacher"), str(here / "toys.npz"), "--cutoff", "5",
             "--output", str(here / "e.npz")]
        )  # fmt: skip


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder on Python's path, and a function that writes a module of students into it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def test_the_worked_example_of_the_documentation(here, tmp_path, own):
    text = (ROOT / "docs" / "own_student.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(example.splitlines()) < 40
    name = own("my_students", example)
    workdir = tmp_path / "run"
    _distil(here, f"{name}:SchNetLike", "--workdir", workdir, "--set", "width=12")
    for twin in ("vanilla", "distilled"):
        result = json.loads((workdir / twin / "result.json").read_text())
        assert result["student"] == "my_students:SchNetLike" and np.isfinite(result["test_mae"])
    flags = ["--model", str(workdir / "distilled"), "--cache", str(here / "cache"), *COMMON]
    cli.call(predict, [*flags, str(here / "toys.npz"), "--output", str(tmp_path / "out.csv")])
    reported = _predictions(workdir / "distilled" / "predictions.csv")
    assert _predictions(tmp_path / "out.csv") == pytest.approx(reported, abs=1e-5)
    run(
        distill, here, "--student", f"{name}:SCHNET_LIKE", "--epochs", "1", "--vanilla",
        "--batch-size", "8",
        "--workdir", tmp_path / "defaults",
    )  # fmt: skip
    config = json.loads((tmp_path / "defaults" / "config.json").read_text())
    assert config["made_with"]["settings"]["learning_rate"] == 0.002


BROKEN = """
import flax.linen as nn
import jax.numpy as jnp
from crysgnn_jax import Prediction
class Tuple(nn.Module):
    def __call__(self, graph, train):
        return jnp.zeros(len(graph.n_node)), jnp.zeros((1, 2))
class Wide(nn.Module):
    def __call__(self, graph, train):
        return Prediction(jnp.zeros((len(graph.n_node), 1)), jnp.zeros((3, 2)))
class Pooled(nn.Module):
    def __call__(self, graph, train):
        return Prediction(jnp.zeros(len(graph.n_node)), jnp.zeros((len(graph.n_node), 2)))
class Fails(nn.Module):
    def __call__(self, graph, train):
        return graph.nodes["positions"]
class Cached(nn.Module):
    @nn.compact
    def __call__(self, graph, train):
        self.variable("cache", "x", jnp.zeros, ()).value += 1.0
class Needs(nn.Module):
    width: int
    def __call__(self, graph, train):
        pass
number = 3
"""


@pytest.mark.parametrize(
    "name, message",
    [
        ("broken:Tuple", "it returned tuple; return crysgnn_jax.Prediction"),
        ("broken:Wide", r"its prediction has shape \(2, 1\) for a batch of 2, not \[n_graph\]"),
        (
            "broken:Pooled",
            r"its embeddings have shape \(2, 2\) for a batch of 3 atoms, not \[n_node, d\]",
        ),
        ("broken:Fails", "calling it as module.graph, train. failed: KeyError: 'positions'"),
        ("broken:Cached", "calling it as module.graph, train. failed: "),
        ("broken:Needs", "Needs cannot be made"),
        ("torn:X", "torn cannot be imported .SyntaxError"),
        ("wrong:X", "Recipe.loss='huber'.: there is mse"),
        (":X", "there is cgcnn"),
        ("broken:number", "number is not a class of flax.linen.Module"),
        ("broken:Missing", "broken has no Missing"),
        ("no_such_package:X", "no_such_package cannot be imported"),
        ("painn", "there is cgcnn, crysxpp, gatgnn, alignn, or a Flax module"),
    ],
)
def test_modules_that_break_the_protocol_are_refused(here, tmp_path, own, name, message):
    own("broken", BROKEN)
    own("torn", "def x(:")
    own(
        "wrong",
        "from crysgnn_jax import Network, Recipe; X = Network(int, recipe=Recipe(loss='huber'))",
    )
    with pytest.raises(UserError, match=message) as caught:
        _distil(here, name, "--vanilla", "--workdir", tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


DROPOUT = """
import flax.linen as nn
import jax.numpy as jnp
from crysgnn_jax import Batch, Prediction
class Drop(nn.Module):
    width: int = 4
    @nn.compact
    def __call__(self, graph, train):
        atoms = nn.Embed(101, self.width)(graph.nodes["species"])
        atoms = nn.Dropout(0.5, deterministic=not train)(atoms)
        return Prediction(nn.Dense(1)(Batch(graph).mean_of_atoms(atoms))[:, 0], atoms)
"""


def test_dropout_and_changed_code(here, tmp_path, own):
    name = own("dropping", DROPOUT)
    flags = ("--vanilla", "--workdir", tmp_path / "run")
    _distil(here, f"{name}:Drop", *flags)
    # The same command after the module was changed is another run.
    own(name, DROPOUT.replace("0.5", "0.4"))
    with pytest.raises(UserError, match="holds a run with code "):
        _distil(here, f"{name}:Drop", *flags)
    own(name, DROPOUT.replace("width: int = 4", "width: int = 5"))
    with pytest.raises(UserError, match="holds a run with (code|model.width) "):
        _distil(here, f"{name}:Drop", *flags)


@pytest.mark.parametrize(
    "pair, message",
    [
        ("depth=3", "--set depth=3: CGCNN has the settings .*n_convolutions"),
        ("width", "--set width: write NAME=VALUE"),
        ("cutoff=5", "--set cutoff=5: CGCNN has the settings"),
        ("freeze_encoder=True", "--set freeze_encoder=True: CGCNN has the settings"),
        ("width=abc", "--set width=abc: width is of type int of at least 0"),
        ("n_hidden=-1", "--set n_hidden=-1: n_hidden is of type int of at least 0"),
        ("embedding_bias=1", "--set embedding_bias=1: embedding_bias is of type bool"),
    ],
)
def test_settings_of_the_network(here, tmp_path, pair, message):
    with pytest.raises(UserError, match=message):
        _distil(here, "cgcnn", "--vanilla", "--workdir", tmp_path / "run", "--set", pair)
    assert not (tmp_path / "run").exists()


def test_output_is_whole_or_not_there(here, tmp_path):
    (tmp_path / "target.npz").write_text("old")
    (tmp_path / "link.npz").symlink_to(tmp_path / "target.npz")
    flags = [str(here / "toys.npz"), "--cache", str(here / "cache"), *COMMON]
    with pytest.raises(UserError, match="no trained model there"):
        cli.call(predict, ["--model", "nowhere", *flags, "--output", str(tmp_path / "new.csv")])
    assert not (tmp_path / "new.csv").exists()
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match="is a directory; name a file"):
        output = str(tmp_path / "folder.npz")
        cli.call(embed, ["--model", str(here / "teacher"), *flags, "--output", output])
    cli.call(
        embed, ["--model", str(here / "teacher"), *flags, "--output", str(tmp_path / "link.npz")]
    )
    assert (tmp_path / "link.npz").is_symlink()
    assert (tmp_path / "target.npz").read_bytes().startswith(b"PK")
