"""Whole runs of the two commands: files, twins, reproducibility, resumption after a kill."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import crysgnn_jax.training.run as training
from crysgnn_jax import stopping
from crysgnn_jax.commands import cli, distill, pretrain
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.training.checkpoints import Checkpoints, Position, restore_best
from crysgnn_jax.training.logs import MetricsLog, Progress
from crysgnn_jax.training.predictor import TrainedModel
from toys import collection

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A directory with a table of crystals, a cache, and a trained teacher."""
    path = tmp_path_factory.mktemp("runs")
    write_table(path / "toys.npz", collection(40))
    cli.call(
        pretrain,
        [
            *_data(path, "--data"),
            "--workdir",
            str(path / "teacher"),
            "--epochs",
            "2",
            "--batch-size",
            "16",
            "--n-convolutions",
            "2",
            "--width",
            "16",
        ],
    )
    return path


def _data(path, flag="--data"):
    return [
        flag,
        str(path / "toys.npz"),
        "--cache",
        str(path / "cache"),
        "--workers",
        "1",
        "--devices",
        "1",
    ]


def _distill(path, workdir, *more):
    cli.call(
        distill,
        [
            "--student",
            "cgcnn",
            *_data(path),
            "--teacher",
            str(path / "teacher"),
            "--untagged-epochs",
            "0",
            "--workdir",
            str(path / workdir),
            "--epochs",
            "3",
            "--batch-size",
            "8",
            *more,
        ],
    )


def _metrics(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "time")} for line in lines]


