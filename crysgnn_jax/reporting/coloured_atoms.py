"""A crystal's cell, each atom in the colour of a number."""

import itertools
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase.data import covalent_radii
from matplotlib.patches import Circle

from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.reporting.colours import ink_on, scale
from crysgnn_jax.reporting.crystal_svg import with_images
from crysgnn_jax.reporting.figures import head, new_figure

TURN, TILT = np.radians(22.0), np.radians(14.0)
"""By how much the cell is turned about its third axis, and tilted towards the eye."""

MOST_LABELLED = 80
"""Atoms of which the symbols are written."""


def draw_atoms(
    species: np.ndarray,
    frac_coords: np.ndarray,
    lattice: np.ndarray,
    values: np.ndarray,
    path: Path | IO[bytes],
    *,
    label: str,
    title: str,
) -> None:
    """Draw the cell of a crystal in parallel projection.

    Args:
      species: ``[n_atoms]``, atomic numbers.
      frac_coords: ``[n_atoms, 3]``
      lattice: ``[3, 3]``, lattice vectors as rows, Å.
      values: ``[n_atoms]``, a number for each, which adds or takes away: colours are around 0.
      path: of the PNG, or a file open for it.
      label: what the numbers are, with their unit; of the colour bar.
      title: such as the formula.
    """
    atom, coords = with_images(frac_coords)
    onto = _projection(lattice)
    places = coords @ lattice @ onto
    corners = np.array(list(itertools.product((0, 1), repeat=3))) @ lattice @ onto
    figure = new_figure(5.4, 4.6)
    axis = figure.subplots()
    for i, j in itertools.combinations(range(8), 2):
        if (i ^ j).bit_count() == 1:
            axis.plot(*corners[[i, j], :2].T, color="0.6", linewidth=0.8, zorder=0)
    colours = scale(values, centred=True)
    # Nearer to each other than they are, so that large atoms leave something to see of small ones.
    radii = 0.3 + 0.2 * covalent_radii[species[atom]]
    # From the back to the front.
    for rank, k in enumerate(np.argsort(places[:, 2], kind="stable").tolist(), 1):
        colour = colours.to_rgba(values[atom[k]])
        x, y = places[k, :2]
        axis.add_patch(
            Circle((x, y), radii[k], facecolor=colour, edgecolor="0.2", linewidth=0.7, zorder=rank)
        )
        if len(atom) <= MOST_LABELLED:
            symbol = SYMBOLS[species[atom[k]]]
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
            axis.text(x, y, symbol, color=ink_on(colour), zorder=rank, **style)
    points = np.concatenate([corners[:, :2], places[:, :2]])
    margin = 1.1 * radii.max()
    low, high = points.min(0) - margin, points.max(0) + margin
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    head(figure, title)
    axis.axis("off")
    figure.colorbar(colours, ax=axis, label=label, shrink=0.75)
    figure.savefig(path, dpi=300, format="png")


def _projection(lattice: np.ndarray) -> np.ndarray:
    """``[3, 3]``: from Å to right, up and towards the eye; the first lattice vector points to the
    right, and the first two lie flat."""
    x = lattice[0] / np.linalg.norm(lattice[0])
    z = np.cross(lattice[0], lattice[1])
    z /= np.linalg.norm(z)
    if lattice[2] @ z < 0:  # a left-handed cell stands upright too
        z = -z
    y = np.cross(z, x)
    right = np.cos(TURN) * x + np.sin(TURN) * y
    back = -np.sin(TURN) * x + np.cos(TURN) * y
    up = np.cos(TILT) * z + np.sin(TILT) * back
    towards = np.sin(TILT) * z - np.cos(TILT) * back
    return np.stack([right, up, towards], axis=1)
