"""Crystals that are to be kept out of pre-training, since students will be tested on them."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import Source, select
from crysgnn_jax.errors import InvalidCrystal, UserError

_SIDES = re.compile(r'\s*\{\s*"(train|validation|test)"\s*:\s*\[')
"""How a file of a split begins."""


def excluded(given: Any, data: Source) -> Source:
    """The crystals that a user names to be kept out.

    Args:
      given: crystals, as of `readers.read`; or the test crystals of a split: ``SPLITS.json``, as
        runs write it, whose ids are looked up in the data that ``config.json`` beside it names, or
        else in ``data``; or ``SPLITS.json=DATA``, whose ids are those of the crystals DATA.
      data: the crystals that they are kept out of.

    Raises:
      UserError: as of `read`; the split has no test crystals; or its ids are not where they are
        looked up.

    Example:
      ``excluded("runs/mine/splits.json", read("bundled"))``
    """
    path, named = _split_file(given)
    if path is None:
        return read(given)
    try:
        ids = [str(id) for id in json.loads(path.read_text(encoding="utf-8"))["test"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"`exclude` {path}: it names no test crystals ({type(error).__name__}: {error}); give "
            "the splits.json of a student's run, or a list of ids under test"
        ) from None
    if named:
        source = read(named)
    else:
        source = _of_the_run(path) or data
    rows = _rows_of(source, set(ids))
    missing = [id for id in ids if id not in rows]
    if missing:
        raise UserError(
            f"`exclude` {path}: {len(missing)} of its {len(ids)} test crystals, such as "
            f"{missing[0]!r}, are not among those of {source.name}; name the data that its ids are "
            f"of: {path}=DATA"
        )
    return select(source, sorted(rows.values()), f"{path} ({source.name})")


def _split_file(given: Any) -> tuple[Path | None, str]:
    """The file of a split, None where it is something else; and the data that it is of, if
    named."""
    if not isinstance(given, (str, Path)):
        return None, ""
    text, _, named = str(given).partition(".json=")
    path = Path(f"{text}.json" if named else text)
    if named:
        return path, named
    if path.suffix != ".json" or not path.is_file():
        return None, ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return (path, "") if _SIDES.match(file.read(200)) else (None, "")


def _of_the_run(splits: Path) -> Source | None:
    """The data of the run that a split is of; None where that is not known, or they are gone."""
    try:
        config = json.loads(splits.with_name("config.json").read_text(encoding="utf-8"))
        return read(config["made_with"]["data"])
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _rows_of(source: Source, wanted: set[str]) -> dict[str, int]:
    """Id → item of a source, of those that are wanted; of an id that is there twice, the first."""
    known = source.ids()
    ids = enumerate(known.tolist()) if known is not None else _decoded_ids(source)
    found: dict[str, int] = {}
    for row, id in ids:
        if id in wanted:
            found.setdefault(id, row)
    return found


def _decoded_ids(source: Source) -> Iterator[tuple[int, str]]:
    for row in np.arange(len(source)).tolist():
        for item in source.items(row, row + 1):
            with contextlib.suppress(InvalidCrystal):
                yield row, source.decode(item).id
