"""Flags from a file, and a run's name."""

import json
import shutil
from pathlib import Path

import pytest

from crysgnn_jax.commands import cli, compare, distill, pretrain
from crysgnn_jax.commands.config import flags_of_run
from crysgnn_jax.commands.students import parse_settings
from crysgnn_jax.models.registry import find_network
from crysgnn_jax.training.predictor import TrainedModel
from toy_runs import prepare, run


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("config"), 16)


def parsed(command, path, text, *words, name="run.yml"):
    (path / name).write_text(text)
    return command.parser().parse_args([*words, "--config", str(path / name)])


def test_a_file_says_what_flags_say(tmp_path):
    text = """
    # what is not said is at its default
    student: cgcnn
    data: my_cifs/
    epochs: 7
    learning-rate: 1e-3
    raw_targets: true
    strict: false
    limit: null
    set: {width: 32, n_convolutions: 2}
    unlabelled: [a.npz, b.npz]
    """
    args = parsed(distill, tmp_path, text)
    assert (args.student, args.data, args.epochs) == ("cgcnn", "my_cifs/", 7)
    assert (args.learning_rate, args.raw_targets, args.strict, args.limit) == (
        *(1e-3, True, False, None),
    )
    assert args.set == ["width=32", "n_convolutions=2"] and args.unlabelled == ["a.npz", "b.npz"]
    assert args.patience == 30
    assert parsed(distill, tmp_path, json.dumps({"student": "x"}), name="a.json").student == "x"


def test_what_is_given_on_the_command_line_counts_before_the_file(tmp_path):
    text = "student: cgcnn\nepochs: 7\nweight: 0.3\nset: {width: 32}\nworkdir: there"
    words = ("--epochs", "9", "--vanilla", "--set", "width=8", "--name", "mine")
    args = parsed(distill, tmp_path, text, *words)
    assert (args.epochs, args.weight, args.vanilla, args.set) == (9, None, True, ["width=8"])
    assert args.workdir == Path("runs/mine")


def test_lists_and_weights_are_written_as_such(tmp_path):
    args = parsed(compare, tmp_path, "students: [cgcnn, alignn]\ntrain_fractions: [0.5, 1]")
    assert args.students == ("cgcnn", "alignn") and args.train_fractions == (1.0, 0.5)
    args = parsed(pretrain, tmp_path, "objectives: {space_group: 0.5}\ndata: [a/, b/]")
    assert args.objectives == [("space_group", 0.5)] and args.data == ["a/", "b/"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("student: cgcnn\nepoch: 3", "distill has no epoch; did you mean epochs?"),
        ("student: cgcnn\nepochs: few", "--epochs few: give a whole number greater than 0"),
        ("student: cgcnn\nstrict: 3", "strict is true or false, not 3"),
        ("command: pretrain\nepochs: 3", "is of the command pretrain; give it to crysgnn pretrain"),
        ("epochs: 3", "the following arguments are required: --student"),
        ("- 3", "give flags by name, a line each"),
        ("a: [", "is neither YAML nor JSON"),
        ("student: cgcnn\nsplit: {a: [1]}", "split has a value within a value"),
    ],
)
def test_what_a_file_says_wrongly_is_told_in_one_line(tmp_path, capsys, text, message):
    with pytest.raises(SystemExit) as stopped:
        parsed(distill, tmp_path, text)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and message in said and said.count("\n") == 1
    assert f"--config {tmp_path / 'run.yml'}" in said


def test_a_file_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        distill.parser().parse_args(["--student", "cgcnn", "--config", "nowhere.yml"])
    assert "--config nowhere.yml: cannot be read" in capsys.readouterr().err


def test_what_a_pre_training_run_is_set_to_is_in_its_flags():
    settings = {"epochs": 3, "accumulate": 4, "weights": {"contrastive": 1.0},
                "contrastive": {"temperature": 0.1}}  # fmt: skip
    made_with = {"command": "pretrain", "network": "cgcnn", "data": ["a"], "settings": settings}
    assert flags_of_run({"made_with": made_with}) == {
        "command": "pretrain", "network": "cgcnn", "data": ["a"], "epochs": 3, "accumulate": 4,
        "temperature": 0.1, "objectives": {"contrastive": 1.0},
    }  # fmt: skip


