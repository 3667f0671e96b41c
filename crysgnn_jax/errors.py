"""The things that can be wrong with what a user hands over."""

import functools
import logging
import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Text from a file or a name, fit for a terminal and for UTF-8: control characters, which
    could move the cursor or change colours, and halves of surrogate pairs are written out."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@functools.cache
def warn_once(message: str) -> None:
    """Warn of something, once in a process, however many runs of it meet with it: a comparison
    trains many students on the same crystals."""
    logging.getLogger(__name__).warning("%s", message)


class UserError(Exception):
    """A problem that the user can mend.

    The message is one line: it names the file, row, flag or value at fault and says what to
    do about it. The commands print it and exit with code 2, without a traceback.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class NoUsableCrystal(UserError):
    """There are crystals, and none of them can be used.

    Attributes:
      skipped: ``(id, reason)`` of each.
    """

    def __init__(self, message: str, skipped: list[tuple[str, str]]):
        super().__init__(message)
        self.skipped = skipped


class InvalidCrystal(Exception):
    """One crystal cannot be used; the others can.

    Attributes:
      crystal_id: the id of the crystal, or the name of the file it was to come from.
      reason: one line that says what is wrong with it.
    """

    def __init__(self, crystal_id: str, reason: str):
        crystal_id, reason = printable(crystal_id), printable(reason)
        # Both in args, so that the exception survives pickling between processes.
        super().__init__(crystal_id, reason)
        self.crystal_id = crystal_id
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.crystal_id}: {self.reason}"
