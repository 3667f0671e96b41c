"""The directory of a run: its states, its lock, and runs of earlier versions."""

import errno
import json
import subprocess
import sys

import pytest

from crysgnn_jax import files
from crysgnn_jax.errors import UserError
from crysgnn_jax.training.workdir import Workdir, read_made_with, require_same


def test_new_interrupted_finished(tmp_path):
    made_with = {"network": "cgcnn", "settings": {"seed": 0}}
    with Workdir(tmp_path / "run", made_with) as workdir:
        assert workdir.result is None
    with Workdir(tmp_path / "run", made_with) as workdir:
        workdir.finish({"test_mae": 1.0})
    with Workdir(tmp_path / "run", made_with) as workdir:
        assert workdir.result == {"test_mae": 1.0}
    with pytest.raises(UserError, match="holds a run with `seed` 0, and this one has 1"):
        Workdir(tmp_path / "run", {"network": "cgcnn", "settings": {"seed": 1}})
    with Workdir(tmp_path / "run", {"network": "gatgnn"}, overwrite=True) as workdir:
        assert workdir.result is None


def test_a_run_that_another_process_writes_is_left_alone(tmp_path):
    hold = (
        "import sys; from crysgnn_jax.training.workdir import Workdir\n"
        "with Workdir(sys.argv[1], {'network': 'cgcnn'}): print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is in use by another run"):
            Workdir(tmp_path / "run", {"network": "cgcnn"})
    finally:
        other.kill()
        other.wait()
    with Workdir(tmp_path / "run", {"network": "cgcnn"}) as workdir:
        assert workdir.result is None


def test_damaged_settings_can_be_overwritten_in_a_folder_of_a_run_alone(tmp_path):
    made_with = {"network": "cgcnn"}
    with Workdir(tmp_path, made_with):
        pass
    for damage in ('{"made_with": {"netw', "[]", "\xff"):
        (tmp_path / "config.json").write_text(damage, encoding="latin-1")
        with pytest.raises(UserError, match="config.json is damaged .*; start the run anew, with"):
            Workdir(tmp_path, made_with)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="config.json is damaged"):
        Workdir(tmp_path, made_with, overwrite=True)
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "metrics.jsonl").write_text("")
    with Workdir(tmp_path, made_with, overwrite=True) as workdir:
        assert not workdir.metrics.exists()
    assert read_made_with(tmp_path) == made_with


def test_settings_of_another_kind_are_told(tmp_path):
    (tmp_path / "config.json").write_text('{"made_with": {"network": "cgcnn", "model": 3}}')
    with pytest.raises(UserError, match="config.json is damaged"):
        read_made_with(tmp_path)


def test_a_damaged_result_is_written_again_once_it_is_deleted(tmp_path):
    with Workdir(tmp_path, {"network": "cgcnn"}) as workdir:
        workdir.finish({"test_mae": 1.0})
        (tmp_path / "result.json").write_text('{"test_m')
        with pytest.raises(UserError, match="result.json is damaged .*; delete it, and"):
            _ = workdir.result


def test_a_disk_that_takes_no_more(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "open", full, raising=False)
    with pytest.raises(UserError, match="`workdir` .* cannot be written .No space.* make room"):
        Workdir(tmp_path / "run", {"network": "cgcnn"})
    monkeypatch.undo()
    with Workdir(tmp_path / "run", {"network": "cgcnn"}) as workdir:
        assert workdir.result is None


CGCNN = {"width": 64, "n_convolutions": 3, "head_width": 128, "n_hidden": 1, "embedding_bias": True}
OLD_CGCNN = {**CGCNN, "freeze_encoder": False, "classification": False}
OLD_SETTINGS = {"student": "cgcnn", "property": "band_gap", "weight": 0.5}


NOW = {**OLD_SETTINGS, "pull": "released", "taught_by": 0}


@pytest.mark.parametrize(
    "old, network, model, settings",
    [
        (
            {"command": "distill", "network": "cgcnn", "model": OLD_CGCNN, "settings": OLD_SETTINGS,
             "start": None},
            "cgcnn", CGCNN, NOW,
        ),
        (
            {"command": "convert", "network": "cgcnn",
             "model": {**OLD_CGCNN, "classification": True}},
            "cgcnn-classifier", CGCNN, None,
        ),
        (
            {"command": "finetune", "network": "cgcnn", "start": "abc",
             "model": {**OLD_CGCNN, "freeze_encoder": True}, "settings": OLD_SETTINGS},
            "fine-tuned", {**CGCNN, "freeze_encoder": True},
            {**NOW, "student": "fine-tuned"},
        ),
        (
            {"command": "compare", "network": "cgcnn", "start": "abc", "model": OLD_CGCNN,
             "settings": OLD_SETTINGS},
            "fine-tuned", {**CGCNN, "freeze_encoder": False},
            {**NOW, "student": "fine-tuned"},
        ),
        (
            {"command": "distill", "network": "alignn", "model": {"width": 256, "n_triplet": 0},
             "settings": OLD_SETTINGS},
            "alignn", {"width": 256}, NOW,
        ),
        (
            {"command": "distill", "network": "crysxpp", "model": {"width": 64},
             "settings": OLD_SETTINGS, "start": "abc"},
            "crysxpp", {"width": 64, "embedding_bias": True}, NOW,
        ),
        (
            {"command": "pretrain", "model": {"width": 64}, "settings": {"seed": 0}},
            "crysgnn", {"width": 64}, {"seed": 0},
        ),
    ],
)  # fmt: skip
def test_runs_of_the_first_version_are_read_in_the_terms_of_today(
    tmp_path, old, network, model, settings
):
    (tmp_path / "config.json").write_text(json.dumps({"made_with": old}))
    found = read_made_with(tmp_path)
    assert (found["network"], found["model"], found.get("settings")) == (network, model, settings)
    # The same command goes on with it.
    today = {**old, "network": network, "model": model}
    if settings is not None:
        today["settings"] = settings
    require_same(found, today, tmp_path)
    with Workdir(tmp_path, today):
        pass
    with pytest.raises(UserError, match="model.width"):
        require_same(found, {**today, "model": {**model, "width": 1}}, tmp_path)
    # Read again, as it would be written now, it stays as it is.
    (tmp_path / "config.json").write_text(json.dumps({"made_with": found}))
    require_same(read_made_with(tmp_path), found, tmp_path)


def test_more_epochs_are_not_refused_without_the_way_to_have_them(tmp_path):
    made = lambda epochs: {"network": "cgcnn", "settings": {"epochs": epochs}}
    with Workdir(tmp_path / "run", made(3)):
        pass
    with pytest.raises(UserError, match="`epochs` 3, and this one has 5; .*`continued` for more"):
        Workdir(tmp_path / "run", made(5))
    with pytest.raises(UserError, match="another `workdir`, or `overwrite`"):
        Workdir(tmp_path / "run", made(2))
