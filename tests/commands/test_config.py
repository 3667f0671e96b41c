"""Flags from a file, and a run's name."""

import json
from pathlib import Path

import pytest

from crysgnn_jax.commands import cli, compare, distill, finetune, pretrain
from toy_runs import COMMON, prepare, run


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("config"))


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


@pytest.mark.parametrize("weight", ["0", "0.3"])
def test_the_settings_of_a_run_make_it_again(here, weight):
    flags = ("--student", "cgcnn", "--teacher", here / "teacher", "--weight", weight)
    flags += ("--epochs", "1", "--set", "width=8", "--batch-size", "9", "--unit", "eV")
    run(distill, here, *flags, "--workdir", here / f"first-{weight}")
    config = here / f"first-{weight}" / "config.json"
    more = ["--cache", str(here / "cache"), "--workers", "1"]
    again = here / f"again-{weight}"
    cli.call(distill, ["--config", str(config), *more, "--workdir", str(again)])
    made_with = [json.loads((x / "config.json").read_text())["made_with"]
                 for x in (config.parent, again)]  # fmt: skip
    assert made_with[0] == made_with[1]
    assert made_with[0]["settings"]["unit"] == "eV"
    results = [json.loads((x / "result.json").read_text())["test_mae"]
               for x in (config.parent, again)]  # fmt: skip
    assert results[0] == results[1]


def test_the_settings_of_a_teacher_and_of_a_tuned_one_make_them_again(here):
    more = ["--cache", str(here / "cache"), "--workers", "1"]
    config = here / "teacher" / "config.json"
    cli.call(pretrain, ["--config", str(config), *more, "--workdir", str(here / "teacher2")])
    run(finetune, here, "--teacher", here / "teacher", "--freeze", "--epochs", "1",
        "--workdir", here / "tuned")  # fmt: skip
    config = here / "tuned" / "config.json"
    cli.call(finetune, ["--config", str(config), *more, "--workdir", str(here / "tuned2")])
    for name in ("teacher", "tuned"):
        first, again = (json.loads((here / x / "config.json").read_text())["made_with"]
                        for x in (name, f"{name}2"))  # fmt: skip
        assert first == again


def test_code_that_a_run_names_is_not_imported(tmp_path, capsys):
    made_with = {"command": "distill", "settings": {"student": "evil:Student"}}
    text = json.dumps({"made_with": made_with})
    with pytest.raises(SystemExit):
        parsed(distill, tmp_path, text, name="config.json")
    assert "where you trust it, give --student evil:Student too" in capsys.readouterr().err
    args = parsed(distill, tmp_path, text, "--student", "evil:Student", name="config.json")
    assert args.student == "evil:Student"


def test_a_name_is_a_folder_of_runs(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    args = ["--student", "cgcnn", "--vanilla", "--epochs", "1", "--data", "toys.npz"]
    cli.call(distill, [*args, "--name", "mine", "--cache", "cache", *COMMON])
    assert (here / "runs" / "mine" / "result.json").exists()
    from crysgnn_jax.training.predictor import TrainedModel

    assert TrainedModel.load("mine").property == "energy"
    for words in (["--name", "a/b"], ["--name", "a", "--workdir", "b"]):
        with pytest.raises(SystemExit):
            distill.parser().parse_args([*args, *words])
