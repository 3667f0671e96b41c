"""Bad input: one line that names what is wrong and the way out, exit code 2, nothing lost."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from crysgnn_jax.commands import cli, distill, pretrain
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from toys import collection, rocksalt

ROOT = Path(__file__).resolve().parents[2]
COMMON = ["--workers", "1", "--devices", "1"]


def save_cif(path, crystal):
    write(
        path,
        Atoms(
            crystal.species, cell=crystal.lattice, pbc=True, scaled_positions=crystal.frac_coords
        ),
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A tiny trained teacher, and the table it was trained on."""
    path = tmp_path_factory.mktemp("teacher")
    write_table(path / "toys.npz", collection(12))
    cli.call(
        pretrain,
        [
            "--data",
            str(path / "toys.npz"),
            "--cache",
            str(path / "cache"),
            *COMMON,
            "--workdir",
            str(path / "run"),
            "--epochs",
            "1",
            "--width",
            "8",
            "--n-convolutions",
            "1",
            "--batch-size",
            "12",
        ],
    )
    return path


def run_pretrain(tmp_path, data, *more):
    cli.call(
        pretrain,
        [
            "--data",
            str(data),
            "--cache",
            str(tmp_path / "cache"),
            *COMMON,
            "--workdir",
            str(tmp_path / "run"),
            "--epochs",
            "1",
            "--width",
            "8",
            "--n-convolutions",
            "1",
            *more,
        ],
    )


def run_distill(tmp_path, data, *more):
    cli.call(
        distill,
        [
            "--student",
            "cgcnn",
            "--data",
            str(data),
            "--cache",
            str(tmp_path / "cache"),
            *COMMON,
            "--workdir",
            str(tmp_path / "run"),
            "--epochs",
            "1",
            *more,
        ],
    )


def fails(match):
    return pytest.raises(UserError, match=match)


def test_missing_and_empty_folders_and_unknown_names(tmp_path):
    with fails("no such file or folder, and no data set of that name .*elastic"):
        run_pretrain(tmp_path, tmp_path / "nowhere")
    with fails("no such file or folder, and no data set of that name .*elastic"):
        run_distill(tmp_path, "elastisity", "--vanilla")
    (tmp_path / "empty").mkdir()
    with fails("the folder has no structure files"):
        run_pretrain(tmp_path, tmp_path / "empty")
    with fails("--student nope: there is cgcnn"):
        cli.call(distill, ["--student", "nope"])


def test_unknown_property_lists_those_present(tmp_path):
    with fails("--property gap: elastic has bulk_modulus_vrh.*poisson_ratio"):
        run_distill(tmp_path, "elastic", "--vanilla", "--property", "gap")
    write_table(tmp_path / "two.npz", [rocksalt(labels={"a": 1.0, "b": 2.0})])
    with fails("has the properties a, b; choose with --property"):
        run_distill(tmp_path, tmp_path / "two.npz", "--vanilla")


