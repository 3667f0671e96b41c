"""The command line itself: commands, flags and how messages name them."""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from crysgnn_jax.__main__ import COMMANDS, overview
from crysgnn_jax.commands import cli, compare, distill, predict, pretrain
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.settings import settings_of
from crysgnn_jax.training.settings import PropertySettings, TrainingSettings

ROOT = Path(__file__).resolve().parents[2]


def crysgnn(*words):
    return subprocess.run(
        [sys.executable, "-m", "crysgnn_jax", *words], cwd=ROOT, capture_output=True, text=True
    )


def test_without_a_command_all_are_listed():
    done = crysgnn()
    assert done.returncode == 0 and done.stdout.strip() == overview()
    for name in COMMANDS:
        about = importlib.import_module(f"crysgnn_jax.commands.{name}").__doc__.split("\n")[0]
        assert f"  {name.ljust(8)}  {about}" in done.stdout.splitlines()


def test_there_is_an_entry_point_for_each_command():
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"__init__"}
    assert scripts == set(COMMANDS)


@pytest.mark.parametrize(
    "words, message",
    [
        (["destil"], "crysgnn: error: destil: there is pretrain, distill"),
        (["pretrain", "--epo", "3"], "unrecognized arguments: --epo 3"),
        (["predict"], "--model"),
    ],
)
def test_a_mistyped_word_is_answered_in_one_line(words, message):
    done = crysgnn(*words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_answered_before_anything_heavy_is_imported(name):
    code = (
        "import sys; sys.argv = ['crysgnn', sys.argv[1], '--help']\n"
        "from crysgnn_jax.__main__ import main\n"
        "try: main()\n"
        "finally: print([m for m in ('jax', 'numpy', 'ase', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"usage: crysgnn {name} ")
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_examples_are_shown_under_the_name_the_command_was_called_by(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["experiments/distill.py"])
    help = distill.parser().format_help()
    assert "  python -m experiments.distill --student cgcnn\n" in help
    assert "crysgnn distill" not in help


@pytest.mark.parametrize(
    "command, settings",
    [
        (distill, TrainingSettings),
        (distill, PropertySettings),
        (distill, FeaturiserSettings),
        (pretrain, FeaturiserSettings),
    ],
)
def test_a_setting_says_the_same_as_a_flag(command, settings):
    actions = {action.dest: action for action in command.parser()._actions}
    for field in settings_of(settings):
        action = actions[field.name]
        if field.name not in ("patience", "weight"):  # which distill has its own words for
            assert field.metadata["help"].split(" (default")[0] in action.help
        if settings is FeaturiserSettings:  # the teacher or the student decides what is not given
            assert action.default is None
        elif field.name not in ("patience", "weight"):
            assert action.default == field.default
        assert tuple(action.choices or ()) == field.metadata["choices"]


def test_settings_stand_once():
    for settings in (TrainingSettings, PropertySettings, FeaturiserSettings):
        for field in dataclasses.fields(settings):
            if field.name not in ("property", "unit"):  # which the data decide
                assert field.metadata["help"], field.name


def test_messages_name_the_flags_of_the_command():
    message = "`learning_rate` is too high for `student` cgcnn in `data`, and `seldom` is no flag"
    assert cli.as_flags(message, distill.parser()) == (
        "--learning-rate is too high for --student cgcnn in --data, and seldom is no flag"
    )
    assert "--students cgcnn" in cli.as_flags(message, compare.parser())
    # Its crystals may be given without a flag, and with.
    said = cli.as_flags("`data` x.cif: no such file", predict.parser())
    assert said == "--data x.cif: no such file"
    args = predict.parser().parse_args(["--model", "m", "a.cif", "--data", "b.cif"])
    assert [*args.sources, *args.data] == ["a.cif", "b.cif"]


def test_the_kind_of_network_has_its_old_flag_too():
    for flag in ("--network", "--teacher"):
        assert pretrain.parser().parse_args([flag, "crysae"]).network == "crysae"


def test_version():
    import crysgnn_jax

    assert crysgnn("--version").stdout.strip() == f"crysgnn {crysgnn_jax.__version__}"
