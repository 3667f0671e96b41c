"""Labels that lie in a table beside the crystals: a CSV of ids and values, joined by id."""

import csv
import dataclasses
import io
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.crystals.contents import as_text
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.sources import Source, digest_of_texts, notes_of
from crysgnn_jax.errors import UserError


def read_values(path: Path, column: str) -> dict[str, float]:
    """A column of a CSV table with the columns ``id`` and ``column``: id → value.

    An empty value is missing. Several values of one id count by their mean.

    Raises:
      UserError: there is no such file or column, a line has too many cells, or a value is no number
        or has no id; names the line.

    Example:
      ``read_values(Path("measured.csv"), "experimental_formation_energy_per_atom")``
    """
    try:
        lines = list(csv.reader(io.StringIO(as_text(path.read_bytes()), newline="")))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a table ({error})") from None
    names = [name.strip() for name in lines[0]] if lines else []
    for name in ("id", column):
        if name not in names:
            listed = ", ".join(names) or "none"
            raise UserError(f"{path}: its first line has no column {name!r}; there is {listed}")
    found: dict[str, list[float]] = defaultdict(list)
    for number, line in enumerate(lines[1:], 2):
        if more := [cell for cell in line[len(names) :] if cell.strip()]:
            raise UserError(
                f"{path} line {number}: it has {len(line)} cells and the first line {len(names)}, "
                f"so that {more[-1].strip()!r} has no column; mend it (numbers have a point, and "
                "text with a comma stands in quotes)"
            )
        cells = dict(zip(names, line))
        text = cells.get(column, "").strip()
        if not text:
            continue
        id = cells.get("id", "").strip()
        if not id:
            raise UserError(f"{path} line {number}: {column}={text} has no id; mend or remove it")
        try:
            value = float(text)
        except ValueError:
            value = math.inf
        if math.isinf(value):
            raise UserError(f"{path} line {number}: {column}={text!r} is not a number; mend it")
        if not math.isnan(value):
            found[id].append(value)
    return {id: sum(values) / len(values) for id, values in found.items()}


Valued = tuple[Callable[[Any], Crystal], Any, str, float]
"""Decode of the source, its item, name of the label, value (NaN: missing)."""


def decode_valued(item: Valued) -> Crystal:
    """The crystal in an item of `WithValues`.

    Raises:
      InvalidCrystal: as the source's ``decode``.
    """
    decode, of_source, name, value = item
    crystal = decode(of_source)
    if value != value:
        return crystal
    return dataclasses.replace(crystal, labels={**crystal.labels, name: value})


class WithValues:
    """A source's crystals with one more label, as a `Source`.

    Args:
      source: the crystals; their ids must be known unread, as those of tables and files are.
      label: its name.
      values: id → value; a crystal without one lacks the label.

    Raises:
      UserError: the source has the label already, does not know its ids, or none has a value.
    """

    decode = staticmethod(decode_valued)

    def __init__(self, source: Source, label: str, values: Mapping[str, float]):
        ids = source.ids()
        if label in source.label_names:
            raise UserError(f"{source.name} has the label {label!r} already; rename one of them")
        if ids is None:
            raise UserError(
                f"{source.name}: its ids are not known before it is read, so that no values can be "
                "joined to them; write it as a crystal table"
            )
        self._source = source
        self._label = label
        self._values = np.array([values.get(id, math.nan) for id in ids.tolist()], np.float64)
        if not np.isfinite(self._values).any():
            raise UserError(
                f"none of the {len(values)} ids with a value of {label}, such as "
                f"{next(iter(values), '')!r}, is in {source.name}"
            )
        self.name = source.name
        self.notes = notes_of(source)
        self.label_names = (*source.label_names, label)

    def __len__(self) -> int:
        return len(self._source)

    def ids(self) -> np.ndarray | None:
        return self._source.ids()

    def fingerprint(self) -> str:
        values = self._values.astype("<f8").tobytes().hex()
        return digest_of_texts("with values", self._source.fingerprint(), self._label, values)

    def labelled(self, label: str) -> np.ndarray:
        if label == self._label:
            return np.isfinite(self._values)
        return self._source.labelled(label)

    def items(self, start: int, stop: int) -> list[Valued]:
        decode, label = self._source.decode, self._label
        values = self._values[start:stop].tolist()
        return [
            (decode, item, label, value)
            for item, value in zip(self._source.items(start, stop), values)
        ]
