"""Ctrl-C and SIGTERM: what is under way is finished and saved where it can be, within seconds.

Everything that a command writes is whole at any moment, so that it can end at any moment, and
mostly does so at once. Within `graceful` there is something to save first: the signal is only
noted there, and `check` raises `Stopped` where that is safe.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

PATIENCE = 8.0
"""Seconds that what is under way may take to end; a step may be compiled for longer."""

_LINE = "interrupted; what is finished is kept: the same command, without --overwrite, goes on"


class Stopped(KeyboardInterrupt):
    """The process was asked to stop, and what was under way has been saved.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT):
        super().__init__(_LINE)
        self.number = number


class _Wish:
    """What has been asked for, in this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.number: int | None = None
        self.graceful = 0
        self.watching = False
        self.abrupt = False


_wish = _Wish()


def watch() -> None:
    """Take over SIGINT and SIGTERM, for a command. The first thing that its process does.

    A thread is told of a signal, whatever the main thread is doing: no exception is raised where
    a callback of C++ would swallow it or end the process, nor in an import, and a signal counts
    while a step is compiled. A signal that the process was started to ignore stays ignored.
    """
    if _wish.watching or sys.platform == "win32":
        return
    # Until the thread is there, they wait; as they may have done since this process replaced
    # another one, see `held_back`.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    taken = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_obey, args=(reader, taken), daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in taken:
        signal.signal(number, lambda *_: None)
    _wish.watching = True
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Signals wait, also for a process that is started within, until it wants them."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey(reader: int, taken: list[int]) -> None:
    while True:
        for number in os.read(reader, 1):
            if number in taken:
                _ask(number)


def _ask(number: int) -> None:
    with _wish.lock:
        if _wish.number is not None:
            leave(number, "stopped at once; the last checkpoint is kept")
        if not _wish.graceful:
            leave(number, _LINE)
        _wish.number = number
    late = threading.Timer(PATIENCE, leave, (number, _LINE))
    late.daemon = True
    late.start()


def leave(number: int, line: str) -> None:
    """End the process with one line, and as one that a signal ended."""
    with contextlib.suppress(OSError):
        # Not by print: the main thread may be in the middle of one.
        os.write(2, ("\n" * os.isatty(2) + line + "\n").encode())
    os._exit(128 + number)


def abruptly() -> None:
    """Have `end` leave the process without waiting for anything."""
    _wish.abrupt = True


def end(code: int) -> NoReturn:
    """End the process, once all has been printed."""
    if _wish.abrupt:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def graceful() -> Iterator[None]:
    """Something is under way that is to be saved before the process ends.

    Within, a first signal is only noted, for `asked` and `check`; a second one ends the process.
    In a Python session, whose signals are its own, this is so for Ctrl-C in the main thread.

    Raises:
      Stopped: at the end at the latest, if a signal came.
    """
    check()
    with _own_handler(), _counted():
        yield
        check()


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    with _wish.lock:
        _wish.graceful += 1
    try:
        yield
    finally:
        with _wish.lock:
            _wish.graceful -= 1
            if not _wish.watching and not _wish.graceful:
                _wish.number = None  # a Python session goes on


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """For Ctrl-C in a Python session."""
    is_main = threading.current_thread() is threading.main_thread()
    if _wish.watching or not is_main or signal.getsignal(signal.SIGINT) is not _DEFAULT:
        yield
        return

    def note(number: int, frame: Any) -> None:
        if _wish.number is not None:
            raise Stopped(number)
        _wish.number = number

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _DEFAULT)


_DEFAULT = signal.default_int_handler


def asked() -> bool:
    """Whether a signal came within `graceful`."""
    return _wish.number is not None


def check() -> None:
    """
    Raises:
      Stopped: a signal came within `graceful`.
    """
    if _wish.number is not None:
        raise Stopped(_wish.number)


def is_coming(seconds: float = 0.5) -> bool:
    """Whether a signal came, or comes in a moment: a worker process may be told of it before."""
    end = time.monotonic() + seconds
    while not asked() and time.monotonic() < end:
        time.sleep(0.01)
    return asked()
