"""Many runs on one page."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from crysgnn_jax.commands import cli, dashboard
from crysgnn_jax.errors import UserError
from crysgnn_jax.reporting.dashboard import runs_in, state_of
from crysgnn_jax.reporting.records import Record
from made_runs import write_pretraining, write_run


def test_a_page_lists_finished_and_unfinished_runs_with_their_curves(tmp_path, capsys):
    write_run(tmp_path / "runs/twins/vanilla")
    (tmp_path / "runs/twins/vanilla/report.html").write_text("")
    write_run(tmp_path / "runs/going", finished=False)
    write_pretraining(tmp_path / "runs/teacher")
    output = tmp_path / "page.html"
    cli.call(dashboard, [str(tmp_path / "runs"), "--output", str(output)])
    assert capsys.readouterr().out == f"3 runs, 2 finished: {output}\n"
    text = output.read_text(encoding="utf-8")
    assert "twins/vanilla" in text and "band gap" in text and "Without labels" in text
    assert 'href="runs/twins/vanilla/report.html"' in text
    assert "5 of 5" in text and "1.25" in text and "silent for" in text
    assert text.count('class="plot') == 2 and "http-equiv" not in text.split("<style>")[0]


def test_a_run_that_writes_lines_is_running(tmp_path):
    record = Record.read(write_run(tmp_path / "run", finished=False))
    last = record.lines[-1]["time"]
    assert state_of(record, last + 60) == "running"
    assert state_of(record, last + 600) == "silent for 10 min"
    assert state_of(Record.read(write_run(tmp_path / "other")), last) == "finished"
    (tmp_path / "run/error.txt").write_text("")
    assert state_of(record, last) == "failed"


def test_what_is_no_run_is_passed_over(tmp_path):
    write_run(tmp_path / "run")
    for name, text in (("damaged", "{"), ("other", json.dumps({"a": 1}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    assert [record.path.name for record in runs_in([tmp_path])] == ["run"]


def test_folders_without_runs_are_told(tmp_path):
    with pytest.raises(UserError, match="no run there"):
        cli.call(dashboard, [str(tmp_path), "--output", str(tmp_path / "page.html")])
    with pytest.raises(UserError, match="--output page.txt: give a file that ends in .html"):
        cli.call(dashboard, [str(tmp_path), "--output", "page.txt"])
    with pytest.raises(UserError, match="no such folder"):
        cli.call(dashboard, [str(tmp_path / "no"), "--output", str(tmp_path / "page.html")])


def test_a_page_is_found_without_jax(tmp_path):
    code = "import sys, crysgnn_jax.reporting.dashboard; print('jax' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "False\n"


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals are not POSIX's")
def test_a_followed_page_is_written_again_until_ctrl_c(tmp_path):
    write_run(tmp_path / "runs/a")
    output = tmp_path / "page.html"
    command = ["dashboard", str(tmp_path / "runs"), "--output", str(output), "--follow"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "crysgnn_jax", *command], stderr=subprocess.PIPE, env=environment
    )
    try:
        _wait(lambda: output.exists())
        assert 'http-equiv="refresh"' in output.read_text(encoding="utf-8")
        write_run(tmp_path / "runs/b")
        _wait(lambda: "2 runs" in output.read_text(encoding="utf-8"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.communicate()
    text = output.read_text(encoding="utf-8")
    assert "2 runs" in text and 'http-equiv="refresh"' not in text


def _wait(ready):
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.1)
