"""Running a command: what becomes of errors, and how its process is set up."""

import argparse
import codecs
import contextlib
import hashlib
import io
import locale
import logging
import os
import platform
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

from crysgnn_jax import processes, stopping
from crysgnn_jax.cache import default_cache_dir, make_cache_dir
from crysgnn_jax.commands.flags import Parser
from crysgnn_jax.errors import UserError, printable
from crysgnn_jax.files import draft_of, of_the_disk, whole, writing, written
from crysgnn_jax.members import import_module


class Command(Protocol):
    """What the module of a command has."""

    def parser(self) -> Parser:
        """Its flags."""

    def execute(self, args: argparse.Namespace) -> None:
        """Do what the flags say. Imports JAX."""


@contextlib.contextmanager
def as_a_process() -> Iterator[None]:
    """What is within is all that this process does: it ends in one line at most, and with the exit
    code that its shell expects, where it cannot go on, is stopped, or nobody reads on."""
    _require_letters()
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _end(f"error: {error}", 2)
    except BrokenPipeError:
        _end("", 128 + signal.SIGPIPE)
    except KeyboardInterrupt as stopped:
        _end(str(stopped) or "interrupted", 128 + getattr(stopped, "number", signal.SIGINT))
    except OSError as error:
        if not of_the_disk(error):
            raise
        _end(f"error: {written(error, error.filename or 'a file')}", 2)


def _end(line: str, code: int) -> NoReturn:
    """End the process, with a line unless it is empty. Nobody may be there to read it, or what is
    still to be printed."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, line)):
        try:
            print(text, end="\n" if text else "", file=stream, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    stopping.end(code)


def run(command: Command, arguments: Sequence[str] | None = None) -> None:
    """Run a command as this process: a `UserError` becomes one line and exit code 2.

    Args:
      command: module of the command.
      arguments: words after its name; those of the process where not given.
    """
    stopping.watch()
    with as_a_process():
        parser = command.parser()
        args = parser.parse_args(arguments)
        # Not before the flags are known to be good: it makes the process start later.
        _set_up_process()
        with warnings_as_lines():
            _execute(command, parser, args)


def run_study(main: Callable[[], None]) -> None:
    """Run, as this process, what calls commands by `call`: a signal, a `UserError` and a full disk
    end it as they end a command.

    Args:
      main: of the study; imports JAX no earlier than that.
    """
    stopping.watch()
    with as_a_process():
        _set_up_process()
        with warnings_as_lines():
            main()


class _Lines(logging.Handler):
    """Prints warnings as a command says them."""

    def emit(self, record: logging.LogRecord) -> None:
        # What standard error is now: above a bar that is being drawn, or nowhere, in a process
        # that is not to speak.
        print(f"warning: {printable(record.getMessage())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Within, what this package warns of is a line on standard error, ``warning: …``, whatever
    libraries have made of logging."""
    log = logging.getLogger("crysgnn_jax")
    handler = _Lines(logging.WARNING)
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


def _set_up_process() -> None:
    """What makes a process that trains fast and quiet. Before JAX is imported."""
    _use_huge_pages()
    _keep_compiled_steps()


def call(command: Command, arguments: Sequence[str]) -> None:
    """Run a command within a Python process.

    Raises:
      UserError: as the command prints it.
      SystemExit: a flag is not known or has a bad value.
    """
    parser = command.parser()
    _execute(command, parser, parser.parse_args(arguments))


def _execute(command: Command, parser: Parser, args: argparse.Namespace) -> None:
    try:
        with _joined(args):
            for name in getattr(args, "trust_code", ()):
                import_module(name, "trust_code", name)
            command.execute(args)
    except UserError as error:
        raise UserError(as_flags(str(error), parser)) from error


def _joined(args: argparse.Namespace) -> contextlib.AbstractContextManager:
    """Among the other processes of a run, where a command trains on several."""
    if not hasattr(args, "coordinator"):
        return contextlib.nullcontext()
    return processes.joined(args.coordinator, args.process_id, args.num_processes)


def as_flags(message: str, parser: Parser) -> str:
    """A message of the library, whose parameters stand in backticks, in terms of a command."""
    return re.sub(r"`([a-z_]+)`", lambda found: parser.flag_of(found[1]) or found[1], message)


def _use_huge_pages() -> None:
    """Start the process again with huge pages for large allocations.

    On a CPU, a third of a training step is page faults otherwise, and glibc reads the setting at
    the start of a process only. An own GLIBC_TUNABLES is left alone.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        _start_again(GLIBC_TUNABLES="glibc.malloc.hugetlb=1")


def _require_letters() -> None:
    """Start the process again in UTF-8 mode where the locale knows ASCII alone: there, a path with
    other letters could be read, and not be told or written down."""
    encoding = codecs.lookup(locale.getpreferredencoding(False)).name
    if encoding == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        _start_again(PYTHONUTF8="1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _start_again(**environment: str) -> None:
    os.environ.update(environment)
    # The new process takes over signals as its first thing, and none may come before.
    with stopping.held_back():
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _keep_compiled_steps() -> None:
    """Let JAX keep what it compiles beside the graphs, for the next run of the same shapes.

    Kept apart by machine: a program for one CPU may not run on another that shares the folder. An
    own JAX_COMPILATION_CACHE_DIR is left alone, and an empty one switches it off; so does a folder
    that cannot be made.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = default_cache_dir()
        with contextlib.suppress(OSError):
            make_cache_dir(root)
        if os.access(root, os.W_OK):
            folder = str(root / "compiled" / _machine_fingerprint())
            os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**31))
    # Where there is no room for them, they are made again by the next run: nothing is lost.
    warnings.filterwarnings("ignore", "Error (writing|reading) persistent compilation cache")


def _machine_fingerprint() -> str:
    """Hex digest of what the CPU can do, as far as the system tells."""
    about = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.blake2b(about.encode(), digest_size=8).hexdigest()


def command_line() -> str:
    """This command as a reader would type it: files elsewhere by name, not by where they are."""
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.orig_argv[1:]]
    return shlex.join(words if words[:1] == ["crysgnn"] else ["python", *words])


@contextlib.contextmanager
def output(path: Path, mode: str) -> Iterator[IO]:
    """A file to write, there whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    path = path.resolve()  # a link stays, what it leads to is written
    if path.exists() and not path.is_file():  # a device or pipe
        text: dict[str, Any] = {} if "b" in mode else {"newline": "", "encoding": "utf-8"}
        with open(path, mode, **text) as file:
            yield file
        return
    with writing(path), whole(path, mode) as file:
        yield file


def require_writable(path: Path) -> None:
    """Check that a file can be written at the end of a run, before the run."""
    if not processes.is_first():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file") from None
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written (permission denied); name another file")
    if path.exists() and not path.is_file():  # a device or pipe
        return
    # The right to write is not all: a folder of the system may take no files.
    draft = draft_of(path.resolve())
    try:
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise UserError(written(error, path)) from None


def make_folder(parameter: str, path: Path) -> None:
    """Make the folder that a parameter names, before a run."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"`{parameter}` {path} cannot be written to ({error.strerror}); name another directory"
        ) from None
