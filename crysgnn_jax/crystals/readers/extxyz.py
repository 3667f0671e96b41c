"""(Extended) XYZ files of any size: frames are found in one pass and parsed by the workers."""

import functools
import re
from array import array
from pathlib import Path
from typing import Any

from crysgnn_jax.crystals.readers.frames import XyzFrame, numbers_in
from crysgnn_jax.crystals.readers.indexed import (
    Catalogue,
    Hashed,
    SpanSource,
    add_file,
    begin,
    reading,
)
from crysgnn_jax.crystals.readers.items import Problem, decode_item
from crysgnn_jax.crystals.readers.kept import unpacked_file

XYZ = {".xyz", ".extxyz"}

MAX_SHAPES = 10_000
"""Comment lines, but for their digits, of which it is remembered what numbers they name."""

_COLUMN = re.compile(rb'Properties\s*=\s*"?([^"\s]+)', re.IGNORECASE)
_COUNT = re.compile(rb"\d{1,12}")
_DIGITS = re.compile(rb"\d+")
_NAME = re.compile(rb"""[^\s="']+(?=\s*=)""")
_LINES = 10_000
"""That are read at once."""


def xyz_file(path: Path, id: str, digest: Any) -> SpanSource:
    """The frames of a file, which ASE parses.

    Numbers in the comment line of a frame are its labels. A frame that claims more than it holds is
    unusable; behind a line that should be a number of atoms, and is none, nothing is read. What is
    compressed is unpacked once, into the cache.

    Args:
      path: ``.xyz`` or ``.extxyz``, also with ``.gz``, ``.bz2`` or ``.xz``.
      id: of its only frame; with the number of the frame where there are several.
      digest: takes name and content of the file.

    Raises:
      UserError: it cannot be read, or unpacked.
    """
    plain = path
    if path.suffix.lower() in XYZ:
        with reading(path):
            begin(digest, path.name, path.stat().st_size)
    else:
        add_file(digest, path)
        plain = unpacked_file(path, f"{digest.copy().hexdigest()}.xyz")
    with reading(plain) as file:
        source = Hashed(file, digest)
        starts, sizes, catalogue = _index(source, path.name, id)
        source.rest()
    return SpanSource(
        name=str(path),
        path=plain,
        starts=starts,
        sizes=sizes,
        catalogue=catalogue,
        digest=digest.copy().hexdigest(),
        as_item=functools.partial(_as_frame, path.name),
        decode=decode_item,
    )


def _as_frame(name: str, number: int, id: str, content: bytes) -> XyzFrame:
    return XyzFrame(id, content, name)


def _index(file: Hashed, name: str, id: str) -> tuple[array, array, Catalogue]:
    """Where the frames of a file begin, how long they are, and what they carry."""
    starts, sizes, catalogue = array("Q"), array("Q"), Catalogue()
    shapes: dict[Any, dict[str, float]] = {}
    at, number = 0, 1
    ahead: list[bytes] = file.lines(1)
    while ahead:
        (line,) = ahead
        if not line.strip():
            at, number, ahead = at + len(line), number + 1, file.lines(1)
            continue
        frame_id = f"{id}-{len(catalogue)}"
        if not _COUNT.fullmatch(line.strip()):
            text = line[:40].decode(errors="replace").strip()
            reason = f"line {number} should be a number of atoms, and is {text!r}"
            catalogue.add_problem(
                Problem(frame_id, f"{name} {reason}; what follows it is not read")
            )
            starts.append(at)
            sizes.append(0)
            break
        size, n_lines, ahead, header, problem = _frame(file, line, number)
        starts.append(at)
        sizes.append(size)
        if problem:
            catalogue.add_problem(Problem(frame_id, f"{name} cannot be read: {problem}"))
        else:
            # Other numbers in the same places; but those in names tell labels apart.
            shape = _DIGITS.sub(b"0", header), *_NAME.findall(header)
            if shape not in shapes:
                if len(shapes) >= MAX_SHAPES:
                    shapes.clear()
                shapes[shape] = _numbers(header)
            catalogue.add_numbers(frame_id, shapes[shape])
        at, number = at + size, number + n_lines
    if len(catalogue) == 1:
        catalogue = catalogue.renamed(id)
    return starts, sizes, catalogue


def _frame(
    file: Hashed, line: bytes, number: int
) -> tuple[int, int, list[bytes], bytes, str | None]:
    """Read over a frame.

    Args:
      file: behind the frame's first line.
      line: that line, the number of atoms.
      number: of that line in the file.

    Returns:
      Bytes and lines of the frame; the line behind it; its second line; and what is wrong with it.
    """
    n_atoms, header = int(line), b"".join(file.lines(1))
    size, left, problem = len(line) + len(header), n_atoms, None
    columns = _COLUMN.search(header)
    width = sum(int(n) for n in re.findall(rb":(\d+)", columns[1])) if columns else 0
    while left:
        rows = file.lines(min(left, _LINES))
        if not rows:
            n_rows = n_atoms - left
            problem = (
                f"line {number} claims {n_atoms} atoms, and {n_rows} lines follow: it is cut short "
                "or damaged"
            )
            return size, n_rows + 2, [], header, problem
        n_columns = len(rows[0].split())
        if left == n_atoms and width > max(n_columns, 1) + 16:
            problem = f"line {number + 1} claims {width} columns, and the rows have {n_columns}"
        size, left = size + sum(map(len, rows)), left - len(rows)
    n_lines, ahead = n_atoms + 2, file.lines(1)
    while ahead and ahead[0].lstrip().startswith(b"VEC"):  # of the cell
        size, n_lines, ahead = size + len(ahead[0]), n_lines + 1, file.lines(1)
    return size, n_lines, ahead, header, problem


def _numbers(header: bytes) -> dict[str, float]:
    """The numbers in the second line of a frame."""
    from ase.io.extxyz import key_val_str_to_dict

    try:
        return numbers_in(key_val_str_to_dict(header.decode().strip()))
    except Exception:  # parsing the frame will say what is wrong
        return {}
