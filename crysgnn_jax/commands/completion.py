"""Words that a shell completes: the commands, their flags, and files where a flag takes one."""

import argparse
from collections.abc import Mapping
from typing import Any

from crysgnn_jax.errors import UserError

SHELLS = ("bash", "zsh", "fish")

_FILES = ("FILE", "DIR", "PATH", "SOURCE", "CHECKPOINT")


def script(shell: str, modules: Mapping[str, Any]) -> str:
    """A script that teaches a shell to complete ``crysgnn``.

    Args:
      shell: one of `SHELLS`.
      modules: name of a command → its module.

    Raises:
      UserError: there is none for that shell.
    """
    if shell not in SHELLS:
        raise UserError(f"--completion {shell or '(nothing)'}: there is {', '.join(SHELLS)}")
    import shtab

    root = argparse.ArgumentParser("crysgnn")
    root.add_argument("--version", action="store_true", help="which version it is")
    root.add_argument("--completion", choices=SHELLS, help="print such a script")
    commands = root.add_subparsers(dest="command")
    for name, module in modules.items():
        about = module.__doc__.strip().split("\n")[0]
        own = commands.add_parser(name, parents=[module.parser()], add_help=False, help=about)
        for action in own._actions:
            if isinstance(action.metavar, str) and any(x in action.metavar for x in _FILES):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(root, shell)