def test_pretraining_writes_its_files(here):
    teacher = here / "teacher"
    result = json.loads((teacher / "result.json").read_text())
    assert result["n_train"] == 38 and result["n_validation"] == 2
    assert result["compilations"] == 1
    assert result["epochs"] == 2 and np.isfinite(result["validation_loss"])
    epochs = [line for line in _metrics(teacher) if "validation_loss" in line]
    for line in epochs:
        assert line["compilations"] == 1
        assert all(0 <= line[f"padding_{name}"] < 1 for name in ("nodes", "edges"))
    assert len(epochs) == 2
    config = json.loads((teacher / "config.json").read_text())
    assert config["made_with"]["model"] == {
        "width": 16,
        "n_convolutions": 2,
        "cutoff": 8.0,
        "unit_length": False,
    }
    assert config["made_with"]["featuriser"]["ties"] == "keep"
    assert config["environment"]["jax"] == jax.__version__
    assert (teacher / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (teacher / "skipped.csv").read_text().splitlines() == ["id,reason"]


def test_the_rate_falls_over_the_steps_that_there_are(here, tmp_path, monkeypatch):
    """Which are not the crystals by those of a batch: there are as many in one as fit."""
    told, planned = [], []
    create = training.create_optimiser

    class Enough(Exception):
        pass

    def creating(rate, total_steps, **more):
        told.append(total_steps)
        return create(rate, total_steps, **more)

    def fit(trainer, *_):
        planned.append(sum(len(trainer.plan(epoch)) for epoch in range(6)))
        raise Enough

    monkeypatch.setattr(training, "create_optimiser", creating)
    monkeypatch.setattr(training.Trainer, "fit", fit)
    flags = ["--epochs", "6", "--batch-size", "9", "--accumulate", "3", "--n-convolutions", "1"]
    with pytest.raises(Enough):
        cli.call(pretrain, [*_data(here), *flags, "--workdir", str(tmp_path / "run")])
    assert told == planned


def test_twins(here, capsys):
    _distill(here, "twins")
    table = capsys.readouterr().out
    assert "vanilla test MAE" in table and "energy" in table and str(here / "twins") in table
    vanilla, distilled = (
        json.loads((here / "twins" / name / "result.json").read_text())
        for name in ("vanilla", "distilled")
    )
    assert "of the mean" in table and f" {vanilla['test_mae_of_mean']:.4g} " in table
    assert (vanilla["distilled"], distilled["distilled"]) == (False, True)
    assert vanilla["compilations"] == distilled["compilations"] == 1
    for name in ("vanilla", "distilled"):
        run = here / "twins" / name
        for picture in ("loss.png", "parity.png"):
            assert (run / picture).read_bytes().startswith(b"\x89PNG")
        assert (run / "report.html").read_text(encoding="utf-8").count("<svg") == 4
        splits = json.loads((run / "splits.json").read_text())
        with open(run / "predictions.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["id"] for row in rows if row["split"] == "test"} == set(splits["test"])
        assert len(rows) == 40
        # The reported error is that of the predictions, in the property's own unit.
        errors = [
            abs(float(r["target"]) - float(r["prediction"])) for r in rows if r["split"] == "test"
        ]
        result = json.loads((run / "result.json").read_text())
        assert result["test_mae"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert (here / "twins/vanilla/splits.json").read_text() == (
        here / "twins/distilled/splits.json"
    ).read_text()


def test_tensorboard_is_told_and_the_run_is_the_same_without(here, capsys):
    pytest.importorskip("tensorboardX")
    _distill(here, "told", "--vanilla", "--tensorboard")
    assert list((here / "told/tensorboard").glob("events.out.tfevents.*"))
    _distill(here, "told", "--vanilla")
    assert "holds a finished run" in capsys.readouterr().err


def test_twins_start_from_the_same_weights(here):
    """At a rate of nothing, they end where they started."""
    _distill(here, "still", "--learning-rate", "1e-30")
    weights = [
        restore_best(here / "still" / name / "checkpoints")["params"]
        for name in ("vanilla", "distilled")
    ]
    same = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-20)
    jax.tree.map(same, weights[0], weights[1]["student"])


def test_finished_run_is_reported_not_repeated(here, capsys):
    _distill(here, "once", "--vanilla")
    first = (here / "once" / "result.json").read_text()
    stamp = (here / "once" / "metrics.jsonl").stat().st_mtime_ns
    capsys.readouterr()
    _distill(here, "once", "--weight", "0")
    assert "holds a finished run" in capsys.readouterr().err
    assert (here / "once" / "result.json").read_text() == first
    assert (here / "once" / "metrics.jsonl").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="with --seed 0, and this one has 1"):
        _distill(here, "once", "--vanilla", "--seed", "1")
    _distill(here, "once", "--vanilla", "--seed", "1", "--overwrite")
    with pytest.raises(UserError, match="holds a single run"):
        _distill(here, "once")
    assert (
        json.loads((here / "once" / "config.json").read_text())["made_with"]["settings"]["seed"]
        == 1
    )


def test_same_seed_same_metrics(here):
    for name in ("a", "b"):
        _distill(here, name, "--weight", "0.5", "--log-every", "2")
    assert len(_metrics(here / "a")) > 6
    assert _metrics(here / "a") == _metrics(here / "b")


def test_embeddings_are_computed_once(here):
    _distill(here, "e1", "--weight", "0.5")
    files = list((here / "cache").glob("*/embeddings/*.npy"))
    assert len(files) == 1
    stamp = files[0].stat().st_mtime_ns
    _distill(here, "e2", "--weight", "0.4")
    assert list((here / "cache").glob("*/embeddings/*.npy"))[0].stat().st_mtime_ns == stamp


def test_split_of_an_earlier_run(here):
    _distill(here, "s1", "--vanilla", "--split", "formula")
    _distill(here, "s2", "--vanilla", "--split", str(here / "s1" / "splits.json"), "--seed", "5")
    assert (here / "s1/splits.json").read_text() == (here / "s2/splits.json").read_text()


@pytest.mark.parametrize("command", ["pretrain", pytest.param("distill", marks=pytest.mark.slow)])
def test_killed_run_ends_with_the_same_parameters(here, command):
    """SIGKILL at three moments; saving after every step, so that each restart goes on mid-epoch."""
    flags = {
        "pretrain": [*_data(here), "--n-convolutions", "2", "--width", "16", "--epochs", "4"],
        "distill": [
            "--student",
            "cgcnn",
            *_data(here),
            "--teacher",
            str(here / "teacher"),
            "--untagged-epochs",
            "0",
            "--weight",
            "0.5",
            "--epochs",
            "12",
            "--accumulate",
            "2",
        ],
    }[command]
    module = {"pretrain": pretrain, "distill": distill}[command]
    flags += ["--batch-size", "4", "--log-every", "2", "--workdir"]
    whole, killed = here / f"{command}-whole", here / f"{command}-killed"
    cli.call(module, [*flags, str(whole)])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = [
        sys.executable,
        "-m",
        f"experiments.{command}",
        *flags,
        str(killed),
        "--checkpoint-seconds",
        "0",
    ]
    seen = 0
    for more_steps in (3, 5, 6):
        process = subprocess.Popen(start, env=environment, cwd=ROOT, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while _last_step(killed) < seen + more_steps and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / "result.json").exists(), "it ended before it could be killed"
        assert _last_step(killed) > seen
        seen = _last_step(killed)
    cli.call(module, [*flags, str(killed), "--checkpoint-seconds", "0"])
    jax.tree.map(
        np.testing.assert_array_equal,
        restore_best(killed / "checkpoints"),
        restore_best(whole / "checkpoints"),
    )
    assert _metrics(killed) == _metrics(whole)
    settings = json.loads((killed / "config.json").read_text())["made_with"]["settings"]
    assert settings.get("accumulate") == (2 if command == "distill" else None)
    name = "validation_loss" if command == "pretrain" else "test_mae"
    results = [json.loads((run / "result.json").read_text())[name] for run in (whole, killed)]
    assert results[0] == results[1]


def test_a_signal_saves_the_run_which_goes_on_to_the_same_parameters(here, monkeypatch):
    """In a step, in the last one of an epoch, and while the validation crystals are looked at."""
    flags = ["--vanilla", "--checkpoint-seconds", "1000", "--log-every", "1"]
    _distill(here, "undisturbed", *flags)
    step, check = Progress.step, stopping.check
    moments = {"in a step": 3, "in the last": 8, "in the validation": 8}
    for moment, at in moments.items():

        def interrupt(self, position, values, moment=moment, at=at):
            step(self, position, values)
            if (position.epoch, position.batch) == (1, at % 4 or 4):
                if moment == "in the validation":
                    monkeypatch.setattr(stopping, "check", validating)
                else:
                    os.kill(os.getpid(), signal.SIGINT)

        def validating():
            monkeypatch.setattr(stopping, "check", check)
            os.kill(os.getpid(), signal.SIGINT)
            check()

        name = moment.replace(" ", "-")
        monkeypatch.setattr(Progress, "step", interrupt)
        with pytest.raises(stopping.Stopped):
            _distill(here, name, *flags)
        monkeypatch.setattr(Progress, "step", step)
        assert 4 < _last_step(here / name) <= 8
        _distill(here, name, *flags)
        jax.tree.map(
            np.testing.assert_array_equal,
            restore_best(here / name / "checkpoints"),
            restore_best(here / "undisturbed" / "checkpoints"),
        )
        assert _metrics(here / name) == _metrics(here / "undisturbed")


def test_damaged_files_of_a_run(here, tmp_path):
    _distill(here, "healthy", "--vanilla")
    for name, damage, message in [
        ("checkpoints/*/best/_METADATA", lambda text: text[:50], "holds the best weights"),
        ("config.json", lambda text: text[:200], "config.json is damaged"),
        ("config.json", lambda text: text.replace(b'"featuriser"', b'"featurizer"'), "is damaged"),
        ("result.json", lambda text: text[:20], "result.json is damaged"),
        ("result.json", lambda text: text.replace(b'"target_mean"', b'"target"'), "is damaged"),
    ]:
        path = tmp_path / "run"
        shutil.copytree(here / "healthy", path)
        for file in path.glob(name):
            file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(UserError, match=message):
            TrainedModel.load(path)
        shutil.rmtree(path)


def test_embeddings_with_a_flipped_bit_are_computed_again(here, tmp_path, caplog):
    model = TrainedModel.load(here / "teacher")
    embed = lambda: model.embed(here / "toys.npz", cache=tmp_path, devices=1)
    atoms = np.array(embed().atoms)
    (file,) = tmp_path.glob("*/embeddings/*.npy")
    content = bytearray(file.read_bytes())
    content[-5] ^= 64
    file.write_bytes(content)
    np.testing.assert_array_equal(embed().atoms, atoms)
    (line,) = caplog.messages
    assert "holds other bytes than were written; the embeddings are computed again" in line


def test_damaged_lines_of_metrics_are_left_out(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write({"epoch": 0, "step": step}, seconds=1.0)
    lines = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")
    lines[1] = b"\xff" + lines[1][1:]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert [entry["step"] for entry in log.read()] == [1, 3]
    log.truncate(Position(step=2))
    assert [entry["step"] for entry in log.read()] == [1]


def _last_step(run):
    """Newest complete checkpoint, by the name of its file."""
    return Checkpoints(run / "checkpoints").last_step or 0


def test_a_training_loop_of_ones_own_as_documented(here, tmp_path, monkeypatch):
    shutil.copytree(here / "teacher", tmp_path / "runs" / "teacher")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSGNN_CACHE", str(tmp_path / "cache"))
    text = (ROOT / "docs" / "distillation.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert np.isfinite(float(names["metrics"]["loss"])) and "embedding" in names["metrics"]
    assert int(names["state"].step) == 1


def test_unfinished_teacher_is_refused(here, tmp_path):
    shutil.copytree(here / "teacher", tmp_path / "teacher")
    (tmp_path / "teacher" / "result.json").unlink()
    with pytest.raises(UserError, match="not been trained to its end"):
        _distill(here, "x", "--teacher", str(tmp_path / "teacher"))


def test_changed_split_file_is_noticed(here, tmp_path):
    ids = json.loads((here / "teacher" / "splits.json").read_text())["train"]
    path = tmp_path / "splits.json"
    for first in (0, 1):
        rest = [id for id in ids if id != ids[first]]
        path.write_text(
            json.dumps({"train": rest[4:], "validation": rest[:4], "test": [ids[first]]})
        )
        if first == 0:
            _distill(here, "split", "--vanilla", "--split", str(path))
    with pytest.raises(UserError, match="split.ids "):
        _distill(here, "split", "--vanilla", "--split", str(path))


def test_early_stopping_takes_the_best_epoch(here):
    _distill(
        here, "patient", "--vanilla", "--epochs", "40", "--patience", "2", "--learning-rate", "0.05"
    )
    result = json.loads((here / "patient" / "result.json").read_text())
    epochs = [line for line in _metrics(here / "patient") if "validation_mae" in line]
    scores = [line["validation_mae"] for line in epochs]
    assert result["epochs"] == len(scores) < 40
    assert result["best_epoch"] == 1 + int(np.argmin(scores)) == len(scores) - 2
    assert result["validation_mae"] == pytest.approx(min(scores), rel=1e-6)


def test_nan_stops_the_run_and_names_step_ids_and_checkpoint(here, tmp_path):
    crystals = collection(20)
    path = tmp_path / "huge.npz"
    write_table(path, crystals)
    flags = [
        "--student",
        "cgcnn",
        "--data",
        str(path),
        "--cache",
        str(tmp_path / "cache"),
        "--workers",
        "1",
        "--devices",
        "1",
        "--vanilla",
        "--workdir",
        str(tmp_path / "run"),
        "--learning-rate",
        "1e38",
        "--batch-size",
        "4",
        "--epochs",
        "20",
    ]
    with pytest.raises(UserError, match=r"at step \d+ \(batch: c\d+.*checkpoint.*learning-rate"):
        cli.call(distill, flags)
