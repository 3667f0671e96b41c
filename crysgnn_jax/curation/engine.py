"""Who does the work: this process, processes of this machine, or a Ray cluster (`ray_engine`).

An engine calls a function with one set of arguments after the other and hands back what came of
each, in whatever order. A call whose process ended without an answer is told as such, and it is
the caller's to try it again: an engine schedules nothing else.
"""

import contextlib
import enum
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from crysgnn_jax import stopping
from crysgnn_jax.errors import UserError
from crysgnn_jax.workers import settle_worker

ENGINES = ("local", "ray")

_TRIES = 3
"""New processes for a call after which it is given up: each died before it was given the call."""

Call = tuple[Any, tuple]
"""What the caller knows a call by, and the arguments of the function."""


class Lost(enum.Enum):
    """In the place of a result: the process that was to give it has ended."""

    LOST = "lost"


LOST = Lost.LOST


class Engine(Protocol):
    """Calls functions. A context manager: processes end with it."""

    def run(self, function: Callable, calls: Iterable[Call]) -> Iterator[tuple[Any, Any]]:
        """Call a function.

        Args:
          function: at the top of a module, as it may be called elsewhere. What it raises is raised
            here.
          calls: taken one by one as there is somebody free to do them, so that the arguments of a
            few alone are in memory.

        Yields:
          What a call is known by, and what the function returned, or `LOST`.

        Raises:
          Stopped: a signal came; calls under way are finished.
        """

    def close(self) -> None:
        """End the processes."""


class InProcess:
    """Calls the function here, one call after the other."""

    def run(self, function: Callable, calls: Iterable[Call]) -> Iterator[tuple[Any, Any]]:
        """As `Engine.run`; nothing is ever lost but with this process."""
        for key, arguments in calls:
            yield key, function(*arguments)
            stopping.check()

    def close(self) -> None:
        """There is nothing to end."""


class Processes:
    """Worker processes of this machine, each busy with one call.

    Args:
      workers: how many; they are started when there is something to do.
    """

    def __init__(self, workers: int):
        self._n_workers = workers
        self._workers: list[_Worker] = []

    def run(self, function: Callable, calls: Iterable[Call]) -> Iterator[tuple[Any, Any]]:
        """As `Engine.run`.

        Raises:
          UserError: a process cannot be started.
        """
        if not self._workers:
            self._workers = [_Worker() for _ in range(self._n_workers)]
            for worker in self._workers:
                worker.require_ready()
        left = iter(calls)
        running: dict[Future, tuple[Any, _Worker]] = {}
        idle = list(self._workers)
        # Made while all are at work, so that none waits for it.
        following = next(left, None)
        while following is not None or running:
            while following is not None and idle:
                key, arguments = following
                worker = idle.pop()
                running[worker.submit(function, *arguments)] = key, worker
                following = next(left, None)
            found = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            stopping.check()
            for future in found.done:
                key, worker = running.pop(future)
                yield key, worker.result(future)
                idle.append(worker)

    def close(self) -> None:
        """End the workers; calls under way are finished."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """A process, started at once, and again when it has died.

    A pool of several processes would end them all when one dies, and not tell whose call that had.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        # Not forked: JAX may run threads in this process, and a fork could inherit their locks.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=settle_worker)
        # No signal is to disturb its imports.
        with stopping.held_back():
            self._ready = self._pool.submit(_import)

    def require_ready(self) -> None:
        """
        Raises:
          UserError: the process ended before it was given anything to do.
        """
        try:
            self._ready.result()
        except BrokenProcessPool as error:
            if stopping.is_coming():
                stopping.check()
            raise UserError(
                "a worker process cannot be started; either memory ran out (pass fewer `workers`) "
                'or a script does its work outside if __name__ == "__main__":'
            ) from error

    def submit(self, function: Callable, *arguments: Any) -> Future:
        """Give the process a call; a new process, where it has died with nothing to do.

        Raises:
          UserError: new ones die too.
        """
        for _ in range(_TRIES):
            try:
                return self._pool.submit(function, *arguments)
            except BrokenProcessPool:
                self._replace()
        raise UserError(
            f"{_TRIES} worker processes ended before they were given anything to do; memory ran "
            "out (pass fewer `workers`)"
        )

    def result(self, future: Future) -> Any:
        """What a call returned, or `LOST`: the process is a new one then."""
        try:
            return future.result()
        except BrokenProcessPool:
            self._replace()
            return LOST

    def _replace(self) -> None:
        # A signal to the whole group of processes ends the workers.
        if stopping.is_coming():
            stopping.check()
        self._pool.shutdown()
        self._start()
        self.require_ready()

    def close(self) -> None:
        # Once, and waiting: after a call that does not, a second one has no thread to wait for, and
        # Python's own end meets one that is closing its pipes.
        self._pool.shutdown(cancel_futures=True)


def _import() -> None:
    """What a worker does first: import what its work needs."""
    from crysgnn_jax.curation import work  # noqa: F401


@contextlib.contextmanager
def engine_of(name: str, workers: int) -> Iterator[Engine]:
    """The engine of a name, ended with the block.

    Args:
      name: of `ENGINES`.
      workers: processes of this machine; 1 for none beside this one. A cluster has its own number.

    Raises:
      UserError: there is no such engine, its package is not installed, or it cannot be started.
    """
    makers: dict[str, Callable[[], Engine]] = {
        "local": functools.partial(Processes, workers) if workers > 1 else InProcess,
        "ray": _ray,
    }
    if name not in makers:
        raise UserError(f"`engine` {name}: there is {' and '.join(ENGINES)}")
    with contextlib.closing(makers[name]()) as engine:
        yield engine


def _ray() -> Engine:
    from crysgnn_jax.curation.ray_engine import Cluster

    return Cluster()
