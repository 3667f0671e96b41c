"""Tables of predictions as files: CSV, JSON, Parquet and extended XYZ."""

import csv
import importlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import UserError
from crysgnn_jax.extras import imported, require
from crysgnn_jax.reporting.tables import print_table

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Name of a column → its entries, one a crystal; the first are ``id`` and ``formula``."""


def print_readable(columns: Columns) -> None:
    """Print a table for a terminal: numbers with four digits."""
    rows = [
        [f"{x:.4g}" if isinstance(x, float) else str(x or "") for x in map(_plain, row)]
        for row in zip(*columns.values())
    ]
    print_table(list(columns), rows)


def write_csv(file: IO, columns: Columns) -> None:
    """One line a crystal; numbers with nine digits at most, nothing for what is not known."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_as_text, row) for row in zip(*columns.values()))


def write_json(file: IO, columns: Columns, notes: Sequence[str]) -> None:
    """``{"predictions": [{…}, …], "notes": […]}``; null for what is not known."""
    json.dump({"predictions": list(_records(columns)), "notes": list(notes)}, file, indent=1)
    file.write("\n")


def write_parquet(file: IO, columns: Columns) -> None:
    """One column each, with its type."""
    pyarrow = imported("pyarrow", "parquet", "Parquet")
    table = pyarrow.table({name: np.asarray(values) for name, values in columns.items()})
    importlib.import_module("pyarrow.parquet").write_table(table, file)


def write_extxyz(file: IO, columns: Columns, crystals: Iterable[Crystal]) -> None:
    """The structures, with what is said of each in its ``info``.

    Args:
      file: to write to.
      columns: of the crystals.
      crystals: with the ids of the columns among theirs, in this order.
    """
    from ase import Atoms
    from ase.io import extxyz

    records = {record["id"]: record for record in _records(columns)}
    for crystal in crystals:
        # Once: of crystals of the same id, the first was asked about.
        if (record := records.pop(crystal.id, None)) is not None:
            atoms = Atoms(
                crystal.species,
                scaled_positions=crystal.frac_coords,
                cell=crystal.lattice,
                pbc=True,
                info={k: v for k, v in record.items() if v not in (None, "")},
            )
            out = io.StringIO()
            extxyz.write_extxyz(out, [atoms])
            file.write(out.getvalue())


FORMATS: dict[str, tuple[str, Callable[..., None]]] = {
    ".csv": ("w", write_csv),
    ".json": ("w", write_json),
    ".parquet": ("wb", write_parquet),
    ".extxyz": ("w", write_extxyz),
}
"""Suffix → mode of the file, and what writes it."""


def require_format(path: Any) -> None:
    """Check, before the work, that a table can be written to a file of this name.

    Raises:
      UserError: its suffix is not known, or what it takes is not installed.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"`output` {path}: name a file that ends in {', '.join(FORMATS)}")
    if path.suffix == ".parquet":
        require("pyarrow", "parquet", f"`output` {path}")


def _records(columns: Columns) -> Iterable[dict[str, Any]]:
    for row in zip(*columns.values()):
        yield {name: _plain(value) for name, value in zip(columns, row)}


def _plain(value: Any) -> Any:
    """A number or text of Python's; None for a number that is not known."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(value: Any) -> str:
    digits = 7 if isinstance(value, np.float32) else 9
    value = _plain(value)
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
