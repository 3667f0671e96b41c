"""The picture of a check: elements, crystal systems, sizes and labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from crysgnn_jax.reporting.figures import COLOURS, new_figure
from crysgnn_jax.reporting.periodic_table import draw_elements

if TYPE_CHECKING:
    from crysgnn_jax.reporting.check import Check, Label

MOST_LABELS = 8
"""Labels that are drawn; with more, the picture would be too long to read."""

_COLUMNS = 3


def draw(check: "Check", path: Path) -> None:
    """Draw what a check has found.

    Args:
      check: the findings; at most `MOST_LABELS` of its labels have a panel.
      path: of the PNG.
    """
    labels = check.labels[:MOST_LABELS]
    n_rows = 1 + -(-(1 + len(labels)) // _COLUMNS)
    figure = new_figure(9.6, 0.5 + 2.9 + 2.3 * (n_rows - 1))
    left_out = len(check.labels) - len(labels)
    more = f" ({left_out} more labels are not drawn)" if left_out else ""
    name = " + ".join(Path(part).name for part in check.name.split(" + "))
    figure.suptitle(f"{name}: {check.n} crystals{more}", fontsize=11)
    grid = figure.add_gridspec(n_rows, _COLUMNS, height_ratios=[2.9] + [2.3] * (n_rows - 1))
    elements_panel(figure, figure.add_subplot(grid[0, :2]), check.elements)
    systems_panel(figure.add_subplot(grid[0, 2]), check.systems)
    axes = [
        figure.add_subplot(grid[1 + k // _COLUMNS, k % _COLUMNS]) for k in range(1 + len(labels))
    ]
    sizes_panel(axes[0], np.bincount(check.n_atoms))
    for axis, label in zip(axes[1:], labels):
        _label(axis, label)
    figure.savefig(path, dpi=300)


def elements_panel(figure: Any, axis: Any, counts: dict[int, int]) -> None:
    """The periodic table, coloured by the number of crystals with each element."""
    colours = ScalarMappable(LogNorm(1, max(2, *counts.values())), "viridis")
    draw_elements(axis, counts, colours, size=6.5, numbers=False)
    scale = figure.colorbar(
        colours,
        ax=axis,
        orientation="horizontal",
        shrink=0.6,
        aspect=32,
        pad=0.01,
        format=lambda x, _: f"{x:.0f}",
    )
    scale.set_label("crystals with the element (grey: none)", fontsize=8)
    scale.ax.tick_params(labelsize=7)


def systems_panel(axis: Any, systems: dict[str, int]) -> None:
    """Bars of the number of crystals of each system."""
    names = list(systems)
    axis.barh(names, list(systems.values()), color=COLOURS["train"])
    axis.invert_yaxis()
    axis.set_xlabel("crystals", fontsize=8)
    axis.set_title("crystal system", fontsize=9)
    axis.tick_params(labelsize=7.5)
    axis.grid(alpha=0.3, axis="x")


def sizes_panel(axis: Any, counts: np.ndarray) -> None:
    """Histogram of the atoms per cell, from the number of crystals of 0, 1, 2, … atoms."""
    low, top = int(np.flatnonzero(counts)[0]), len(counts) - 1
    if top <= 30:
        bins: Any = np.arange(0.5, top + 1.5)
    else:
        bins = np.unique(np.round(np.geomspace(low, top + 1, 30))) - 0.5
        axis.set_xscale("log")
        round_numbers = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
        ticks = [t for t in round_numbers if low <= t <= top]
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
    axis.hist(np.arange(len(counts)), bins, weights=counts, color=COLOURS["test"])
    _finish(axis, "atoms per cell")


def _label(axis: Any, label: "Label") -> None:
    edges = np.linspace(label.low, label.high, len(label.counts) + 1)
    if label.is_constant:
        edges = np.linspace(label.low - 0.5, label.low + 0.5, len(label.counts) + 1)
    axis.stairs(label.counts, edges, fill=True, color=COLOURS["train"])
    unit = {"": "", "?": " (unit not known)"}.get(label.guess.unit, f" ({label.guess.unit}?)")
    _finish(axis, label.name.replace("_", " ") + unit)
    if label.counts and max(label.counts) > 50 * max(1, np.median(label.counts)):
        axis.set_yscale("log")
        axis.set_ylim(bottom=0.7)


def _finish(axis: Any, words: str) -> None:
    axis.set_xlabel(words, fontsize=8)
    axis.set_ylabel("crystals", fontsize=8)
    axis.tick_params(labelsize=7.5)
    axis.grid(alpha=0.3)
