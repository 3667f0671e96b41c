"""A number for each element, drawn as the periodic table."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from crysgnn_jax.crystals.elements import SYMBOLS, place_in_table
from crysgnn_jax.reporting.colours import NO_VALUE, ink_on, number, scale
from crysgnn_jax.reporting.figures import head, new_figure


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
        axis.text(column + 0.06, y + 0.05, str(z), fontsize=4.5, color=ink, va="top")
        axis.text(middle, y + 0.44, SYMBOLS[z], fontsize=9, color=ink, ha="center", va="center")
        if known:
            text = number(value, 2)
            axis.text(middle, y + 0.88, text, fontsize=5.5, color=ink, ha="center", va="bottom")
    axis.set(xlim=(0.95, 19.0), ylim=(10.5, 0.95), aspect="equal")
    head(figure, title)
    axis.axis("off")
    place = axis.inset_axes((0.2, 0.87, 0.4, 0.03))
    figure.colorbar(colours, cax=place, orientation="horizontal")
    place.set_title(label, fontsize=9)
    place.tick_params(labelsize=8)
    figure.savefig(path, dpi=300, format="png")
