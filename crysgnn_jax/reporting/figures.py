"""Pictures of runs, as PNG and SVG files, to be read at the width of a column."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from crysgnn_jax.reporting.comparison import (
    DISTILLED,
    FINE_TUNED,
    FINE_TUNED_STUDENT,
    VANILLA,
    Row,
    mean_and_deviation,
)
from crysgnn_jax.reporting.records import Record, r_squared, words
from crysgnn_jax.reporting.tables import number, with_unit

COLOURS = {"train": "#0072b2", "validation": "#d55e00", "test": "#009e73"}
"""Okabe and Ito's, which readers with colour blindness can tell apart."""

VARIANT_COLOURS = {VANILLA: "#0072b2", DISTILLED: "#d55e00", FINE_TUNED: "#009e73"}

COLUMN, PAGE = 3.4, 7.0
"""Widths of a column and of a page of a journal, inches."""

MOST_ACROSS = 3
"""Panels beside each other."""

SMALL, TEXT = 7, 8
"""Points, of letters in a picture that is printed as wide as it is."""

ALIKE = 0.01
"""Weights within this of their mean do not rank what they are of."""


def new_figure(width: float, height: float) -> Figure:
    """An empty picture; width and height in inches."""
    # Not through pyplot: its global state would outlive the picture and pick a backend.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def head(figure: Figure, title: str) -> None:
    """A title over the whole picture, in as many lines as it takes."""
    width = int(13 * figure.get_figwidth())  # letters of size 10
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, width)]
    figure.suptitle("\n".join(lines), fontsize=10)


def save(figure: Figure, path: Path) -> None:
    """Write a picture as a PNG of 300 dots an inch, and as an SVG beside it."""
    figure.savefig(path, dpi=300)
    figure.set_layout_engine("none")  # as it was laid out just now
    figure.savefig(path.with_suffix(".svg"), dpi=300)


