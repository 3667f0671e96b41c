"""`crysgnn curate`: what it prints, writes and refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from crysgnn_jax.commands import cli, curate
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders of structures, of which one is there twice, and one is broken."""
    monkeypatch.chdir(tmp_path)
    for folder, names in (("one", ("Cu", "Al")), ("two", ("Cu", "Fe"))):
        Path(folder).mkdir()
        for name in names:
            write(f"{folder}/{name}.cif", bulk(name, cubic=folder == "two"))
    Path("two/broken.cif").write_text("data_broken\n")
    return tmp_path


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    "words", [["one", "two"], ["--source", "one", "--source", "two"], ["one", "--data", "two"]]
)
def test_it_writes_a_set_and_tells_what_became_of_the_crystals(folders, capsys, words):
    cli.call(curate, [*words, "--output", "set", "--workers", "1"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[:5] == [
        "source  read  skipped  excluded  duplicates  kept",
        "------  ----  -------  --------  ----------  ----",
        "one     2     0        0         0           2",
        "two     3     1        0         1           1",
        "all     5     1        0         1           3",
    ]
    assert "3 crystals of 3 elements and 2 space groups: " in printed
    assert "duplicates: 1 of two in one" in printed
    assert rows("set/duplicates.csv") == [
        ["id", "source", "duplicate_of", "its_source"],
        ["two/Cu", "two", "Cu", "one"],
    ]
    assert [row[::2] for row in rows("set/skipped.csv")[1:]] == [["broken", "two"]]
    told = json.loads(Path("set/report.json").read_text())
    assert (told["read"], told["skipped"], told["duplicates"], told["kept"]) == (5, 1, 1, 3)
    assert told["elements"] == {"Al": 1, "Fe": 1, "Cu": 1}
    assert told["crystal_systems"]["cubic"] == 3 and told["space_groups"] == {"225": 2, "229": 1}
    assert {"command", "versions", "seconds", "steps"} <= set(told)
    assert Path("set/report.png").read_bytes().startswith(b"\x89PNG")
    assert read("set").ids().tolist() == ["Al", "Cu", "Fe"]
    cli.call(curate, [*words, "--output", "set"])
    assert capsys.readouterr().out == "set is finished: 3 crystals\n"


def test_what_is_excluded_stays_out_and_is_listed(folders, capsys):
    cli.call(curate, ["one", "--exclude", "two", "--output", "set", "--workers", "1"])
    assert read("set").ids().tolist() == ["Al"]
    assert rows("set/excluded.csv")[1:] == [["Cu", "one", "Cu", "two"]]
    assert "one     2     0        1         0           1" in capsys.readouterr().out


def test_what_was_to_be_excluded_and_cannot_be_used_is_told_and_listed(folders, caplog):
    cli.call(curate, ["one", "--exclude", "two", "--output", "set", "--workers", "1"])
    (line,) = caplog.messages
    assert line.startswith("1 of the 3 crystals of two that are to be excluded cannot be used")
    listed = rows("set/skipped.csv")
    assert listed[0] == ["id", "reason", "source", "to_be_excluded"]
    assert [(row[0], *row[2:]) for row in listed[1:]] == [("broken", "two", "yes")]
    told = json.loads(Path("set/report.json").read_text())
    assert (told["skipped"], told["to_be_excluded_and_skipped"]) == (0, 1)
    assert sum(told["to_be_excluded_and_skipped_by_reason"].values()) == 1


@pytest.mark.parametrize("name", ["two/broken.cif", "other.json"])
def test_where_nothing_of_what_is_to_be_excluded_can_be_used_there_is_no_set(folders, name):
    Path("other.json").write_text('{"a": 1}')
    words = ["one", "--output", "set", "--workers", "1"]
    with pytest.raises(UserError, match=f"--exclude {name}: nothing in it can be used"):
        cli.call(curate, [*words, "--exclude", "two", "--exclude", name])
    cli.call(curate, words)
    assert len(read("set")) == 2


def test_a_split_stands_for_its_test_crystals(folders):
    Path("splits.json").write_text('{"train": ["Cu"], "validation": [], "test": ["Al"]}')
    words = ["one", "--exclude", "splits.json", "--output", "set", "--workers", "1"]
    cli.call(curate, words)
    assert read("set").ids().tolist() == ["Cu"]
    assert rows("set/excluded.csv")[1:] == [["Al", "one", "Al", "splits.json (one)"]]


@pytest.mark.parametrize(
    "words, message",
    [
        (["one"], "--output"),
        (["--output", "set"], "there is nothing to read; name data sets"),
        (["one", "nowhere", "--output", "set"], "--data nowhere: no such file"),
        (["two", "--output", "one"], "--output one holds Al.cif, and is no curated set; name"),
        (["one", "--output", "one"], "--output one is one, which the set is made from; name"),
        (
            ["two", "--exclude", "one", "--output", "./one/"],
            "one is one, which the set excludes; name",
        ),
        (["one", "--output", "memory://x/y", "--workers", "2"], "name a directory, or pass --work"),
        (["two", "--output", "one/Al.cif"], "--output one/Al.cif is a file; name a directory"),
        (["one", "--output", "set", "--tolerance", "0"], "--tolerance 0: give a number greater"),
        (["one", "one", "--output", "set"], "given twice"),
        (["one", "--exclude", "nowhere", "--output", "set"], "--exclude nowhere: no such file"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(folders, capsys, words, message):
    with pytest.raises((UserError, SystemExit)) as caught:
        cli.call(curate, ["--workers", "1", *words])
    said = str(caught.value) + capsys.readouterr().err
    assert message in said and len(said.strip().splitlines()) == 1


def test_a_set_that_is_named_as_its_own_source_is_kept(folders):
    cli.call(curate, ["one", "--output", "mine", "--workers", "1"])
    before = {file: file.read_bytes() for file in Path("mine").rglob("*") if file.is_file()}
    for words in (["mine", "two"], ["two", "--exclude", "mine"], ["mine", "--limit", "1"]):
        with pytest.raises(UserError, match="--output mine is mine, which the set"):
            cli.call(curate, [*words, "--output", "mine", "--overwrite", "--workers", "1"])
    assert all(file.read_bytes() == content for file, content in before.items())


def test_a_set_may_lie_in_a_folder_that_it_is_made_from(folders):
    before = sorted(Path("one").iterdir())
    for _ in range(2):
        cli.call(curate, ["one", "--output", "one/set", "--workers", "1", "--overwrite"])
        assert sorted(Path("one").iterdir()) == sorted([*before, Path("one/set")])


def test_a_damaged_set_names_the_flag_that_helps(folders, capsys):
    words = ["one", "--output", "mine", "--workers", "1"]
    cli.call(curate, words)
    Path("mine/shards/00000.safetensors").unlink()
    with pytest.raises(UserError, match="00000.safetensors is missing; pass --overwrite to make"):
        cli.call(curate, words)
    cli.call(curate, [*words, "--overwrite"])
    assert len(read("mine")) == 2


def test_help_waits_for_neither_jax_nor_matplotlib():
    code = (
        "import sys; from crysgnn_jax.commands import curate; curate.parser(); "
        "sys.exit(bool({'jax', 'matplotlib', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_work_needs_no_jax():
    code = (
        "import sys, crysgnn_jax.curation.pipeline, crysgnn_jax.commands.data; "
        "import crysgnn_jax.reporting.curation; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_ctrl_c_ends_it_in_one_line_and_the_same_command_goes_on(tmp_path):
    words = ["-m", "crysgnn_jax", "curate", "elastic", "--output", str(tmp_path / "set"),
             "--shard-size", "200", "--workers", "2"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = lambda: subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process = start()
    end = time.monotonic() + 60
    while not list((tmp_path / "set").glob("drafts/0*.safetensors")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("interrupted; what is finished is kept: the same command")
    assert len(said.splitlines()) == 1
    printed, said = (process := start()).communicate(timeout=120)
    assert process.returncode == 0 and "of 6 drafts were there" in said
    assert printed.startswith("source ")
