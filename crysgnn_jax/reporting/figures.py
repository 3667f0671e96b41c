"""Pictures of runs, as PNG files."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crysgnn_jax.reporting.comparison import (
    DISTILLED,
    FINE_TUNED,
    FINE_TUNED_STUDENT,
    VANILLA,
    Row,
    mean_and_deviation,
)

COLOURS = {"train": "#0072b2", "validation": "#d55e00", "test": "#009e73"}
"""Okabe and Ito's, which readers with colour blindness can tell apart."""

VARIANT_COLOURS = {VANILLA: "#0072b2", DISTILLED: "#d55e00", FINE_TUNED: "#009e73"}


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


def loss_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
    metrics: Sequence[str],
    *,
    unit: str = "",
) -> None:
    """One panel a metric, over epochs.

    Args:
      runs: name of a run → lines of its metrics log; several runs share the panels.
      path: of the PNG.
      metrics: names without ``train_`` or ``validation_``; both are drawn where logged.
      unit: of metrics that end in ``mae``.
    """
    figure = new_figure(4.2 * len(metrics), 3.4)
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    styles = ("-", "--", ":")
    for axis, metric in zip(axes, metrics):
        for (name, lines), style in zip(runs.items(), styles):
            for side in ("train", "validation"):
                points = [
                    (line["epoch"], line[f"{side}_{metric}"])
                    for line in lines
                    if f"{side}_{metric}" in line
                ]
                if points:
                    label = f"{name} {side}".strip()
                    axis.plot(*zip(*points), style, color=COLOURS[side], label=label, linewidth=1.4)
        axis.set_xlabel("epoch")
        axis.set_ylabel(f"{metric} ({unit})" if metric.endswith("mae") and unit else metric)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
        values = [y for line in axis.lines for y in line.get_ydata()]
        # Within a factor of ten a logarithmic axis has one labelled tick at most.
        if values and 0 < 10 * min(values) < max(values):
            axis.set_yscale("log")
    figure.savefig(path, dpi=130)


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
      title: what the run was.
    """
    figure = new_figure(4.4, 4.2)
    axis = figure.subplots()
    low = min(targets.min(), predictions.min())
    high = max(targets.max(), predictions.max())
    margin = 0.03 * (high - low or 1.0)
    ends = (low - margin, high + margin)
    axis.plot(ends, ends, color="0.5", linewidth=1)
    axis.scatter(targets, predictions, s=9, alpha=0.5, color=COLOURS["test"], linewidths=0)
    axis.set(xlim=ends, ylim=ends, aspect="equal", title=title)
    label = f"{property.replace('_', ' ')}" + (f" ({unit})" if unit else "")
    axis.set_xlabel(f"target: {label}")
    axis.set_ylabel("prediction")
    axis.text(
        0.04,
        0.96,
        f"MAE {np.mean(np.abs(predictions - targets)):.4g} {unit}\n"
        f"of the mean {of_mean:.4g} {unit}\n"
        f"R² {r_squared(targets, predictions):.4f}\n{len(targets)} test crystals",
        transform=axis.transAxes,
        verticalalignment="top",
    )
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def ranking(ranked: Sequence[tuple[str, float]], path: Path, *, label: str) -> None:
    """Horizontal bars, the longest on top.

    Args:
      ranked: (name, value) in descending order.
      path: of the PNG.
      label: of the values.
    """
    figure = new_figure(5.2, 0.8 + 0.3 * len(ranked))
    axis = figure.subplots()
    names, values = zip(*reversed(ranked))
    axis.barh([name.replace("_", " ") for name in names], values, color=COLOURS["train"])
    axis.set_xlabel(label)
    axis.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=130)


def learning_curves(rows: Sequence[Row], path: Path) -> None:
    """Error against the number of training crystals: one panel a property and student, with the
    error of predicting their mean.

    Args:
      rows: of the comparison table; those of the fine-tuned teacher are drawn into every panel of
        their property.
      path: of the PNG.
    """
    properties = list(dict.fromkeys(row.property for row in rows))
    students = list(dict.fromkeys(row.student for row in rows if row.student != FINE_TUNED_STUDENT))
    figure = new_figure(3.4 * len(students), 3.0 * len(properties) + 0.3)
    grid = figure.subplots(len(properties), len(students), squeeze=False)
    for axes, property in zip(grid, properties):
        for axis, student in zip(axes, students):
            here = [
                row
                for row in rows
                if row.property == property and row.student in (student, FINE_TUNED_STUDENT)
            ]
            sizes = sorted({row.n_train for row in here})
            for place, (variant, colour) in enumerate(VARIANT_COLOURS.items()):
                points = sorted(
                    (row.n_train, *mean_and_deviation(row.errors[variant]))
                    for row in here
                    if np.isfinite(row.errors.get(variant, np.nan)).any()
                )
                if points:
                    sizes_of, mean, spread = zip(*points)
                    # Side by side, for bars on top of each other cannot be told apart.
                    n = np.array(sizes_of) + 0.02 * (place - 1) * max(sizes)
                    axis.errorbar(
                        n,
                        mean,
                        spread,
                        marker="o",
                        markersize=4,
                        capsize=3,
                        linewidth=1.4,
                        color=colour,
                        label=variant,
                    )
            means = sorted((row.n_train, mean_and_deviation(row.of_mean)[0]) for row in here)
            if means:
                axis.plot(*zip(*means), "--", color="0.5", linewidth=1.2, label="mean")
            unit = here[0].unit if here else ""
            axis.set_title(f"{student}: {property.replace('_', ' ')}", fontsize=9)
            axis.set_xlabel("training crystals")
            axis.set_ylabel("test MAE" + (f" ({unit})" if unit else ""))
            axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def r_squared(targets: np.ndarray, predictions: np.ndarray) -> float:
    """1 − residual variance / variance of the targets; NaN where all targets are equal."""
    spread = float(np.sum((targets - targets.mean()) ** 2))
    return 1.0 - float(np.sum((targets - predictions) ** 2)) / spread if spread else float("nan")
