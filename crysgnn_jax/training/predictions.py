"""What is said of crystals by one network, or by several of the same property."""

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.training.calibration import Calibration
from crysgnn_jax.training.reference import Facts, Reference
from crysgnn_jax.training.settings import LEVEL


class Nearest(NamedTuple):
    """The training crystals that are most like others, the nearest first.

    Attributes:
      ids: ``[n, k]``
      targets: ``[n, k]``, their labels.
      distances: ``[n, k]``, see `reference.Reference`.
    """

    ids: np.ndarray
    targets: np.ndarray
    distances: np.ndarray


class Predictions(NamedTuple):
    """A property of some crystals.

    Example:
      ``for id, value in zip(found.ids, found.values): print(id, value, found.unit)``; as a table,
      ``pandas.DataFrame(found.columns())``

    Attributes:
      ids: ``[n]``, of the crystals, in the order of their source.
      values: ``[n]``, in the property's own unit; of several networks, their mean.
      property: name of the property.
      unit: of the values; "" for a pure number, or one that is not known.
      skipped: ``(id, reason)`` of each crystal that could not be used.
      formulas: ``[n]``, reduced.
      uncertainty: ``[n]``, one standard deviation of several networks, calibrated where that could
        be done; None for one network.
      low: ``[n]``, lower end of the interval; None where nothing is known of the errors.
      high: ``[n]``, its upper end.
      nearest: of the training crystals; None where none are known.
      warnings: ``[n]``, what no training crystal was like; "" for nothing.
      calibration: what uncertainty and intervals rest on.
      n_members: networks that were asked.
    """

    ids: np.ndarray
    values: np.ndarray
    property: str
    unit: str
    skipped: list[tuple[str, str]]
    formulas: np.ndarray
    uncertainty: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    nearest: Nearest | None = None
    warnings: Sequence[str] = ()
    calibration: Calibration = Calibration(0, LEVEL, None)
    n_members: int = 1

    def columns(self, name: str = "") -> dict[str, Any]:
        """Name of a column → its ``[n]`` entries, of what is known alone.

        Args:
          name: of the property, put before the names of its columns where there are several.
        """
        before = f"{name}_" if name else ""
        unit = [self.unit] * len(self.ids)
        out: dict[str, Any] = {name or "prediction": self.values, f"{before}unit": unit}
        for column in ("uncertainty", "low", "high"):
            if (values := getattr(self, column)) is not None:
                out[before + column] = values
        if self.nearest is not None:
            ids, targets, distances = self.nearest
            for k in range(ids.shape[1]):
                number = f"_{k + 1}" if k else ""
                out[f"{before}nearest{number}"] = ids[:, k]
                out[f"{before}nearest_value{number}"] = targets[:, k]
                out[f"{before}distance{number}"] = np.round(distances[:, k], 4)
        if len(self.warnings):
            out[f"{before}warning"] = list(self.warnings)
        return out

    def notes(self) -> list[str]:
        """Lines for the user: what intervals and uncertainty rest on, and how many crystals are
        unlike those of training."""
        lines = self.calibration.said(self.unit, self.n_members)
        n_strange = sum(map(bool, self.warnings))
        if n_strange:
            of = "crystal is" if n_strange == 1 else "crystals are"
            lines.append(f"{n_strange} {of} unlike those of training, see the column of warnings")
        return lines


def require_asked(level: Any, n_nearest: Any) -> None:
    """
    Raises:
      UserError: there is no interval of such a level, or no such number of crystals.
    """
    if not (isinstance(level, numbers.Real) and 0 < float(level) < 1):
        raise UserError(f"`level` {level}: give a number above 0 and below 1")
    if not (isinstance(n_nearest, numbers.Integral) and int(n_nearest) >= 0):
        raise UserError(f"`n_nearest` {n_nearest}: give a whole number of at least 0")


def table(several: Sequence[Predictions]) -> dict[str, Any]:
    """One table of the predictions of one or more properties.

    It has the crystals that all of them are of, matched by id: graphs of different kinds may have
    left out different ones.

    Returns:
      Name of a column → its entries: ``id``, ``formula``, and ``prediction`` and what else is known
      of it, or columns that begin with the property's name where there are several.
    """
    first = several[0]
    rows = [{id: row for row, id in enumerate(found.ids.tolist())} for found in several]
    ids = [id for id in first.ids.tolist() if all(id in known for known in rows)]
    out: dict[str, Any] = {}
    for found, row_of in zip(several, rows):
        columns = found.columns(found.property if len(several) > 1 else "")
        if found is first:
            columns = {"id": found.ids, "formula": found.formulas, **columns}
        for name, entries in columns.items():
            out[name] = [entries[row_of[id]] for id in ids]
    return out


def assess(
    store: GraphStore,
    rows: np.ndarray,
    said: np.ndarray,
    references: Sequence[Reference | None],
    embeddings: np.ndarray,
    *,
    property: str,
    unit: str,
    skipped: list[tuple[str, str]],
    level: float = LEVEL,
    n_nearest: int = 1,
) -> Predictions:
    """What networks say of crystals, with what is known of their errors.

    Args:
      store: the crystals.
      rows: ``[n]``, which of them.
      said: ``[k, n]``, the prediction of each network.
      references: of each network.
      embeddings: ``[n, d]``, of the crystals by the first network.
      property: what is predicted.
      unit: of it.
      skipped: as of `Predictions`.
      level: share of crystals that an interval is to hold.
      n_nearest: training crystals to name, of the first network.
    """
    reference = references[0]
    large = np.inf if reference is None else float(reference.most_atoms)
    facts = Facts.of(store, rows, large=large)
    calibration = Calibration.of(references, level)
    values = said.mean(axis=0)
    deviation = uncertainty = None
    if len(said) > 1:
        deviation = said.std(axis=0, ddof=1)
        uncertainty = deviation * (1.0 if calibration.factor is None else calibration.factor)
    half = calibration.half_widths(deviation, len(values))
    found, warnings = None, []
    if reference is not None and len(values):
        like, distances = reference.nearest(embeddings, min(max(n_nearest, 1), len(reference.ids)))
        warnings = reference.strange(facts, distances[:, 0])
        if n_nearest:
            found = Nearest(reference.ids[like], reference.targets[like], distances)
    return Predictions(
        facts.ids,
        values,
        property,
        unit,
        skipped,
        facts.formulas,
        uncertainty,
        None if half is None else values - half,
        None if half is None else values + half,
        found,
        warnings,
        calibration,
        len(said),
    )
