"""Text tables, and words and numbers as they stand in them and in pictures."""

import math
import sys
from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, the header underlined."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


def with_unit(name: str, unit: str) -> str:
    """``band gap (eV)``; the name alone of a pure number."""
    return f"{name} ({unit})" if unit else name


def counted(n: int, noun: str) -> str:
    """``1 crystal``, ``2 crystals``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits, and a minus sign that is one; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    long = abs(value) >= 10**digits
    text = f"{value:,.0f}" if long else f"{value:#.{digits}g}".rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}")


def formatted(value: float | None, form: str) -> str:
    """A number in the form that is asked for, such as ``.4g``; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else format(value, form)


def signed(value: float, digits: int = 3) -> str:
    """So many digits, without zeros at the end, and with a minus sign that is one."""
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: ruled and as wide as the terminal where there is one, else as `text_table`."""
    if not sys.stdout.isatty():
        print(text_table(header, rows))
        return
    # A tenth of a second to import.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout, markup=False, highlight=False).print(table)
