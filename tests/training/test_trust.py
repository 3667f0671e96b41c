"""A network's folder from elsewhere runs no code that the user has not asked for."""

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest

from crysgnn_jax.errors import UserError
from crysgnn_jax.members import code_of, find_member, import_module
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.shipped import FOLDER

CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
from crysgnn_jax.models.cgcnn import NETWORK as Net
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A folder whose ``config.json`` names a module beside it, and the mark which that leaves."""
    folder, mark = tmp_path / "published", tmp_path / "imported"
    shutil.copytree(FOLDER / "crysgnn-mp-cgcnn", folder)
    config = json.loads((folder / "config.json").read_text())
    config["made_with"]["network"] = "published.theirs:Net"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder, mark


def test_code_that_a_run_names_is_not_imported(stranger):
    folder, mark = stranger
    with pytest.raises(UserError, match="names code .* published.theirs:Net.*`trust_code`"):
        TrainedModel.load(folder)
    assert not mark.exists()
    import_module("published.theirs", "trust_code", "published.theirs")
    assert TrainedModel.load(folder).name == "published.theirs:Net"
    assert mark.exists()


def test_the_flag_names_the_module(stranger):
    folder, mark = stranger
    words = [sys.executable, "-m", "crysgnn_jax", "embed", "--model", folder, "dielectric"]
    words += ["--limit", "3", "--workers", "1", "--output", folder / "x.npz"]
    refused = subprocess.run(words, capture_output=True, text=True)
    assert refused.returncode == 2 and "--trust-code published.theirs" in refused.stderr
    assert refused.stderr.count("\n") == 1 and not mark.exists()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.parent), *sys.path])}
    trusted = subprocess.run(
        [*words, "--trust-code", "published.theirs"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert trusted.returncode == 0, trusted.stderr
    assert mark.exists() and (folder / "x.npz").exists()


def test_own_code_by_its_file(tmp_path, monkeypatch):
    (tmp_path / "own_file.py").write_text("class Thing: pass\n")
    path = f"{tmp_path / 'own_file.py'}:Thing"
    thing = find_member(path, "student", "")
    assert thing.__module__ == "own_file"
    assert pickle.loads(pickle.dumps(thing)) is thing
    assert find_member(path, "student", "") is thing
    with pytest.raises(UserError, match="has no Other"):
        find_member(path.replace("Thing", "Other"), "student", "")
    with pytest.raises(UserError, match="nowhere.py cannot be imported"):
        find_member("nowhere.py:Thing", "student", "")


def test_files_of_one_name_are_told_apart(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "csv.py").write_text(f"class Thing: of = {folder!r}\n")
    first, second = (find_member(f"{tmp_path / x}/csv.py:Thing", "student", "") for x in "ab")
    assert (first.of, second.of) == ("a", "b") and code_of(first) != code_of(second)
    # Python's own is where it was.
    assert sys.modules.get("csv", csv) is csv
    for folder in ("a", "b"):
        monkeypatch.chdir(tmp_path / folder)
        assert find_member("csv.py:Thing", "student", "").of == folder


def test_a_file_that_was_mended_is_read_again(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("class Thing: pass\nraise ValueError('not yet')\n")
    with pytest.raises(UserError, match="not yet"):
        find_member(f"{file}:Thing", "student", "")
    file.write_text("class Thing: pass\n")
    assert find_member(f"{file}:Thing", "student", "").__name__ == "Thing"
