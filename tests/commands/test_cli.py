"""The command line itself: commands, flags and how messages name them."""

import dataclasses
import errno
import importlib
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from crysgnn_jax.__main__ import COMMANDS, overview
from crysgnn_jax.bars import Bar
from crysgnn_jax.commands import cli, compare, debias, distill, predict, pretrain
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.registry import find_network
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
    width = max(map(len, COMMANDS))
    for name in COMMANDS:
        about = importlib.import_module(f"crysgnn_jax.commands.{name}").__doc__.split("\n")[0]
        assert f"  {name.ljust(width)}  {about}" in done.stdout.splitlines()


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
        "finally: print([m for m in ('jax', 'numpy', 'ase', 'rich', 'yaml') if m in sys.modules])"
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


@pytest.mark.parametrize("on_a_terminal", [False, True])
def test_what_the_library_warns_of_is_a_line_of_the_command(monkeypatch, on_a_terminal):
    stream = io.StringIO()
    stream.isatty = lambda: on_a_terminal
    monkeypatch.setattr(sys, "stderr", stream)
    raw = logging.StreamHandler(stream)  # as some libraries put one there
    raw.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    logging.getLogger().addHandler(raw)
    try:
        with cli.warnings_as_lines():
            bar = Bar("crystals", 3, "crystals", stream) if on_a_terminal else None
            logging.getLogger("crysgnn_jax.training.lesson").warning("seen %d of %d", 1, 94)
            logging.getLogger("crysgnn_jax.training.lesson").info("nothing")
            if bar is not None:
                bar.close()
        logging.getLogger("crysgnn_jax").warning("as before")
    finally:
        logging.getLogger().removeHandler(raw)
    said = stream.getvalue()
    assert "warning: seen 1 of 94\n" in said
    assert said.count("seen 1 of 94") == 1 and "nothing" not in said
    assert said.endswith("WARNING:crysgnn_jax:as before\n")


def test_a_command_says_what_could_not_be_excluded_as_a_warning(tmp_path):
    write(tmp_path / "Cu.cif", bulk("Cu"))
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / "Al.cif", bulk("Al"))
    (tmp_path / "out" / "bad.cif").write_text("data_bad\n")
    words = (tmp_path / "Cu.cif", "--exclude", tmp_path / "out", "--output", tmp_path / "set")
    done = crysgnn("curate", *map(str, words), "--workers", "1")
    assert done.returncode == 0
    (said,) = [line for line in done.stderr.splitlines() if "cannot be used" in line]
    assert said.startswith("warning: 1 of the 2 crystals of ") and "(bad: bad.cif " in said


def test_the_kind_of_network_has_its_old_flag_too():
    for flag in ("--network", "--teacher"):
        assert pretrain.parser().parse_args([flag, "crysae"]).network == "crysae"


def test_version():
    import crysgnn_jax

    assert crysgnn("--version").stdout.strip() == f"crysgnn {crysgnn_jax.__version__}"


PRINT = """
import sys
from crysgnn_jax.commands import cli
with cli.as_a_process():
    for _ in range(100_000):
        print(sys.argv[1])
"""


def test_a_reader_that_goes_is_no_error():
    writer = subprocess.Popen(
        [sys.executable, "-c", PRINT, "x"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"x\n"
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait(30) == 128 + 13


def test_a_locale_of_ascii_shows_all_letters(tmp_path):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONIOENCODING", None)
    done = subprocess.run(
        [sys.executable, "-c", PRINT.replace("100_000", "1"), "né Å"],
        env=environment, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout.decode()) == (0, b"", "né Å\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_is_told_in_one_line(capsys, number):
    with pytest.raises(SystemExit) as stop:
        with cli.as_a_process():
            raise OSError(number, os.strerror(number), "/somewhere/file")
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: /somewhere/file cannot be written (")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder of Linux")
def test_a_folder_that_takes_no_files_is_told_before_the_work(tmp_path):
    with pytest.raises(UserError, match="/proc/a.csv cannot be written"):
        cli.require_writable(Path("/proc/a.csv"))
    cli.require_writable(tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


def test_output_is_there_whole_or_not_at_all(tmp_path):
    with cli.output(tmp_path / "a.csv", "w") as file:
        file.write("né")
    with pytest.raises(UserError, match="a.csv cannot be written .No space.*; make room"):
        with cli.output(tmp_path / "a.csv", "w") as file:
            file.write("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "né"


@pytest.mark.parametrize(
    "command, words, message",
    [
        (distill, ["--epochs", "0"], "error: --epochs 0: give a whole number greater than 0 (see"),
        (distill, ["--epochs", "x"], "error: --epochs x: give a whole number greater than 0 (see"),
        (distill, ["--weight", "2"], "error: --weight 2: give a number from 0 to 1 (see"),
        (compare, ["--seeds", "0,1"], "error: --seeds 0,1: give how many, such as 2 (see"),
        (distill, ["--epoch", "3"], "unrecognized arguments: --epoch"),
    ],
)
def test_what_a_flag_wants_is_said(command, words, message, capsys):
    student = ["--student", "cgcnn"] if command is distill else []
    with pytest.raises(SystemExit) as caught:
        command.parser().parse_args([*student, *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command, words, message",
    [
        (
            debias,
            ["--data", "good", "--dft-column", "a", "--experiment-column", "b", "--weight", "0"],
            "--weight 0 is the student alone, which is judged anyway; give more",
        ),
        (distill, ["--student", "cgnn"], "--student cgnn: did you mean cgcnn? there is"),
        (distill, ["--student", "cgcnn", "--data", "labelless"], "has 2 structures and no labels"),
        (distill, ["--student", "cgcnn", "--data", "good/id_prop.csv"], "give the folder, good"),
        (
            distill,
            ["--student", "cgcnn", "--data", "elastic", "--split", "column:foo"],
            "--split column:foo: elastic has no 'foo' among its tags: it has none",
        ),
        (
            distill,
            ["--student", "cgcnn", "--data", "good", "--split", "column:foo"],
            "good has no 'foo' among its tags: it has none",
        ),
        (predict, ["--model", "twins", "good"], "holds twins; name twins/distilled or twins/vanil"),
        (predict, ["--model", "cgcnn", "good"], "crysgnn-mp, crysgnn-mp-cgcnn"),
        (predict, ["--model", "crysgnn-mp", "good"], "predicts no property"),
        (distill, ["--student", "no.py:Net"], "--student no.py:Net: no.py cannot be imported"),
    ],
)
def test_mistakes_are_told_with_the_way_out(command, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("labelless", "good"):
        folder = tmp_path / name
        folder.mkdir()
        for k in range(2):
            write(folder / f"{k}.cif", bulk("NaCl", "rocksalt", 5.6 + 0.1 * k))
    (tmp_path / "good" / "id_prop.csv").write_text("0,1\n1,2\n")
    for variant in ("distilled", "vanilla"):
        (tmp_path / "twins" / variant).mkdir(parents=True)
        (tmp_path / "twins" / variant / "config.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        cli.call(command, words)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_any_case_of_a_students_name(tmp_path):
    assert find_network("CGCNN") is find_network("cgcnn")
