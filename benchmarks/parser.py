"""The parser of a benchmark's command."""

from crysgnn_jax.commands import flags


class Parser(flags.Parser):
    """Reports a bad flag in one line, as the package's commands do.

    Args:
      name: of the benchmark's module.
      about: docstring of the module.
    """

    def __init__(self, name: str, about: str):
        super().__init__(name, about)
        self.prog = f"python -m benchmarks.{name}"
        self.description, self.epilog = about, None
