"""Who does the work, and what becomes of what they were given when they die."""

import os
import signal
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from crysgnn_jax import extras
from crysgnn_jax.curation import engine as engines
from crysgnn_jax.curation.engine import LOST, engine_of
from crysgnn_jax.errors import UserError


def _double(x):
    if x == "kill":
        os._exit(1)
    return 2 * x, os.getpid()


def test_a_dead_process_loses_its_call_alone_and_is_replaced():
    with engine_of("local", 2) as engine:
        calls = [(k, ("kill" if k in (1, 4) else k,)) for k in range(8)]
        found = dict(engine.run(_double, calls))
        assert [k for k, answer in found.items() if answer is LOST] in ([1, 4], [4, 1])
        assert all(found[k][0] == 2 * k for k in (0, 2, 3, 5, 6, 7))
        again = dict(engine.run(_double, [(k, (k,)) for k in range(4)]))
        assert {answer[0] for answer in again.values()} == {0, 2, 4, 6}
        assert os.getpid() not in {answer[1] for answer in again.values()}


def test_a_process_that_dies_with_nothing_to_do_costs_nothing():
    with engine_of("local", 2) as engine:
        calls = [(k, (k,)) for k in range(4)]
        victim = dict(engine.run(_double, calls))[3][1]
        os.kill(victim, signal.SIGKILL)
        time.sleep(0.5)
        found = dict(engine.run(_double, calls))
        assert {answer[0] for answer in found.values()} == {0, 2, 4, 6}
        assert victim not in {answer[1] for answer in found.values()}


def test_processes_that_die_over_and_over_are_told(monkeypatch):
    class Broken:
        def __init__(self, *arguments, **options):
            self._first = True

        def submit(self, function, *arguments):
            if not self._first:
                raise BrokenProcessPool
            self._first = False
            (ready := Future()).set_result(None)
            return ready

        def shutdown(self, wait=True, cancel_futures=False):
            pass

    monkeypatch.setattr(engines, "ProcessPoolExecutor", Broken)
    with engine_of("local", 2) as engine:
        with pytest.raises(UserError, match="3 worker processes ended before .* `workers`"):
            list(engine.run(_double, [("a", (1,))]))


def test_arguments_are_made_as_they_are_needed():
    made = []

    def calls():
        for k in range(20):
            made.append(k)
            yield k, (k,)

    with engine_of("local", 2) as engine:
        answers = engine.run(_double, calls())
        next(answers)
        assert len(made) <= 5
        assert len(list(answers)) == 19


def test_one_worker_is_this_process():
    with engine_of("local", 1) as engine:
        assert list(engine.run(_double, [("a", (3,))])) == [("a", (6, os.getpid()))]


def test_what_is_not_there_is_told(monkeypatch):
    with pytest.raises(UserError, match="`engine` slurm: there is local and ray"):
        with engine_of("slurm", 1):
            pass
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`engine` ray needs ray; .* 'crysgnn-jax\[ray\]'"):
        with engine_of("ray", 1):
            pass
