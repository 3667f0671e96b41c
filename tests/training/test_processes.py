"""Two processes of two devices are one of four; where one ends, the other does, and both go on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from crysgnn_jax import processes
from crysgnn_jax.commands import distill, pretrain
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.runtime_lines import ABORTED, end_without_a_core, passed_on
from crysgnn_jax.training.checkpoints import restore_best
from toy_runs import run
from toys import collection

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--epochs", "8", "--batch-size", "3", "--n-convolutions", "1", "--width", "8")
FREE = ("--workers", "1")
MINUTE = 60.0

# A gate and a core are each followed by a batch norm, which takes their biases out again: what
# gradient they have is rounding, of which Adam makes steps of any length.
WITHOUT_GRADIENT = ("gate_bias", "core_bias", "gate_norm/mean", "core_norm/mean")


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _by_hand(port):
    """Flags, and environment, of two processes that are told of one another."""
    flags = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", "2")
    return [((*flags, "--process-id", str(k)), {}) for k in range(2)]


def _by_slurm(port):
    """Likewise of two tasks of SLURM, as far as JAX looks."""
    names = {"JOB_ID": "7", "NTASKS": "2", "STEP_NUM_TASKS": "2", "STEP_NODELIST": "localhost"}
    places = [{**names, "PROCID": str(k), "LOCALID": str(k)} for k in range(2)]
    found = [{f"SLURM_{name}": value for name, value in place.items()} for place in places]
    return [((), {**place, "JAX_COORDINATOR_PORT": str(port)}) for place in found]


def _start(path, command, *flags, launcher=_by_hand):
    """Two processes of a command, of two devices each."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=2"),
    }
    common = ("--data", path / "toys.npz", "--cache", path / "cache", "--workers", "1")
    words = [sys.executable, "-m", "crysgnn_jax", command, *map(str, (*common, *flags))]
    return [
        subprocess.Popen(
            [*words, *more], cwd=path, env={**environment, **launched}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for more, launched in launcher(_free_port())
    ]  # fmt: skip


def _end(started, seconds=300.0):
    """Exit codes, and what each process printed."""
    found = [process.communicate(timeout=seconds) for process in started]
    return [process.returncode for process in started], found


def _lines(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "time")} for line in lines]


def _weights(path):
    leaves = jax.tree_util.tree_leaves_with_path(restore_best(path / "checkpoints"))
    return {jax.tree_util.keystr(k, simple=True, separator="/"): x for k, x in leaves}


def _require_equal(one, other):
    assert _lines(one) == _lines(other)
    ours, theirs = _weights(one), _weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes")
    write_table(path / "toys.npz", collection(24))
    write_table(path / "more.npz", collection(12, seed=100))
    return path


@pytest.fixture(scope="module")
def of_two(here):
    """A run of two processes, and what they printed."""
    codes, printed = _end(_start(here, "pretrain", *SMALL, "--workdir", "two"))
    assert codes == [0, 0], printed
    return here / "two", printed


