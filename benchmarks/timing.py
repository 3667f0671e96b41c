"""Timing two programs fairly on a shared machine.

Each side runs in a process of its own, with the memory settings that suit it, and the processes
work in turns: only one computes at a time, and what disturbs the machine disturbs all of them.
"""

import contextlib
import ctypes
import dataclasses
import functools
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.errors import UserError

ALLOCATORS = {
    "default": "",
    "huge pages": "glibc.malloc.hugetlb=1",
    "keep memory": (
        "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"
        ":glibc.malloc.top_pad=268435456"
    ),
    "keep memory, huge pages": (
        "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"
        ":glibc.malloc.top_pad=268435456:glibc.malloc.hugetlb=1"
    ),
}
"""Name → ``GLIBC_TUNABLES``. By default, glibc gives every large tensor back to the system and
asks for it anew, which clears each of its pages; "keep memory" never does."""

WARM_UP = 2
"""Steps at the start of a turn that are not counted: the other sides have had the caches and the
memory meanwhile."""


class Worker:
    """A process that makes an object and calls its methods on demand.

    Args:
      factory: a module-level function that makes the object, in the new process.
      arguments: of the factory.
      allocator: key of `ALLOCATORS`.
      threads: cores that the process may use.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        arguments: Sequence[Any] = (),
        *,
        allocator: str = "default",
        threads: int = 1,
    ):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, factory, tuple(arguments), threads)
        )
        # Read by glibc and OpenMP when a process starts.
        with _environment({"GLIBC_TUNABLES": ALLOCATORS[allocator], "OMP_NUM_THREADS": threads}):
            self._process.start()
        theirs.close()
        self._answer()

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object; raises what it raises."""
        with contextlib.suppress(BrokenPipeError):  # `_answer` says what it means
            self._pipe.send((method, arguments))
        return self._answer()

    def close(self) -> None:
        self._pipe.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise UserError(
                f"a benchmark process ended with code {self._process.exitcode}; if memory ran "
                "out, take smaller batches"
            ) from None
        if answer.error is not None:
            raise answer.error from RuntimeError(answer.details)
        return answer.value


@dataclasses.dataclass(frozen=True)
class _Answer:
    value: Any = None
    error: Exception | None = None
    details: str = ""


def _attempt(function: Callable[[], Any]) -> _Answer:
    try:
        return _Answer(function())
    except Exception as error:  # raised again by the caller, in the other process
        return _Answer(error=error, details=traceback.format_exc())


def _serve(pipe, factory: Callable[..., Any], arguments: tuple, threads: int) -> None:
    """Answer calls until the other end is closed."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    made = _attempt(lambda: factory(*arguments))
    pipe.send(dataclasses.replace(made, value=None))
    with contextlib.suppress(EOFError):
        while made.error is None:
            method, call_arguments = pipe.recv()
            pipe.send(_attempt(functools.partial(getattr(made.value, method), *call_arguments)))


@contextlib.contextmanager
def _environment(values: Mapping[str, Any]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def take_turns(
    workers: Mapping[str, Worker], method: str, arguments: Sequence[tuple]
) -> dict[str, np.ndarray]:
    """Call a method that returns seconds, in one worker after the other, once for each entry of
    ``arguments``: A B A B …

    Returns:
      Worker's name → ``[len(arguments)]`` seconds.
    """
    rounds = [[worker.call(method, *given) for worker in workers.values()] for given in arguments]
    return dict(zip(workers, np.array(rounds).T))


def median_and_range(values: np.ndarray, digits: int) -> dict[str, float]:
    """Median, least and greatest of ``[n]`` values, rounded."""
    numbers = {"median": np.median(values), "min": np.min(values), "max": np.max(values)}
    return {name: round(float(value), digits) for name, value in numbers.items()}


def forget_peak_memory() -> None:
    """Let `peak_memory` start anew, from what is in use now; does nothing where the system does
    not allow it."""
    with contextlib.suppress(OSError, AttributeError):
        # What was freed but kept would count as used.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float | None:
    """GB that this process has had in memory at most; None where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    # Not getrusage: that starts from the memory of the process which started this one.
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e9, 2)
