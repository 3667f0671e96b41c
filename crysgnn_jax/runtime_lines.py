"""What the C++ runtime of several processes prints, and what of it a user is to see.

Where one process of a run ends, the runtime ends the others: it prints a dozen lines, among them
addresses of functions, and aborts. No exception can be caught. So what the C++ code prints goes to
a small process beside this one, which passes on what matters and tells the end in one line. What
Python prints goes where it went.

This file is run by itself too, as that process: it imports nothing else of the package.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

ENDED = (
    "has ended; what is finished is kept: start all processes again with the same command, without "
    "--overwrite, and they go on"
)

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
      >>> list(passed_on(["[Gloo] Rank 0 is connected to 1 peer ranks.", "out of memory"]))
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
        elif not (_NOISE.search(line) or _LOG.match(line)):
            yield line
    if ended and not told:
        yield f"error: {others_ended(which)}"


@contextlib.contextmanager
def own_lines() -> Iterator[None]:
    """Within, what C++ code prints goes through `passed_on`."""
    kept = [os.dup(stream) for stream in (1, 2)]
    before = sys.stdout, sys.stderr
    reader = subprocess.Popen(
        [sys.executable, "-I", "-S", "-u", __file__], stdin=subprocess.PIPE, stdout=kept[1],
        start_new_session=True,  # Ctrl-C is not for it
    )  # fmt: skip
    assert reader.stdin is not None
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        for stream in (1, 2):
            os.dup2(reader.stdin.fileno(), stream)
        reader.stdin.close()
        sys.stdout = open(kept[0], "w", encoding=before[0].encoding, closefd=False)
        sys.stderr = open(
            kept[1], "w", encoding=before[1].encoding, errors="backslashreplace", closefd=False,
            buffering=1,
        )  # fmt: skip
        yield
    finally:
        if sys.stdout is not before[0]:
            sys.stdout.flush()
            sys.stderr.flush()
        for stream, descriptor in zip((1, 2), kept):
            os.dup2(descriptor, stream)
        sys.stdout, sys.stderr = before


if __name__ == "__main__":
    for shown in passed_on(line.rstrip("\n") for line in sys.stdin):
        print(shown, flush=True)
