"""Signals: what is under way is saved, and the process ends in one line."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crysgnn_jax import stopping
from crysgnn_jax.stopping import Stopped

ROOT = Path(__file__).resolve().parents[1]


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_is_noted_until_it_is_safe():
    steps = 0
    with pytest.raises(Stopped):
        with stopping.graceful():
            interrupt()
            for _ in range(2):
                steps += 1
            assert stopping.asked()
            stopping.check()
            steps = 0
    assert steps == 2
    # A session goes on, with its own Ctrl-C.
    assert not stopping.asked()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_a_signal_counts_at_the_end_at_the_latest():
    with pytest.raises(Stopped):
        with stopping.graceful():
            with stopping.graceful():
                pass
            interrupt()


def test_a_second_signal_is_not_noted_but_raised():
    with pytest.raises(Stopped):
        with stopping.graceful():
            interrupt()
            interrupt()
            raise AssertionError("it went on")


def test_threads_leave_signals_alone():
    found = []

    def work():
        with stopping.graceful():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_held_back():
    held = False
    with pytest.raises(KeyboardInterrupt):
        with stopping.held_back():
            # To this thread: another one of the process would take what is sent to all.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            held = True
    assert held


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from crysgnn_jax import stopping
from crysgnn_jax.commands import cli
stopping.PATIENCE = 0.5
stopping.watch()
with cli.as_a_process():
    if sys.argv[1] == "outside":
        print("ready", flush=True)
        time.sleep(60)
    with stopping.graceful():
        print("ready", flush=True)
        while sys.argv[1] == "stuck":
            time.sleep(60)
        while not stopping.asked():
            time.sleep(0.01)
        print("saved", flush=True)
        if sys.argv[1] == "slow":
            time.sleep(60)
"""


def _run(how, number, again=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    if again is not None:
        assert process.stdout.readline() == "saved\n"
        process.send_signal(again)
    out, lines = process.communicate(timeout=30)
    return process.returncode, out, lines.splitlines()


@pytest.mark.parametrize(
    "how, number, code, out",
    [
        ("outside", signal.SIGINT, 130, ""),
        ("graceful", signal.SIGTERM, 143, "saved\n"),
        ("stuck", signal.SIGINT, 130, ""),
    ],
)
def test_a_command_ends_in_one_line(how, number, code, out):
    found = _run(how, number)
    assert found[:2] == (code, out)
    (line,) = found[2]
    assert line.startswith("interrupted; what is finished is kept")


def test_a_second_signal_stops_a_command_at_once():
    before = time.monotonic()
    code, _, (line,) = _run("slow", signal.SIGTERM, signal.SIGINT)
    assert (code, line) == (130, "stopped at once; the last checkpoint is kept")
    assert time.monotonic() - before < 20


STUDY = """
import time
from crysgnn_jax.commands import cli

def main():
    print("ready", flush=True)
    time.sleep(60)

cli.run_study(main)
"""


def test_a_study_can_be_stopped_after_its_process_has_started_again(tmp_path):
    """For huge pages it replaces itself, and signals wait meanwhile."""
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("GLIBC_TUNABLES", None)
    process = subprocess.Popen(
        [sys.executable, script], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, lines = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 143
    assert lines.startswith("interrupted; what is finished is kept") and lines.count("\n") == 1
