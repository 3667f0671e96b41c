"""Structures that another program writes to this one."""

from pathlib import Path
from typing import BinaryIO

from crysgnn_jax.errors import UserError

STANDARD_INPUT = "-"
"""Stands for standard input where a path is asked for."""


def spool(stream: BinaryIO, folder: Path) -> Path:
    """What a stream holds, as a file named by its format, which is told by the content.

    Args:
      stream: to be read to its end.
      folder: where to write the file, ``stdin`` with a suffix.

    Raises:
      UserError: there is nothing, or it is no CIF, JSON, extended XYZ or POSCAR.
    """
    content = stream.read()
    if not content.strip():
        raise UserError("`data` -: there is nothing on standard input; pipe structures into it")
    path = folder / f"stdin{_suffix(content[:1_000_000].decode('utf-8', errors='replace'))}"
    path.write_bytes(content)
    return path


def _suffix(text: str) -> str:
    lines = text.lstrip().splitlines()
    first = lines[0].strip()
    if first[:1] in "{[":
        return ".json"
    if any(line.lstrip().lower().startswith(("data_", "_cell_")) for line in lines):
        return ".cif"
    if first.isdecimal() and len(lines) > 1:
        return ".extxyz"
    # A comment, the scale, and three vectors.
    vectors = [line.split()[:3] for line in text.splitlines()[2:5]]
    if len(vectors) == 3 and all(len(v) == 3 and all(map(_is_number, v)) for v in vectors):
        return ".vasp"
    raise UserError(
        f"`data` -: what is on standard input begins with {first[:40]!r}, and is no CIF, JSON, "
        "extended XYZ or POSCAR; name a file with the suffix of its format"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