def test_two_processes_of_two_devices_are_one_of_four(here, of_two):
    two, printed = of_two
    run(pretrain, here, *SMALL, "--workdir", here / "one", more=FREE)
    for ours, theirs in zip(_lines(here / "one"), _lines(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)
    ours, theirs = _weights(here / "one"), _weights(two)
    for name, value in ours.items():
        if not name.endswith(WITHOUT_GRADIENT):
            np.testing.assert_allclose(theirs[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    one, other = (json.loads((x / "result.json").read_text()) for x in (here / "one", two))
    assert other["devices"].endswith(" of 2 processes")
    assert one["steps"] == other["steps"] and one["best_epoch"] == other["best_epoch"]
    # The first speaks, and nobody says what the runtime does.
    assert printed[1] == ("", "")
    assert "epoch 8/8" in printed[0][1] and "validation" in printed[0][0]
    assert not [x for text in printed[0] for x in text.splitlines() if "peer ranks" in x]


def test_what_the_runtime_aborts_leaves_no_core():
    code = f"import os; from {end_without_a_core.__module__} import *; end_without_a_core()"
    words = [sys.executable, "-c", f"{code}; os.abort()"]
    assert subprocess.run(words).returncode == ABORTED


@pytest.mark.slow
@pytest.mark.parametrize("killed", [1, 0])
def test_a_killed_process_ends_the_other_and_both_go_on(here, of_two, killed):
    name = f"killed-{killed}"
    flags = ("pretrain", *SMALL, "--workdir", name, "--checkpoint-seconds", "0")
    started = _start(here, *flags)
    while not list((here / name / "checkpoints").glob("[0-9]")):
        assert all(process.poll() is None for process in started)
        time.sleep(0.05)
    started[killed].send_signal(signal.SIGKILL)
    before = time.monotonic()
    codes, printed = _end(started, MINUTE)
    assert time.monotonic() - before < MINUTE
    assert codes[killed] == -signal.SIGKILL and codes[1 - killed] in (2, ABORTED)
    lines = printed[1 - killed][1].splitlines()
    assert [x for x in lines if "of this run has ended; what is finished is kept" in x] == lines[
        -1:
    ]
    assert not [x for x in lines if "Traceback" in x or "coordination_service" in x]
    assert not (here / name / "result.json").exists()
    codes, printed = _end(_start(here, *flags))
    assert codes == [0, 0], printed
    _require_equal(here / name, of_two[0])


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_the_same_step(here, of_two):
    flags = ("pretrain", *SMALL, "--workdir", "stopped", "--checkpoint-seconds", "1000")
    started = _start(here, *flags)
    while not (here / "stopped" / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in started)
        time.sleep(0.05)
    started[1].send_signal(signal.SIGTERM)
    codes, printed = _end(started, MINUTE)
    assert codes == [130, 143]
    said = [line for _, text in printed for line in text.splitlines() if "interrupted" in line]
    assert len(said) == 1
    assert list((here / "stopped" / "checkpoints").glob("[0-9]*"))
    codes, printed = _end(_start(here, *flags))
    assert codes == [0, 0], printed
    _require_equal(here / "stopped", of_two[0])


@pytest.mark.slow
def test_what_two_processes_began_one_finishes(here, of_two):
    """With half of the devices: the crystals of each step are the same."""
    flags = (*SMALL, "--workdir", "handed", "--checkpoint-seconds", "0")
    started = _start(here, "pretrain", *flags)
    while not list((here / "handed" / "checkpoints").glob("[2-9]*")):
        time.sleep(0.05)
    started[0].send_signal(signal.SIGINT)
    assert _end(started, MINUTE)[0] == [130, 130]
    run(pretrain, here, *SMALL, "--workdir", here / "handed", "--devices", "2", more=FREE)
    ours, theirs = _lines(here / "handed"), _lines(of_two[0])
    assert [x["step"] for x in ours] == [x["step"] for x in theirs]
    result = json.loads((here / "handed" / "result.json").read_text())
    assert "4 batches a step" in result["devices"]


@pytest.mark.slow
def test_a_student_of_two_processes_is_that_of_one(here):
    flags = ("--student", "cgcnn", "--set", "width=8", "--set", "n_convolutions=1")
    flags += ("--epochs", "3", "--batch-size", "2", "--property", "energy")
    flags += ("--unlabelled", here / "more.npz", "--untagged-epochs", "1", "--accumulate", "2")
    codes, printed = _end(
        _start(here, "distill", *flags, "--workdir", "students", launcher=_by_slurm)
    )
    assert codes == [0, 0], printed
    run(distill, here, "--workdir", here / "student", "--cache", here / "own", *flags, more=FREE)
    for twin in ("vanilla", "distilled"):
        one, two = (
            json.loads((here / name / twin / "result.json").read_text())
            for name in ("student", "students")
        )
        assert two["test_mae"] == pytest.approx(one["test_mae"], rel=1e-2)
        assert two["steps"] == one["steps"]
    assert (here / "students" / "comparison.json").exists()


@pytest.mark.slow
def test_what_all_meet_is_told_once(here):
    codes, printed = _end(_start(here, "pretrain", *SMALL, "--accumulate", "9", "--workdir", "x"))
    assert codes == [2, 2]
    errors = [line for _, text in printed for line in text.splitlines() if "error" in line]
    assert len(errors) == 1 and "--accumulate 9: a device takes 3 crystals" in errors[0]


@pytest.mark.parametrize(
    "environment, n",
    [
        ({}, 1),
        # A shell in an allocation, and a batch script without srun.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n1", "SLURM_STEP_NUM_TASKS": "1"}, 1),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 4),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 1),  # a notebook
    ],
)
def test_processes_are_known_by_their_launcher(environment, n):
    assert processes.detected_processes(environment) == n


def test_a_process_by_itself_is_the_first_of_one():
    assert (processes.count(), processes.number(), processes.is_first()) == (1, 0, True)
    assert processes.told(lambda: 3) == 3
    tree = {"a": np.ones(2)}
    assert processes.same_arrays(tree) is tree
    with processes.in_turn(), processes.joined(num_processes=1):
        pass


@pytest.mark.parametrize(
    "given, told",
    [
        (("node1:1234", None, None), "go together"),
        ((None, 1, 2), "go together"),
        (("node1:1234", 2, 2), "`process_id` 2: of 2 processes the last is 1"),
        (("node1", 0, 2), "`coordinator` node1: give HOST:PORT"),
    ],
)
def test_processes_that_cannot_be(monkeypatch, given, told):
    for name in ("SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=told):
        with processes.joined(*given):
            pass


@pytest.mark.parametrize(
    "tasks, seen, own",
    [
        ("8(x2)", "0,1,2,3,4,5,6,7", None),  # JAX has each take the one of its number
        ("1(x2)", "0,1,2,3", [0, 1, 2, 3]),
        ("8(x2)", "3", [0]),
        ("8(x2)", "", None),
    ],
)
def test_the_gpus_of_a_task(tasks, seen, own):
    environment = {"SLURM_STEP_TASKS_PER_NODE": tasks, "CUDA_VISIBLE_DEVICES": seen}
    assert processes.own_gpus(environment) == own


FATAL = """\
[Gloo] Rank 0 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3
warning of a library
E1126 16:44:12.539716 12578 coordination_service.cc:1549] Use error polling to propagate:
Barrier failed because: UNAVAILABLE: Task 1 heartbeat timeout. This indicates that
F1126 16:44:15.860090 13308 client.h:80] Terminating process because the JAX distributed service \
detected fatal errors. This most likely
*** Check failure stack trace: ***
    @     0x7f2d3c1  absl::LogMessage::Fail()"""


def test_of_the_runtime_a_user_sees_who_ended():
    found = list(passed_on(FATAL.splitlines()))
    assert found[0] == "warning of a library"
    assert found[1].startswith("error: process 1 of this run has ended; ") and len(found) == 2
    told = "interrupted; what is finished is kept"
    assert list(passed_on([told, *FATAL.splitlines()[2:]])) == [told]
    first = "F1126 16:44:15.86 1 client.h:80] the JAX distributed service detected fatal errors. "
    first += "UNAVAILABLE: Failed to send RPC to coordination service"
    assert list(passed_on([first]))[0].startswith("error: process 0 of this run")
