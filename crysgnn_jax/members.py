"""A user's own code, by ``package.module:NAME``."""

import hashlib
import importlib
import inspect
import sys
from typing import Any

from crysgnn_jax.errors import UserError


def find_member(path: str, parameter: str, otherwise: str) -> Any:
    """What a path of the form ``package.module:NAME`` leads to.

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
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a stranger's file does wrong
        raise UserError(
            f"`{parameter}` {path}: {module_name} cannot be imported ({one_line(error)}); run the "
            "command where Python finds it, or set PYTHONPATH"
        ) from error
    if not hasattr(module, member):
        raise UserError(f"`{parameter}` {path}: {module_name} has no {member}")
    return getattr(module, member)


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
