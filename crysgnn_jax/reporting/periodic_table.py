"""A number for each element, drawn as the periodic table."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from crysgnn_jax.crystals.elements import SYMBOLS, place_in_table
from crysgnn_jax.reporting.colours import NO_VALUE, ink_on, scale
from crysgnn_jax.reporting.figures import head, new_figure
from crysgnn_jax.reporting.tables import signed


def periodic_table(
    values: Mapping[int, float],
    path: Path | IO[bytes],
    *,
    label: str,
    title: str,
    centred: bool | None = None,
) -> None:
    """Draw the periodic table, each element in the colour of its number.

    Args:
      values: atomic number → its number; elements that are left out are grey.
      path: of the PNG, or a file open for it.
      label: what the numbers are, with their unit; of the colour bar.
      title: such as the data set.
      centred: whether colours are around 0, see `colours.scale`.

    Example:
      ``periodic_table({8: -1.2, 11: 0.3}, path, label="contribution (eV/atom)", title="oxides")``
    """
    figure = new_figure(9.0, 5.0)
    axis = figure.subplots()
    colours = scale(np.array(list(values.values())), centred=centred)
    draw_elements(axis, values, colours)
    head(figure, title)
    place = axis.inset_axes((0.2, 0.87, 0.4, 0.03))
    figure.colorbar(colours, cax=place, orientation="horizontal")
    place.set_title(label, fontsize=9)
    place.tick_params(labelsize=8)
    figure.savefig(path, dpi=300, format="png")


def draw_elements(
    axis: Axes,
    values: Mapping[int, float],
    colours: ScalarMappable,
    *,
    size: float = 9,
    numbers: bool = True,
) -> None:
    """Draw the elements in their places on an axis.

    Args:
      axis: to draw on.
      values: as of `periodic_table`.
      colours: number → colour.
      size: points, of the letters of a symbol.
      numbers: write each atomic number, and each number.
    """
    for z in range(1, len(SYMBOLS)):
        row, column = place_in_table(z)
        value = values.get(z, float("nan"))
        known = np.isfinite(value)
        colour = colours.to_rgba(np.asarray(value)) if known else to_rgba(NO_VALUE)
        ink = ink_on(colour) if known else "0.45"
        # The two long periods stand below the others, nearer than a whole row.
        y = row - (0.5 if row > 7 else 0.0)
        axis.add_patch(
            Rectangle((column, y), 0.94, 0.94, facecolor=colour, edgecolor="0.75", linewidth=0.4)
        )
        middle = column + 0.47
        axis.text(middle, y + 0.47, SYMBOLS[z], fontsize=size, color=ink, ha="center", va="center")
        if not numbers:
            continue
        axis.text(column + 0.06, y + 0.05, str(z), fontsize=4.5, color=ink, va="top")
        if known:
            text = signed(value, 2)
            axis.text(middle, y + 0.88, text, fontsize=5.5, color=ink, ha="center", va="bottom")
    axis.set(xlim=(0.95, 19.0), ylim=(10.5, 0.95), aspect="equal")
    axis.axis("off")
