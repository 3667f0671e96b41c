"""Checksums of files, and remembering which have been checked.

A disk may give back other bytes than were written to it, and numbers that are mapped into memory
show nothing of that. A file is checked when it is first read, and again only when it has changed,
or `AGAIN_AFTER` has passed: rot does not change the time of a file.
"""

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from crysgnn_jax.files import write_text

VERIFIED = "verified.json"
"""In the folder of the files, which of them were found whole, and when."""

AGAIN_AFTER = 7 * 24 * 3600.0
"""Seconds after which a file is checked again."""

_SETTLED = 2.0
"""Seconds after which another change would show in the time of a file, on any file system."""

_PIECE = 1 << 25
"""Bytes that are checked at a time, on several cores at once."""


def checksums(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name → size and checksums of a file in a folder, for `first_damaged`.

    Raises:
      OSError: a file cannot be read.
    """
    names = list(names)
    sizes = {name: (folder / name).stat().st_size for name in names}
    pieces = [(name, start) for name in names for start in range(0, sizes[name], _PIECE)]
    found: dict[str, list[int]] = {name: [] for name in names}
    # Reading, and zlib, let other threads run.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        sums = pool.map(lambda piece: _checksum(folder / piece[0], piece[1]), pieces)
        for (name, _), value in zip(pieces, sums):
            found[name].append(value)
    return {name: {"bytes": sizes[name], "crc32": found[name]} for name in names}


def checksums_of(content: bytes) -> dict[str, Any]:
    """What `checksums` gives of a file that holds these bytes."""
    whole = memoryview(content)
    pieces = [whole[start : start + _PIECE] for start in range(0, len(whole), _PIECE)]
    return {"bytes": len(whole), "crc32": [zlib.crc32(piece) for piece in pieces]}


def _checksum(file: Path, start: int) -> int:
    value, left = 0, _PIECE
    with open(file, "rb", buffering=0) as stream:
        stream.seek(start)
        while left and (block := stream.read(min(left, 1 << 20))):
            value = zlib.crc32(block, value)
            left -= len(block)
    return value


def first_damaged(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What is wrong with the files of a folder: a name and a reason, ``ids.npy is missing``; None
    if nothing is.

    Args:
      folder: where they are.
      expected: what `checksums` gave when they were written.
    """
    stats = {}
    for name, known in expected.items():
        try:
            stats[name] = (folder / name).stat()
        except FileNotFoundError:
            return f"{name} is missing"
        if stats[name].st_size != known["bytes"]:
            return f"{name} has {stats[name].st_size} bytes, not {known['bytes']}"
    now = time.time()
    memory = _remembered(folder)
    marks = {
        name: [stat.st_mtime_ns, stat.st_ino, list(expected[name]["crc32"])]
        for name, stat in stats.items()
    }
    unknown = []
    for name, mark in marks.items():
        *before, when = memory.get(name) or [None]
        if before != mark or not now - AGAIN_AFTER < when <= now:
            unknown.append(name)
    if not unknown:
        return None
    found = checksums(folder, unknown)
    for name in unknown:
        if found[name]["crc32"] != list(expected[name]["crc32"]):
            return f"{name} holds other bytes than were written"
    for name in unknown:
        if now - stats[name].st_mtime > _SETTLED:
            memory[name] = [*marks[name], now]
    # A folder that cannot be written to is checked every time.
    with contextlib.suppress(OSError):
        write_text(folder / VERIFIED, json.dumps(memory))
    return None


def _remembered(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(
            isinstance(entry, list) and len(entry) == 4 and isinstance(entry[3], float)
            for entry in found.values()
        ):
            return found
    return {}
