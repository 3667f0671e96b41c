"""TensorBoard and Weights & Biases are told what the log is told."""

import importlib.util
import sys
import types

import pytest

from crysgnn_jax.errors import UserError
from crysgnn_jax.settings import deciding
from crysgnn_jax.training.checkpoints import Position
from crysgnn_jax.training.logs import MetricsLog, trackers_of
from crysgnn_jax.training.settings import TrainingSettings

LINES = [
    {"epoch": 0, "step": 1, "loss": 2.0},
    {"epoch": 1, "step": 2, "train_loss": 1.5, "validation_mae": 0.5},
]


def _logged(tmp_path, settings, lines=LINES, step=0):
    trackers = trackers_of(settings, tmp_path, {"network": "cgcnn"})
    log = MetricsLog(tmp_path / "metrics.jsonl", trackers)
    log.truncate(Position(step=step, epoch=step))
    for line in lines:
        log.write(line, seconds=1.0)
    log.close()


def _events(folder):
    """(tag, step) → value as TensorBoard shows them: not what a later session writes again."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:  # a record is its length, 8 bytes, a checksum of 4, itself, another checksum
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == SessionLog.START:
                found = {key: value for key, value in found.items() if key[1] < event.step}
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def test_event_files_hold_the_lines_and_those_of_a_run_that_goes_on_once(tmp_path):
    pytest.importorskip("tensorboardX")
    _logged(tmp_path, TrainingSettings(tensorboard=True))
    first = _events(tmp_path / "tensorboard")
    assert (first["step/loss", 1], first["validation/mae", 2]) == (2.0, 0.5)
    # Killed, it goes on after its first step.
    again = [{**LINES[1], "train_loss": 1.25}, {"epoch": 1, "step": 3, "loss": 1.0}]
    _logged(tmp_path, TrainingSettings(tensorboard=True), again, step=1)
    both = _events(tmp_path / "tensorboard")
    assert (both["step/loss", 1], both["train/loss", 2], both["step/loss", 3]) == (2.0, 1.25, 1.0)


class _Service(types.ModuleType):
    """Stands for the package wandb, and keeps what it is told."""

    class Error(Exception):
        pass

    def __init__(self, refuses=""):
        super().__init__("wandb")
        self.refuses, self.begun, self.told, self.codes = refuses, [], [], []
        # So that it is found to be installed.
        self.__spec__ = importlib.util.spec_from_loader("wandb", loader=None)

    def init(self, **how):
        if self.refuses:
            raise self.Error(self.refuses)
        self.begun.append(how)
        return types.SimpleNamespace(
            log=lambda values, step: self.told.append((step, values)),
            finish=lambda exit_code: self.codes.append(exit_code),
        )


def test_a_project_is_sent_the_lines_and_a_run_that_goes_on_is_the_same(tmp_path, monkeypatch):
    service = _Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    _logged(tmp_path, TrainingSettings(wandb="crystals"))
    (first,) = service.begun
    assert first["project"] == "crystals" and first["config"] == {"network": "cgcnn"}
    assert service.codes == [0]
    steps = [step for step, _ in service.told]
    assert steps == [1, 2] and service.told[1][1]["validation/mae"] == 0.5
    _logged(tmp_path, TrainingSettings(wandb="crystals"), LINES[1:], step=1)
    assert service.begun[1]["id"] == first["id"]


def test_a_service_that_refuses_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", _Service("api_key not configured\nand more"))
    with pytest.raises(
        UserError, match="`wandb` crystals: api_key not configured; with WANDB_MODE=offline"
    ):
        _logged(tmp_path, TrainingSettings(wandb="crystals"))


@pytest.mark.parametrize("flag", [{"tensorboard": True}, {"wandb": "crystals"}])
def test_a_missing_package_is_told_with_its_extra(monkeypatch, flag):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs \w+: pip install 'crysgnn-jax\[report\]'"):
        TrainingSettings(**flag)


def test_nothing_of_the_outcome_depends_on_them():
    pytest.importorskip("tensorboardX")
    assert deciding(TrainingSettings(tensorboard=True)) == deciding(TrainingSettings())
