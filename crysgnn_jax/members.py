"""A user's own code, by ``package.module:NAME``."""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from crysgnn_jax.errors import UserError


def find_member(path: str, parameter: str, otherwise: str) -> Any:
    """What ``package.module:NAME``, or ``folder/file.py:NAME``, leads to.

    Args:
      path: as the user wrote it.
      parameter: that it was given as, for messages.
      otherwise: what else there is to give, for messages.

    Raises:
      UserError: it is not of that form, or leads to nothing.
    """
    module_name, colon, member = path.partition(":")
    if not (module_name and colon and member):
        raise UserError(f"`{parameter}` {path}: {otherwise}")
    module = import_module(module_name, parameter, path)
    if not hasattr(module, member):
        raise UserError(f"`{parameter}` {path}: {module_name} has no {member}")
    return getattr(module, member)


def import_module(name: str, parameter: str, value: str) -> ModuleType:
    """Import a user's module.

    Args:
      name: of the module.
      parameter: that it was named by, for messages.
      value: of the parameter.

    Raises:
      UserError: it is not there, or fails.
    """
    try:
        return _from_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except Exception as error:  # whatever a stranger's file does wrong
        raise UserError(
            f"`{parameter}` {value}: {name} cannot be imported ({one_line(error)}); run the "
            "command where Python finds it, or set PYTHONPATH"
        ) from error


def _from_file(path: Path) -> ModuleType:
    """A module by its file, under its path as the user gave it, so that it is found again by the
    same words."""
    words, file = str(path), path.resolve()
    known = sys.modules.get(words)
    if known is not None and known.__file__ == str(file):
        return known
    # Flax and pickle look a class up by the name of its module, which must be nobody else's.
    name = re.sub(r"\W", "_", path.stem)
    while _is_another(name, file):
        name += "_"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # Mended, it is to be read again.
        del sys.modules[name]
        raise
    sys.modules[words] = module
    return module


def _is_another(name: str, file: Path) -> bool:
    """Whether a module of this name has been imported, or would be, from elsewhere than a file."""
    if name in sys.modules:
        return True
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin != str(file)


def require_trust(path: str, parameter: str, named_by: Any) -> None:
    """Check that code which a file names, and not the user, has been imported by the user.

    Args:
      path: ``package.module:NAME``; a name without a colon is the package's own.
      parameter: that the file was given as, for messages.
      named_by: the file or folder.

    Raises:
      UserError: its module has not been imported in this process.
    """
    module, colon, _ = path.partition(":")
    if colon and module not in sys.modules:
        raise UserError(
            f"`{parameter}` {named_by} names code that is not the package's, {path}, which would "
            f"be run; where you trust it, give `trust_code` {module}, or import it first"
        )


def one_line(error: Exception) -> str:
    """Kind and first line of what went wrong in somebody else's code."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_own(thing: Any) -> bool:
    """Whether a class or function is a user's own, and not the package's."""
    return not thing.__module__.startswith("crysgnn_jax.")


def code_of(thing: Any) -> str:
    """Hex digest of the file that a class or function is written in."""
    try:
        text = inspect.getsource(sys.modules[thing.__module__])
    except (OSError, TypeError):  # not written in a file
        text = repr(thing)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