@pytest.mark.slow
def test_the_settings_of_a_run_make_it_again(here):
    flags = ("--student", "cgcnn", "--teacher", here / "teacher", "--weight", "0.3")
    flags += ("--epochs", "1", "--set", "n_convolutions=1", "--batch-size", "9", "--unit", "eV")
    run(distill, here, *flags, "--workdir", here / "first")
    again = ["--cache", here / "cache", "--workers", "1", "--workdir"]
    for command, name in ((distill, "first"), (pretrain, "teacher")):
        words = ["--config", here / name / "config.json", *again, here / f"{name}2"]
        cli.call(command, list(map(str, words)))
        first, second = (json.loads((here / x / "config.json").read_text())["made_with"]
                         for x in (name, f"{name}2"))  # fmt: skip
        assert first == second
    results = [json.loads((here / x / "result.json").read_text()) for x in ("first", "first2")]
    assert results[0]["test_mae"] == results[1]["test_mae"] and results[0]["unit"] == "eV"


def test_the_settings_of_each_kind_of_run_are_flags_of_its_command():
    common = {"data": "elastic", "limit": None, "devices": 1, "featuriser": {"cutoff": 8.0}}
    settings = {"student": "fine-tuned", "property": "x", "unit": "", "epochs": 3, "weight": 0.0,
                "pull": "released", "taught_by": 0, "raw_targets": False}  # fmt: skip
    model = {"width": 64, "freeze_encoder": True}
    tuned = {**common, "command": "finetune", "settings": settings, "model": model,
             "split": {"rule": "formula"}}  # fmt: skip
    named = {"teacher": "crysgnn-mp"}
    assert flags_of_run({"made_with": tuned, "named": named}) == {
        "command": "finetune", "data": "elastic", "devices": 1, "cutoff": 8.0, "split": "formula",
        "freeze": True, "property": "x", "epochs": 3, "raw_targets": False, "teacher": "crysgnn-mp",
    }  # fmt: skip
    teacher = {**common, "command": "pretrain", "network": "crysgnn", "data": ["a", "b"],
               "model": {"width": 16, "n_convolutions": 2, "cutoff": 8.0},
               "settings": {"epochs": 2, "weights": {"connection": 0.25}}}  # fmt: skip
    assert flags_of_run({"made_with": teacher}) == {
        "command": "pretrain", "data": ["a", "b"], "devices": 1, "cutoff": 8.0, "width": 16,
        "n_convolutions": 2, "network": "crysgnn", "recipe": "released",
        "objectives": {"connection": 0.25}, "epochs": 2,
    }  # fmt: skip
    # Training from Python is what the command does.
    assert flags_of_run({"made_with": {"command": "train"}})["command"] == "distill"


def test_a_setting_that_is_as_it_is_anyway_is_none():
    """A student with settings of its own has no start that comes with the package."""
    network = find_network("cgcnn")
    assert parse_settings(["width=64", "n_convolutions=2"], network) == {"n_convolutions": 2}


def test_code_that_a_run_names_is_not_imported(tmp_path, capsys):
    made_with = {"command": "distill", "settings": {"student": "evil:Student"}}
    text = json.dumps({"made_with": made_with})
    with pytest.raises(SystemExit):
        parsed(distill, tmp_path, text, name="config.json")
    assert "where you trust it, give --student evil:Student too" in capsys.readouterr().err
    args = parsed(distill, tmp_path, text, "--student", "evil:Student", name="config.json")
    assert args.student == "evil:Student"


def test_a_name_is_a_folder_of_runs(here, tmp_path, monkeypatch):
    shutil.copytree(here / "teacher", tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    assert TrainedModel.load("mine").path == Path("runs/mine")
    words = ["--student", "cgcnn"]
    assert distill.parser().parse_args([*words, "--name", "mine"]).workdir == Path("runs/mine")
    for more in (["--name", "a/b"], ["--name", "a", "--workdir", "b"]):
        with pytest.raises(SystemExit):
            distill.parser().parse_args([*words, *more])