def loss_curves(record: Record, path: Path) -> None:
    """One panel a metric, over epochs, with the epoch that was chosen and the error of the best
    answer that is the same for all crystals.

    Args:
      record: the run.
      path: of the PNG.
    """
    metrics = record.metrics
    across, down = _rows_of(len(metrics))
    figure = new_figure(COLUMN if across == 1 else PAGE, 0.7 + 1.9 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    best = (record.result or {}).get("best_epoch")
    for axis, metric in zip(panels, metrics):
        drawn: list[float] = []
        for side in ("train", "validation"):
            epochs, values = record.curve(f"{side}_{metric}")
            drawn += values
            # One point is no line.
            marker = "o" if len(epochs) == 1 else ""
            if epochs:
                axis.plot(
                    epochs, values, color=COLOURS[side], label=side, linewidth=1.2, marker=marker
                )
        constant = record.constant_answer(metric)
        if constant is not None:
            label = "predicting the mean" if record.property else "best constant answer"
            axis.axhline(constant, color="0.45", linestyle="--", linewidth=1, label=label)
            axis.update_datalim([(1, constant)], updatex=False)
            axis.autoscale_view(scalex=False)
            drawn.append(constant)
        if best is not None:
            axis.axvline(best, color="0.45", linestyle=":", linewidth=1, label="epoch chosen")
        axis.set_xlabel("epoch")
        axis.set_ylabel(with_unit(words(metric), record.unit if metric == "mae" else ""))
        # Within a factor of ten a logarithmic axis has one labelled tick at most.
        if drawn and 0 < 10 * min(drawn) < max(drawn):
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.get_major_locator().set_params(integer=True)
        _style(axis)
    for axis in panels[len(metrics) :]:
        axis.set_axis_off()
    found: dict[str, Any] = {}
    for axis in panels:
        found |= {label: line for line, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=4 if across > 1 else 2,
        fontsize=SMALL, frameon=False,
    )  # fmt: skip
    figure.suptitle(f"{record.title}, {record.data}", fontsize=TEXT)
    save(figure, path)


def _rows_of(n: int) -> tuple[int, int]:
    """Panels in a row, and rows."""
    # Four stand better as two and two than as three and one.
    across = 2 if n == 4 else min(n, MOST_ACROSS)
    return across, -(-n // across)


def _style(axis: Axes) -> None:
    """Letters that can be read in print, and a grid behind what is drawn."""
    axis.tick_params(labelsize=SMALL)
    axis.tick_params(which="minor", labelsize=SMALL)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_fontsize(TEXT)
    axis.title.set_fontsize(TEXT)
    axis.grid(alpha=0.3, linewidth=0.6)
    axis.set_axisbelow(True)


def parity(
    targets: np.ndarray,
    predictions: np.ndarray,
    path: Path,
    *,
    property: str,
    unit: str,
    of_mean: float,
    title: str,
) -> None:
    """Prediction against target for the test crystals, with MAE and R².

    Args:
      targets: ``[n]``
      predictions: ``[n]``
      path: of the PNG.
      property: name for the axes.
      unit: of both.
      of_mean: MAE of always predicting the mean of the training crystals.
      title: what the run was, and of which crystals.
    """
    figure = new_figure(COLUMN, COLUMN)
    axis = figure.subplots()
    low = min(targets.min(), predictions.min())
    high = max(targets.max(), predictions.max())
    margin = 0.03 * (high - low or 1.0)
    ends = (low - margin, high + margin)
    axis.plot(ends, ends, color="0.5", linewidth=1)
    # As an image within the SVG: 30,000 points as paths would be a file of many MB.
    axis.scatter(
        targets, predictions, s=7, alpha=0.5, color=COLOURS["test"], linewidths=0, rasterized=True
    )
    axis.set(xlim=ends, ylim=ends, aspect="equal")
    figure.suptitle(title, fontsize=TEXT)
    name = property.replace("_", " ")
    axis.set_xlabel(with_unit(f"{name}, known", unit))
    axis.set_ylabel(with_unit(f"{name}, predicted", unit))
    axis.text(
        0.04,
        0.96,
        f"MAE {number(np.mean(np.abs(predictions - targets)))} {unit}".rstrip()
        + f"\nof the mean {number(of_mean)} {unit}".rstrip()
        + f"\nR² {number(r_squared(targets, predictions))}"
        + f"\n{len(targets):,} test crystal{'s' if len(targets) != 1 else ''}",
        transform=axis.transAxes,
        verticalalignment="top",
        fontsize=SMALL,
        bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5},
    )
    _style(axis)
    save(figure, path)


def ranking(ranked: Sequence[tuple[str, float]], path: Path, *, label: str, title: str) -> bool:
    """Horizontal bars, the longest on top, each as far as it is from the mean of all: what has
    been learned of weights that all began with 1 is in their differences.

    Args:
      ranked: (name, value) in descending order, none negative.
      path: of the PNG.
      label: of the values.
      title: of the picture.

    Returns:
      Whether there is a picture: not where the values are all alike, and rank nothing.
    """
    names, values = zip(*reversed(ranked))
    mean = float(np.mean(values))
    away = 100 * (np.array(values) / mean - 1) if mean > 0 else np.zeros(len(values))
    if np.abs(away).max() < 100 * ALIKE:
        return False
    figure = new_figure(COLUMN, 0.8 + 0.2 * len(ranked))
    axis = figure.subplots()
    colours = [COLOURS["train"] if value > 0 else COLOURS["validation"] for value in away]
    axis.barh([name.replace("_", " ") for name in names], away, color=colours)
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_xlabel(f"{label},\n% above or below the mean of all ({number(mean)})")
    figure.suptitle(title, fontsize=TEXT)
    _style(axis)
    save(figure, path)
    return True


def learning_curves(rows: Sequence[Row], path: Path, data: str = "") -> bool:
    """Error against the number of training crystals: one panel a property and student, with the
    error of predicting their mean; the panels of a property have the same range.

    Args:
      rows: of the comparison table; those of the fine-tuned teacher are drawn into every panel of
        their property.
      path: of the PNG.
      data: name of the crystals, for the title.

    Returns:
      Whether there is a picture: not where all were trained on as many crystals.
    """
    properties = list(dict.fromkeys(row.property for row in rows))
    students = list(dict.fromkeys(row.student for row in rows if row.student != FINE_TUNED_STUDENT))
    if not students or len({row.fraction for row in rows}) < 2:
        return False
    across, down = _rows_of(len(students))
    figure = new_figure(COLUMN if across == 1 else PAGE, 0.7 + 1.9 * down * len(properties))
    bands = figure.subfigures(len(properties), 1, squeeze=False)[:, 0]
    found: dict[str, Any] = {}
    for band, property in zip(bands, properties):
        panels = band.subplots(down, across, squeeze=False, sharey=True).ravel()
        for place, (axis, student) in enumerate(zip(panels, students)):
            here = [
                row
                for row in rows
                if row.property == property and row.student in (student, FINE_TUNED_STUDENT)
            ]
            _learning_curve(axis, here)
            axis.set_title(student.rpartition(":")[2])
            axis.set_xlabel("training crystals")
            if place % across == 0:
                axis.set_ylabel(with_unit("test error", here[0].unit if here else ""))
            _style(axis)
            found |= {label: line for line, label in zip(*axis.get_legend_handles_labels())}
        for axis in panels[len(students) :]:
            axis.set_axis_off()
        of = f", {data}" if data else ""
        band.suptitle(f"{property.replace('_', ' ')}{of}", fontsize=TEXT)
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=4 if across > 1 else 2,
        fontsize=SMALL, frameon=False,
    )  # fmt: skip
    save(figure, path)
    return True


def _learning_curve(axis: Axes, rows: Sequence[Row]) -> None:
    """One panel: mean error of each variant over its seeds, with their standard deviation."""
    sizes = sorted({row.n_train for row in rows})
    for place, (variant, colour) in enumerate(VARIANT_COLOURS.items()):
        points = sorted(
            (row.n_train, *mean_and_deviation(row.errors[variant]))
            for row in rows
            if np.isfinite(row.errors.get(variant, np.nan)).any()
        )
        if points:
            sizes_of, mean, spread = zip(*points)
            # Side by side, for bars on top of each other cannot be told apart.
            n = np.array(sizes_of) + 0.015 * (place - 1) * max(sizes)
            axis.errorbar(
                n, mean, spread, marker="os^"[place], markersize=3, capsize=2, linewidth=1.2,
                color=colour, label=variant,
            )  # fmt: skip
    means = sorted((row.n_train, mean_and_deviation(row.of_mean)[0]) for row in rows)
    if means:
        axis.plot(*zip(*means), "--", color="0.45", linewidth=1, label="predicting the mean")
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
