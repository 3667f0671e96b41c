"""Running a command: what becomes of errors, and how its process is set up."""

import argparse
import contextlib
import hashlib
import logging
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from crysgnn_jax.cache import default_cache_dir
from crysgnn_jax.commands.flags import Parser
from crysgnn_jax.errors import UserError
from crysgnn_jax.members import import_module


class Command(Protocol):
    """What the module of a command has."""

    def parser(self) -> Parser:
        """Its flags."""

    def execute(self, args: argparse.Namespace) -> None:
        """Do what the flags say. Imports JAX."""


def run(command: Command, arguments: Sequence[str] | None = None) -> None:
    """Run a command as this process: a `UserError` becomes one line and exit code 2.

    Args:
      command: module of the command.
      arguments: words after its name; those of the process where not given.
    """
    parser = command.parser()
    args = parser.parse_args(arguments)
    # Not before the flags are known to be good: it makes the process start later.
    set_up_process()
    try:
        _execute(command, parser, args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "interrupted; the same command, without --overwrite, goes on from the last checkpoint",
            file=sys.stderr,
        )
        sys.exit(130)


def set_up_process() -> None:
    """What makes a process that trains fast and quiet. Before JAX is imported."""
    _use_huge_pages()
    _keep_compiled_steps()
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs every save


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
        for name in getattr(args, "trust_code", ()):
            import_module(name, "trust_code", name)
        command.execute(args)
    except UserError as error:
        raise UserError(as_flags(str(error), parser)) from error


def as_flags(message: str, parser: Parser) -> str:
    """A message of the library, whose parameters stand in backticks, in terms of a command."""
    return re.sub(r"`([a-z_]+)`", lambda found: parser.flag_of(found[1]) or found[1], message)


def _use_huge_pages() -> None:
    """Start the process again with huge pages for large allocations.

    On a CPU, a third of a training step is page faults otherwise, and glibc reads the setting at
    the start of a process only. An own GLIBC_TUNABLES is left alone.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _keep_compiled_steps() -> None:
    """Let JAX keep what it compiles beside the graphs, for the next run of the same shapes.

    Kept apart by machine: a program for one CPU may not run on another that shares the folder. An
    own JAX_COMPILATION_CACHE_DIR is left alone, and an empty one switches it off.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
            default_cache_dir() / "compiled" / _machine_fingerprint()
        )
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**31))


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
    """A file to write, there whole or not at all."""
    path = path.resolve()  # a link stays, what it leads to is written
    if path.exists() and not path.is_file():  # a device or pipe
        with open(path, mode) as file:
            yield file
        return
    draft = path.with_name(path.name + ".tmp")
    with open(draft, mode, newline=None if "b" in mode else "") as file:
        yield file
    os.replace(draft, path)


def require_writable(path: Path) -> None:
    """Check that a file can be written at the end of a run, before the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file") from None
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written (permission denied); name another file")


def make_folder(parameter: str, path: Path) -> None:
    """Make the folder that a parameter names, before a run."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"`{parameter}` {path} cannot be written to ({error.strerror}); name another directory"
        ) from None
