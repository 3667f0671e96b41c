"""What a run has written, read again for pictures and pages; of runs that go on as well.

Without JAX: a page of many runs is made at once.
"""

import csv
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.table import CrystalTable
from crysgnn_jax.training.logs import MetricsLog
from crysgnn_jax.training.workdir import (
    METRICS,
    PREDICTIONS,
    RESULT,
    SKIPPED,
    WORST,
    read_json,
    read_made_with,
)

SPLITS = ("test", "validation", "train")

_WORDS = {
    "loss": "loss",
    "mae": "mean absolute error",
    "property": "loss of the property",
    "embedding": "distance from the teacher",
}


def words(metric: str) -> str:
    """A metric as it is read: ``masked_elements_accuracy`` is "masked elements, share right"."""
    if metric.endswith("_accuracy"):
        return f"{words(metric.removesuffix('_accuracy'))}, share right"
    return _WORDS.get(metric, metric.replace("_", " "))


def title_of(network: str, model: Mapping[str, Any], *, distilled: bool) -> str:
    """What a run is called in pictures and on a terminal: ``cgcnn distilled``.

    Args:
      network: its name.
      model: settings of its module.
      distilled: whether it had a teacher.
    """
    if network == "fine-tuned":
        return "fine-tuned head" if model.get("freeze_encoder") else "fine-tuned"
    return f"{network.rpartition(':')[2]} {'distilled' if distilled else 'vanilla'}"


@dataclasses.dataclass(frozen=True)
class Predicted:
    """``predictions.csv``, a column each.

    Attributes:
      ids: ``[n]``
      split: ``[n]``, of `SPLITS`.
      targets: ``[n]``, in the property's unit.
      predictions: ``[n]``, likewise.
      formula: ``[n]``, such as ``BaTiO3``; None where the run has not written it.
      n_atoms: ``[n]``, of the cell; None likewise.
      space_group: ``[n]``, international number; None likewise.
    """

    ids: np.ndarray
    split: np.ndarray
    targets: np.ndarray
    predictions: np.ndarray
    formula: np.ndarray | None = None
    n_atoms: np.ndarray | None = None
    space_group: np.ndarray | None = None

    @property
    def errors(self) -> np.ndarray:
        """``[n]``, absolute."""
        return np.abs(self.predictions - self.targets)

    def of(self, split: str) -> "Predicted":
        """The crystals of one side of the split."""
        return self.where(self.split == split)

    def where(self, here: np.ndarray) -> "Predicted":
        """Those of the crystals where ``here``, ``[n]`` bool, is true."""
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        known = {name: column for name, column in columns.items() if column is not None}
        return Predicted(**{name: column[here] for name, column in known.items()})

    def error_of_mean(self, split: str) -> float:
        """Mean absolute error of always predicting the mean of the training crystals."""
        return float(np.mean(np.abs(self.of(split).targets - self.of("train").targets.mean())))


@dataclasses.dataclass(frozen=True)
class Record:
    """A run's folder, as far as it has been written.

    Attributes:
      path: of the folder.
      made_with: what determines the outcome, of ``config.json``.
      environment: versions and machine, likewise.
      lines: of ``metrics.jsonl``.
      result: content of ``result.json``; None while the run is not finished.
    """

    path: Path
    made_with: Mapping[str, Any]
    environment: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None

    @classmethod
    def read(cls, path: Path, result: Mapping[str, Any] | None = None) -> "Record":
        """The run in a folder.

        Args:
          path: of the folder.
          result: of a run that is about to write its ``result.json``.

        Raises:
          UserError: ``config.json`` or ``result.json`` is missing or damaged.
        """
        metrics = path / METRICS
        if result is None and (path / RESULT).exists():
            result = read_json(path / RESULT)
        return cls(
            path,
            read_made_with(path),
            read_json(path / "config.json").get("environment", {}),
            MetricsLog(metrics).read() if metrics.exists() else [],
            result,
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """How it is trained, and what it learns."""
        return self.made_with.get("settings", {})

    @property
    def unit(self) -> str:
        """Of the property; empty where there is none, or none is known."""
        return self.settings.get("unit", "")

    @property
    def title(self) -> str:
        """Such as ``cgcnn distilled``."""
        network = self.made_with["network"]
        if not self.property:
            return f"{network.rpartition(':')[2]} pre-trained"
        distilled = self.settings.get("weight", 0) > 0
        return title_of(network, self.made_with.get("model", {}), distilled=distilled)

    @property
    def data(self) -> str:
        """The crystals by name: of files elsewhere the last part of the path."""
        given = self.made_with.get("data") or "crystals that it does not name"
        names = [given] if isinstance(given, str) else given
        text = ", ".join(PurePath(name).name or name for name in names)
        limit = self.made_with.get("limit")
        return f"{limit:,} crystals of {text}" if limit else text

    @property
    def epochs(self) -> list[Mapping[str, Any]]:
        """The lines that sum up an epoch."""
        return [line for line in self.lines if any(name.startswith("validation_") for name in line)]

    @property
    def metrics(self) -> list[str]:
        """What its curves are of."""
        if self.property:
            pulled = ["embedding"] if self.settings.get("weight", 0) > 0 else []
            return ["mae", "loss", *pulled]
        return ["loss", *self.settings.get("weights", {})]

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs and values of a metric, such as ``validation_mae``."""
        points = [(line["epoch"], line[name]) for line in self.epochs if name in line]
        return [x for x, _ in points], [y for _, y in points]

    @functools.cached_property
    def predicted(self) -> Predicted | None:
        """``predictions.csv``; None where there is none."""
        path = self.path / PREDICTIONS
        if not path.exists():
            return None
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        column = lambda name, kind: np.array([row[name] for row in rows], dtype=kind)
        more: dict[str, Any] = {"formula": str, "n_atoms": int, "space_group": int}
        return Predicted(
            column("id", str),
            column("split", str),
            column("target", float),
            column("prediction", float),
            **{name: column(name, kind) for name, kind in more.items() if rows and name in rows[0]},
        )

    def worst(self) -> dict[str, Crystal]:
        """Structures of the test crystals with the largest errors, by id; none where the run has
        not kept them."""
        path = self.path / WORST
        if not path.exists():
            return {}
        table = CrystalTable(path)
        found = map(table.decode, table.items(0, len(table)))
        return {crystal.id: crystal for crystal in found}

    def n_skipped(self) -> int | None:
        """Crystals that could not be used; None where that is not known."""
        path = self.path / SKIPPED
        if not path.exists():
            return None
        with open(path, newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.reader(file)) - 1

    def constant_answer(self, metric: str) -> float | None:
        """Of the validation crystals, the error of the best answer that is the same for all; None
        where it is not known."""
        _, values = self.curve(f"validation_{metric}_trivial")
        if values:
            return values[-1]
        predicted = self.predicted if metric == "mae" else None
        return predicted.error_of_mean("validation") if predicted is not None else None

    # The last, for it hides what the others are made properties with.
    @property
    def property(self) -> str:
        """What it predicts; empty for one without labels."""
        return self.settings.get("property", "")


def r_squared(targets: np.ndarray, predictions: np.ndarray) -> float:
    """1 − residual variance / variance of the targets; NaN where all targets are equal."""
    spread = float(np.sum((targets - targets.mean()) ** 2))
    return 1.0 - float(np.sum((targets - predictions) ** 2)) / spread if spread else float("nan")


def as_text(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings, and what they hold in turn, as names and values: ``settings.epochs``, ``60``."""
    out: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out += as_text(value, f"{prefix}{name}.")
        else:
            out.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return out
