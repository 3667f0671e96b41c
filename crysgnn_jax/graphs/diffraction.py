"""Powder diffraction patterns: what tells structures apart whose nearest neighbours are alike.

The lines of a powder pattern depend on the structure alone, not on its cell, origin, order of atoms
or size of the cell: a supercell has more lines, which are extinct. They see long-range order, which
a graph of nearest neighbours does not: polytypes, such as those of SiC, differ in most of their
lines. And they hardly see small displacements, which weaken a line by the Debye-Waller factor, less
than 1 % for 0.01 Å. What they do not tell is a structure from its mirror image.

Every atom of an element scatters alike and at one point; there is a pattern of each element alone,
and one of all atoms. Lengths are in units of the cube root of the volume per atom, so that a
pattern does not change as a crystal expands. Intensities are those of a crystal over those that as
many atoms at random places would give.

Source: |F(h)|², F(h) = Σ exp 2πi h·x, of any textbook of crystallography.
"""

import functools
from typing import NamedTuple

import numpy as np

from crysgnn_jax.graphs.neighbour_search import compact_lattice
from crysgnn_jax.graphs.primitive import Cell

FIRST, LAST = 0.25, 1.2
"""Range of a pattern, in cube roots of the volume per atom over the spacing of the planes: some 11
to 2 Å."""

_SKEWED = 2.0
"""Lengths of the lattice vectors over the volume, from which on shorter vectors pay."""


class _Lines(NamedTuple):
    """How reflections become a pattern.

    Attributes:
      start: logarithm of the first place.
      step: logarithm of the ratio of two places, of which there are four to a width of the lines.
      begin: first place; some before `FIRST`, whose lines reach beyond it.
      end: last place, likewise.
      shape: ``[places, B]``: what a reflection at each place adds to each number of a pattern.
    """

    start: float
    step: float
    begin: float
    end: float
    shape: np.ndarray


@functools.lru_cache(maxsize=8)
def _lines(width: float) -> _Lines:
    step = width / 4
    start = np.log(FIRST) - 3 * width
    n = int(np.ceil((np.log(LAST) + 3 * width - start) / step))
    edges = np.exp(start + step * np.arange(n + 1))
    centres = start + step * (np.arange(n) + 0.5)
    places = np.arange(np.log(FIRST), np.log(LAST), width)
    shape = np.exp(-0.5 * ((centres[:, None] - places) / width) ** 2)
    # Reflections per atom in each shell of reciprocal space, whatever the crystal.
    at_random = 4 * np.pi / 3 * np.diff(edges**3) @ shape
    return _Lines(start, step, edges[0], edges[-1], (shape / at_random).astype(np.float32))


def pattern(cell: Cell, width: float) -> np.ndarray:
    """``[k, B]`` float32: the patterns of the elements, by atomic number, and of all atoms, if
    there are several elements; at places of equal ratio.

    Args:
      cell: any cell of the crystal.
      width: of the lines, as a fraction of their place.
    """
    lattice, coords, species = cell
    n = len(species)
    volume = abs(np.linalg.det(lattice))
    lengths = np.sqrt((lattice**2).sum(axis=1))
    if lengths.prod() > _SKEWED * volume:
        compact = compact_lattice(lattice)
        coords = np.linalg.solve(compact.T, (coords @ lattice).T).T
        lattice, lengths = compact, np.sqrt((compact**2).sum(axis=1))
    unit = (volume / n) ** (1 / 3)
    lines = _lines(width)
    reach = (lines.end / unit * lengths).astype(np.int64)
    # The longest first: half of its indices are enough, for opposite reflections are alike.
    order = np.argsort(-reach)
    lattice, coords, reach = lattice[order], coords[:, order], reach[order]
    h, k, m = (np.arange(low, high + 1) for low, high in zip((0, *-reach[1:]), reach))
    inside, place = _reflections(np.linalg.inv(lattice @ lattice.T) * unit**2, h, k, m, lines)
    twice = np.full(len(inside), 2.0, np.float32)
    twice[: np.searchsorted(inside, len(k) * len(m))] = 1.0

    by_element = np.argsort(species, kind="stable")
    kinds = species[by_element]
    angles = (2 * np.pi * (coords[by_element] % 1.0)).astype(np.float32)
    of_h, of_k, of_m = (
        _waves(angle, indices) for angle, indices in zip(angles.T, (h, k, m), strict=True)
    )
    of_km = (of_k[:, :, None] * of_m[:, None, :]).reshape(n, -1)
    bounds = [0, *(np.flatnonzero(kinds[1:] != kinds[:-1]) + 1).tolist(), n]
    sums = [
        (of_h[a:b].T @ of_km[a:b]).ravel()[inside] / np.float32((b - a) ** 0.5)
        for a, b in zip(bounds, bounds[1:])
    ]
    if len(sums) > 1:
        shares = np.sqrt(np.diff(bounds) / n).astype(np.float32)
        sums.append(np.tensordot(shares, np.stack(sums), 1))
    # Of as many reflections as a cell of n atoms has, in units of those of one atom.
    found = [
        np.bincount(place, (f.real**2 + f.imag**2) * twice, len(lines.shape)) / n for f in sums
    ]
    return (np.stack(found).astype(np.float32) @ lines.shape).astype(np.float32)


def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far patterns are apart, ``[…, k, B]`` twice → ``[…]``: the difference over the mean, of
    that of the k patterns which differ most. 0 for the same structure, 2 where no line is shared.
    """
    difference = np.abs(first - second).sum(axis=-1, dtype=np.float32)
    both = (first + second).sum(axis=-1, dtype=np.float32)
    return (2 * difference / np.maximum(both, 1e-6)).max(axis=-1)


def _reflections(
    metric: np.ndarray, h: np.ndarray, k: np.ndarray, m: np.ndarray, lines: _Lines
) -> tuple[np.ndarray, np.ndarray]:
    """Which combinations of indices are within the range, m fastest; and the place of each."""
    metric = metric.astype(np.float32)
    h, k, m = (indices.astype(np.float32) for indices in (h, k, m))
    of_km = (k * k * metric[1, 1])[:, None] + m * m * metric[2, 2]
    of_km += 2 * metric[1, 2] * np.multiply.outer(k, m)
    mixed = 2 * ((k * metric[0, 1])[:, None] + m * metric[0, 2])
    squares = np.multiply.outer(h, mixed.ravel())
    squares += (h * h * metric[0, 0])[:, None]
    squares += of_km.ravel()
    squares = squares.ravel()
    inside = np.flatnonzero((squares >= lines.begin**2) & (squares < lines.end**2))
    place = ((0.5 * np.log(squares[inside]) - lines.start) / lines.step).astype(np.int64)
    return inside, np.clip(place, 0, len(lines.shape) - 1)


def _waves(angle: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """``[n, len(indices)]`` complex64: exp(i · angle · index)."""
    phase = np.multiply.outer(angle, indices.astype(np.float32))
    out = np.empty(phase.shape, np.complex64)
    np.cos(phase, out=out.real)
    np.sin(phase, out=out.imag)
    return out
