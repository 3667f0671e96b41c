"""What one file may take before it is given up: time, and atoms that it only claims to have."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

SECONDS = 60.0
"""For one file. The largest structures that a graph network is for take a few."""

BYTES_PER_SECOND = 100_000.0
"""Further time for files with many structures: ASE reads ten times as fast."""


class TooSlow(Exception):
    """The time is over."""


class Limit:
    """Raises `TooSlow` in a block that takes longer; see `time_limits`."""

    def __init__(self, seconds: float, usable: bool):
        self._seconds = seconds if usable else 0.0

    def __enter__(self) -> None:
        if self._seconds:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def time_limits(seconds: float) -> Iterator[Limit]:
    """A limit for one block after the other: to prepare for an alarm takes longer than to read a
    small crystal.

    Signals reach the main thread alone, and not every system has them: elsewhere, and where the
    alarm is taken already, there is no limit.
    """
    usable = (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )
    if not usable:
        yield Limit(seconds, usable=False)
        return

    def stop(*_) -> None:
        raise TooSlow(f"reading took over {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        yield Limit(seconds, usable=True)
    finally:
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in a block that takes longer, as `time_limits` does."""
    with time_limits(seconds) as limit, limit:
        yield


def seconds_for(path: Path) -> float:
    """Time for a file by its size."""
    return SECONDS + path.stat().st_size / BYTES_PER_SECOND


def require_atoms_that_are_there(path: Path) -> None:
    """Check what a text file claims against what it holds, before memory is taken for it.

    Raises:
      ValueError: a POSCAR claims more atoms than there are lines.
    """
    name = path.name.lower()
    if name.endswith((".vasp", ".poscar", ".contcar")) or name.startswith(("poscar", "contcar")):
        _check_poscar(path)


def _check_poscar(path: Path) -> None:
    with open(path, encoding="utf-8", errors="replace") as file:
        head = [file.readline() for _ in range(7)]
        n_lines = sum(1 for _ in file)
    for line in head[5:7]:
        words = line.split()
        if words and all(word.isdigit() for word in words):
            n_atoms = sum(map(int, words))
            if n_atoms > n_lines + 1:
                raise ValueError(
                    f"it claims {n_atoms} atoms, and {n_lines} lines follow: it is cut short or "
                    "damaged"
                )
            return
