"""A bar on a terminal, while something takes its time."""

import time
from typing import TextIO

REFRESH = 0.1
"""Seconds between two drawings."""


class Bar:
    """What is being done, how far it is, and how long it will yet take.

    It is drawn by whoever updates it, and not by a thread: a process that forks, or is told to
    stop, need not wait for one. The cursor stays visible, whatever ends the process.

    Args:
      title: what is being done.
      total: how many pieces there are.
      unit: what a piece is called.
      stream: a terminal.
      done: pieces that are done already.

    Example:
      ``Bar("graphs of elastic", 1181, "crystals", sys.stderr)``
    """

    def __init__(self, title: str, total: int, unit: str, stream: TextIO, done: int = 0):
        # Only where there is a terminal: it takes a tenth of a second to import.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console = Console(file=stream, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,  # which may be a file
            speed_estimate_period=60,
        )
        self._task = self._progress.add_task(title, total=total, completed=done, status="")
        self._progress.start()
        self._console.show_cursor(True)
        self._drawn = time.monotonic()

    def describe(self, title: str) -> None:
        """Say what is being done now."""
        self._progress.update(self._task, description=title)

    def update(self, done: int | None = None, status: str = "") -> None:
        """So many pieces are done; one more where no number is given.

        Args:
          done: in all.
          status: what else there is to say.
        """
        if done is None:
            self._progress.update(self._task, advance=1, status=status)
        else:
            self._progress.update(self._task, completed=done, status=status)
        if time.monotonic() - self._drawn > REFRESH:
            self._drawn = time.monotonic()
            self._progress.refresh()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it is, and go on below it."""
        self._progress.refresh()
        self._progress.stop()