def test_bad_crystals_are_skipped_listed_and_counted(tmp_path, capsys):
    folder = tmp_path / "cifs"
    folder.mkdir()
    rows = []
    for crystal in collection(20):
        save_cif(folder / f"{crystal.id}.cif", crystal)
        rows.append((crystal.id, crystal.labels["energy"]))
    good = (folder / "c0.cif").read_text()
    (folder / "cut.cif").write_text(good[: len(good) - 8])
    (folder / "garbage.cif").write_bytes(bytes(range(256)))
    (folder / "partial.cif").write_text(good.replace("1.0000", "0.5000"))
    save_cif(folder / "overlap.cif", collection(1)[0])
    overlap = Atoms(
        "NaCl", cell=5 * np.eye(3), pbc=True, scaled_positions=[[0, 0, 0], [0, 0, 0.001]]
    )
    write(folder / "overlap.cif", overlap)
    rows += [
        ("cut", 1),
        ("garbage", 1),
        ("partial", 1),
        ("overlap", 1),
        ("gone", 1),
        ("c1", 2),
        ("c2x", "abc"),
    ]
    rows.append(("nan", "nan"))
    with open(folder / "id_prop.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    run_distill(tmp_path, folder, "--vanilla", "--batch-size", "8")
    assert "20 crystals" in capsys.readouterr().err
    with open(tmp_path / "run" / "skipped.csv", newline="") as file:
        skipped = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    expected = {
        "cut": "cut",
        "garbage": "not a valid CIF",
        "partial": "occupied to 0.5",
        "overlap": "Å apart",
        "gone": "gone.cif is missing",
        "c1": "occurs before",
        "c2x": "'abc' is not a number",
        "nan": "target is nan",
    }
    assert set(skipped) == set(expected)
    for id, reason in expected.items():
        assert reason in skipped[id], id
    assert json.loads((tmp_path / "run" / "result.json").read_text())["n_train"] == 16
    with fails(r"cut.*cut"):
        run_distill(tmp_path, folder, "--vanilla", "--strict", "--overwrite")


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("a.cif", "data_x\n_cell_length_a 3", "no atoms"),
        ("a.vasp", "x\n1.0\n0 0 0\n0 0 0\n0 0 0\nNa\n1\nDirect\n0 0 0\n", "volume|cannot be read"),
        ("a.xyz", "2\n\nH 0 0 0\nH 0 0 0.74\n", "not periodic"),
        ("a.npz", "no archive", "a.npz"),
        ("a.json", '[{"jid": "x", ', "damaged"),
    ],
)
def test_single_bad_file(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with fails(reason) as caught:
        run_pretrain(tmp_path, tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_too_few_crystals(tmp_path):
    write_table(tmp_path / "one.npz", [rocksalt(labels={"a": 1.0})])
    with fails("at least 2 crystals"):
        run_pretrain(tmp_path, tmp_path / "one.npz")
    with fails("leaves no crystal for"):
        run_distill(tmp_path, tmp_path / "one.npz", "--vanilla")
    write_table(tmp_path / "few.npz", collection(4))
    with fails("3 training crystals are too few for 4 devices"):
        run_pretrain(tmp_path, tmp_path / "few.npz", "--devices", "4")


def test_teacher_directories(tmp_path, teacher):
    data = teacher / "toys.npz"
    with fails("no trained teacher there; make one with crysgnn pretrain"):
        run_distill(tmp_path, data, "--teacher", str(tmp_path / "none"))
    without = tmp_path / "without"
    without.mkdir()
    shutil.copy(teacher / "run" / "config.json", without)
    shutil.copy(teacher / "run" / "result.json", without)
    with fails("without has no checkpoint"):
        run_distill(tmp_path, data, "--teacher", str(without))
    other = tmp_path / "other"
    shutil.copytree(teacher / "run", other)
    config = json.loads((other / "config.json").read_text())
    config["made_with"]["model"]["width"] = 16
    (other / "config.json").write_text(json.dumps(config))
    with fails(r"other: .* is \(.*8.*\) in the checkpoint and \(.*16.*\) in the model"):
        run_distill(tmp_path, data, "--teacher", str(other))
    with fails("graphs were built with cutoff=5.0 but the teacher .* cutoff=8.0"):
        run_distill(tmp_path, data, "--teacher", str(teacher / "run"), "--cutoff", "5")


def test_workdir_of_another_kind(tmp_path, teacher):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    with fails("holds other files .thesis.tex. and no run"):
        run_distill(tmp_path, teacher / "toys.npz", "--vanilla")
    assert (tmp_path / "run" / "thesis.tex").exists()


def _run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["experiments.pretrain", "--data", "nowhere"], "--data nowhere: no such file"),
        (
            ["experiments.pretrain", "--epochs", "0"],
            "--epochs 0: give a whole number",
        ),
        (["experiments.distill"], "--student"),
        (["experiments.distill", "--student", "cgcnn", "--weight", "2"], "number from 0 to 1"),
    ],
)
def test_commands_exit_with_2_and_one_line(words, message):
    done = _run(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


CONTRACT = {
    pretrain: "data workdir epochs batch-size learning-rate seed limit devices overwrite strict",
    distill: "student teacher data property weight vanilla split workdir epochs batch-size "
    "learning-rate patience seed limit devices overwrite strict",
}


@pytest.mark.parametrize("command", [pretrain, distill])
def test_help_explains_every_flag_with_its_default(command):
    actions = {
        flag.removeprefix("--"): action
        for action in command.parser()._actions
        for flag in action.option_strings
    }
    assert set(CONTRACT[command].split()) <= set(actions)
    for name, action in actions.items():
        assert action.help, name
        # Only a switch, a help flag, a required flag or one with no default need not name it.
        if action.nargs != 0 and not action.required and name not in ("limit", "record"):
            assert "default" in action.help, name
            if isinstance(action.default, (int, float)):
                assert f"default {action.default:g}" in action.help, name
    done = _run(command.__name__.replace("crysgnn_jax.commands", "experiments"), "--help")
    assert done.returncode == 0 and "--workdir" in done.stdout


def test_foreign_directory_survives_overwrite(tmp_path, teacher):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"model_type": "something else"}')
    with fails("holds other files .config.json. and no run"):
        run_distill(tmp_path, teacher / "toys.npz", "--vanilla", "--overwrite")
    assert (run / "config.json").exists()
    (tmp_path / "file").write_text("")
    with fails("cannot be written to"):
        run_distill(
            tmp_path, teacher / "toys.npz", "--vanilla", "--workdir", str(tmp_path / "file" / "x")
        )
