"""`crysgnn COMMAND …`, and `python -m crysgnn_jax COMMAND …` likewise."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from crysgnn_jax import __version__

COMMANDS = (
    "pretrain",
    "distill",
    "finetune",
    "compare",
    "debias",
    "predict",
    "explain",
    "embed",
    "nearest",
    "check",
    "curate",
    "models",
    "convert",
    "dashboard",
)
"""Each a module of `crysgnn_jax.commands`, whose docstring's first line says what it does."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the command that the first word names.

    Args:
      words: those of the process where not given.
    """
    # Before anything is imported that takes its time.
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    from crysgnn_jax import stopping

    stopping.watch()
    from crysgnn_jax.commands import cli

    with cli.as_a_process():
        _run(sys.argv[1:] if words is None else words)


def _run(words: Sequence[str]) -> None:
    # A script looks for modules beside itself; a user's own student lies in the current folder.
    sys.path.append(os.getcwd())
    if not words or words[0] in ("-h", "--help"):
        print(overview())
    elif words[0] == "--version":
        print(f"crysgnn {__version__}")
    elif words[0] == "--completion":
        from crysgnn_jax.commands import completion

        shell = words[1] if len(words) > 1 else ""
        print(completion.script(shell, {name: _module(name) for name in COMMANDS}))
    elif words[0] in COMMANDS:
        # Parsing flags alone takes a tenth of what JAX takes to start.
        from crysgnn_jax.commands import cli

        cli.run(_module(words[0]), words[1:])
    else:
        print(
            f"crysgnn: error: {words[0]}: there is {', '.join(COMMANDS)} (see crysgnn --help)",
            file=sys.stderr,
        )
        sys.exit(2)


def overview() -> str:
    """All commands, a line each."""
    lines = [
        "usage: crysgnn COMMAND [FLAGS]",
        "",
        "Pre-train on untagged crystals, distil into any property predictor.",
        "",
        "commands:",
    ]
    width = max(map(len, COMMANDS))
    for name in COMMANDS:
        about = (_module(name).__doc__ or "").strip().split("\n")[0]
        lines.append(f"  {name.ljust(width)}  {about}")
    return "\n".join(
        [
            *lines,
            "",
            "crysgnn COMMAND --help lists the flags of one; crysgnn --completion bash|zsh|fish",
            "prints a script that completes them.",
        ]
    )


def _module(name: str):
    return importlib.import_module(f"crysgnn_jax.commands.{name}")


if __name__ == "__main__":
    main()
