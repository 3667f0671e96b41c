"""What the C++ runtime of several processes prints, and what of it a user is to see.

Where one process of a run ends, the runtime ends the others: it prints a dozen lines, among them
addresses of functions, and aborts. No exception can be caught. So what the C++ code prints goes to
a small process beside this one, which passes on what matters and tells the end in one line. What
Python prints goes where it went.

This file is run by itself too, as that process: it imports nothing else of the package.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

ENDED = (
    "has ended; what is finished is kept: start all processes again with the same command, without "
    "--overwrite, and they go on"
)

ABORTED = int(signal.SIGABRT)
"""Exit code of a process that the runtime ends."""

_LOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d")
_FATAL = re.compile(r"[EF]\d{4} \d\d:\d\d:\d\d")
_NOISE = re.compile(r"connected to \d+ peer ranks|^\[Gloo\]")  # also in pieces, of several threads
_OURS = re.compile(r"error: |interrupted|stopped at once")
_LOST = (
    re.compile(r"[Tt]ask (\d+) heartbeat timeout"),
    re.compile(r"/task:(\d+)"),
    re.compile(r"^(\d+)$"),
)
_OF_THE_FIRST = "Failed to send RPC to coordination service"
_END = "JAX distributed service detected fatal errors"


def others_ended(which: str | None = None) -> str:
    """One line: another process has ended.

    Args:
      which: its number, where that is known.
    """
    who = "another process of this run" if which is None else f"process {which} of this run"
    return f"{who} {ENDED}"


def passed_on(lines: Iterable[str]) -> Iterator[str]:
    """The lines that a user is to see, of those that come from C++ code.

    Example:
      >>> list(passed_on(["[Gloo] Rank 0 is connected to 1 peer ranks.", "", "out of memory"]))
      ['out of memory']
    """
    told = failed = ended = False
    which: str | None = None
    for line in lines:
        if _OURS.match(line):
            told = True
            yield line
            continue
        failed = failed or bool(_FATAL.match(line))
        ended = ended or _END in line
        if failed:
            if _OF_THE_FIRST in line:
                which = which or "0"
            found = next(filter(None, (pattern.search(line) for pattern in _LOST)), None)
            which = which or (found and found[1])
        # Of lines that threads have written into each other, ends are left over.
        elif line.strip() and not (_NOISE.search(line) or _LOG.match(line)):
            yield line
    if ended and not told:
        yield f"error: {others_ended(which)}"


def end_without_a_core() -> None:
    """From now on, where C++ code aborts, this process ends with exit code `ABORTED`: its shell
    does not say "Aborted", and no core is written. What was wrong has been printed by then."""
    if sys.platform == "win32":
        return
    own = ctypes.CDLL(None)
    own.signal.argtypes, own.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    # A handler is called with the number of its signal. One of Python's would not run: the
    # interpreter is not asked while C++ code ends the process.
    own.signal(ABORTED, ctypes.cast(own._exit, ctypes.c_void_p))


@contextlib.contextmanager
def own_lines() -> Iterator[None]:
    """Within, what C++ code prints goes through `passed_on`."""
    before = sys.stdout, sys.stderr
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    reader = subprocess.Popen(
        [sys.executable, "-I", "-S", "-u", __file__],
        stdin=subprocess.PIPE,
        stdout=kept[1],
        start_new_session=True,  # Ctrl-C is not for it
    )
    assert reader.stdin is not None
    try:
        for stream in before:
            stream.flush()
        sys.stdout, sys.stderr = (
            _moved(stream, *places) for stream, places in zip(before, zip((1, 2), kept))
        )
        for descriptor in (1, 2):
            os.dup2(reader.stdin.fileno(), descriptor)
        reader.stdin.close()
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
        for descriptor, place in zip((1, 2), kept):
            os.dup2(place, descriptor)
            os.close(place)


def _moved(stream: TextIO, descriptor: int, place: int) -> TextIO:
    """What writes to ``place``, as ``stream`` does to a descriptor; the stream itself where it does
    not, as in a notebook."""
    try:
        if stream.fileno() != descriptor:
            return stream
    except OSError:
        return stream
    return open(
        place,
        "w",
        encoding=stream.encoding,
        errors=stream.errors,
        buffering=1 if stream.isatty() or descriptor == 2 else -1,
        closefd=False,
    )


if __name__ == "__main__":
    for shown in passed_on(line.rstrip("\n") for line in sys.stdin):
        print(shown, flush=True)
