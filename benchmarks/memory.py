"""How much memory a process and those that it starts have."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

SAMPLING_SECONDS = 0.05


class Peak:
    """The most memory seen so far, bytes. Pages that processes share count for each of them.

    Attributes:
      own: of this process.
      largest: of one of those that it started.
      together: of all at once.
    """

    def __init__(self) -> None:
        self.own = self.largest = self.together = 0

    def sample(self) -> None:
        """Look at it now."""
        own, *others = map(_resident, _family(os.getpid()))
        self.own = max(self.own, own)
        self.largest = max(self.largest, *others, 0)
        self.together = max(self.together, own + sum(others))


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Samples the memory of this process and its children, within."""
    peak = Peak()
    stopped = threading.Event()

    def sample() -> None:
        peak.sample()
        while not stopped.wait(SAMPLING_SECONDS):
            peak.sample()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()


def _family(pid: int) -> list[int]:
    """The process and all that it started, directly or not. Linux only: elsewhere, none."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it ended in the meantime
            children += map(int, task.read_text().split())
    return [pid, *(member for child in children for member in _family(child))]


def _resident(pid: int) -> int:
    """Bytes of memory; 0 for a process that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
