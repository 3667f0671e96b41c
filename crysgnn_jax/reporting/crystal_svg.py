"""Small drawings of crystals, for pages."""

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors

from crysgnn_jax.crystals.crystal import Crystal

MOST_ATOMS = 60
"""Atoms of a cell up to which those on its faces are drawn on the opposite faces too."""

ON_FACE = 1e-3
"""Cells. An atom this near to a face is on it."""

PIECES = 6
"""Of an edge of the cell, each before or behind an atom as a whole."""


def colour_of(atomic_number: int) -> str:
    """An element's, as Jmol draws it: ``#ff0d0d`` for oxygen."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in jmol_colors[atomic_number])


def drawing(crystal: Crystal, label: str = "") -> str:
    """A crystal's cell, seen from a little above, as an SVG element of some 5 kB.

    Args:
      crystal: to be drawn.
      label: what it is, for those who do not see it.
    """
    numbers, places = with_images(crystal.frac_coords)
    if len(crystal.species) > MOST_ATOMS:
        numbers, places = (part[: len(crystal.species)] for part in (numbers, places))
    species = crystal.species[numbers]
    view = _view(crystal.lattice)
    atoms = places @ crystal.lattice @ view
    edges = _edges() @ crystal.lattice @ view
    radii = 0.45 * covalent_radii[species]
    low = np.minimum((atoms - radii[:, None]).min(axis=0), edges.min(axis=(0, 1)))
    high = np.maximum((atoms + radii[:, None]).max(axis=0), edges.max(axis=(0, 1)))
    scale = 96 / max(high[0] - low[0], high[1] - low[1])
    # The picture's y points down.
    shift = np.array([50, 50, 0]) - scale * (low + high) / 2 * [1, -1, 0]
    drawn = lambda points: points * scale * [1, -1, 1] + shift
    things = []
    for a, b in drawn(edges):
        line = f'<path d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}"/>'
        things.append((min(a[2], b[2]), line))
    for number, (x, y, z), radius in zip(species.tolist(), drawn(atoms), scale * radii):
        colour = colour_of(number)
        circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"/>'
        things.append((z, circle))
    # What is nearer is drawn later; the last coordinate points to the reader.
    things.sort(key=lambda thing: thing[0])
    return (
        f'<svg class="crystal" viewBox="0 0 100 100" role="img" aria-label="{label}" '
        'stroke="#777e87" stroke-width="0.5">' + "".join(thing for _, thing in things) + "</svg>"
    )


def _view(lattice: np.ndarray) -> np.ndarray:
    """``[3, 3]``, from Cartesian coordinates to right, up, and towards the reader: c upright, and a
    to the right and a little to the front."""
    up = lattice[2] / np.linalg.norm(lattice[2])
    right = lattice[0] - (lattice[0] @ up) * up
    right /= np.linalg.norm(right)
    front = np.cross(right, up)
    axes = np.stack([right, up, front], axis=1)
    turn, tilt = np.radians(-22), np.radians(14)
    about_up = np.array(
        [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]
    )
    about_right = np.array(
        [[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]]
    )
    return axes @ about_up @ about_right


def _edges() -> np.ndarray:
    """``[12 × PIECES, 2, 3]``, ends of the pieces of a cell's edges, in its own coordinates."""
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, 8).T
    ends = np.array(
        [(a, b) for a in corners for b in corners if (b - a).sum() == 1 == abs(b - a).sum()]
    )
    cuts = np.linspace(0, 1, PIECES + 1)
    at = lambda t: ends[:, 0] + t * (ends[:, 1] - ends[:, 0])
    return np.concatenate([np.stack([at(a), at(b)], axis=1) for a, b in zip(cuts, cuts[1:])])


def with_images(frac_coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The atoms of a cell, then those on a face, edge or corner on the others too: the number of
    the atom ``[m]`` and fractional coordinates ``[m, 3]``."""
    places = frac_coords % 1.0
    # So that what is on a face by all but rounding is taken to be.
    places[places > 1 - ON_FACE] -= 1.0
    atoms = np.arange(len(places))
    for axis in range(3):
        there = np.abs(places[:, axis]) < ON_FACE
        moved = places[there] + np.eye(3)[axis]
        places, atoms = np.concatenate([places, moved]), np.append(atoms, atoms[there])
    return atoms, places
