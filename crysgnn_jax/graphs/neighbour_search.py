"""All pairs of atoms of periodic crystals up to a distance, for many crystals at once.

Crystals of a data set are small: calling a library for one after the other costs more than its
search. Here every step but one is a NumPy operation over all crystals; the one left is a product of
two small matrices for each crystal, the squared distances between its atoms and their images.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal

_SLACK = 1e-4
"""Å, searched beyond the radius: far above what rounding in the squared distances can lose, in
cells of up to a thousand Å."""

_STEPS = 1e8
"""Distances are rounded to steps of 10⁻⁸ Å: far below single precision and far above the noise of
double precision, so that symmetry-equivalent neighbours have equal distances."""

_STEP_BITS = 44
"""Room for the steps of a distance in a sorting key: up to 175,000 Å; above it, the receiver."""

_BLOCK = 1 << 15
"""Candidates in one matrix product: they stay in the processor's cache, and are too few for BLAS
to start threads, which would get into the way of other workers."""


_MANY_IMAGES = 1000
"""Images of an atom in the box around a search sphere. Ordinary cells need ten, and 255 at most
(6,316 crystals of the Materials Project); above this a cell is so skewed that another basis is
worth its cost."""


class Pairs(NamedTuple):
    """Directed pairs of atoms of several crystals, sorted by receiver, distance, sender and image.

    Atoms are counted through all crystals, in their order.

    Attributes:
      receivers: ``[n_pair]`` int64, the atoms at the centre.
      senders: ``[n_pair]`` int64, the other atoms.
      distances: ``[n_pair]`` float64, Å, rounded to 10⁻⁸ Å.
      vectors: ``[n_pair, 3]`` float64, Å, from the receiver to the image of the sender.
    """

    receivers: np.ndarray
    senders: np.ndarray
    distances: np.ndarray
    vectors: np.ndarray


class _Images(NamedTuple):
    """The periodic images of atoms that may be within reach, by atom and then by image.

    Attributes:
      atoms: ``[n_image]`` int64, the atom that each is an image of.
      positions: ``[n_image, 3]`` float64, Å.
      is_atom: ``[n_image]`` bool, true for the atom itself.
      starts: ``[n_crystal + 1]`` int64: crystal k has ``starts[k]:starts[k + 1]``.
    """

    atoms: np.ndarray
    positions: np.ndarray
    is_atom: np.ndarray
    starts: np.ndarray


def pairs_within(crystals: Sequence[Crystal], radii: np.ndarray) -> Pairs:
    """All pairs of atoms and images of atoms of the same crystal up to a radius.

    Args:
      crystals: one or more; memory grows with their atoms.
      radii: ``[n_crystal]`` float64, Å. A few pairs slightly farther apart are found as well.
    """
    radii = radii + _SLACK
    starts = np.cumsum([0, *(len(crystal.species) for crystal in crystals)])
    lattices = np.stack([crystal.lattice for crystal in crystals])
    frac_coords = np.concatenate([crystal.frac_coords for crystal in crystals])
    for k in np.flatnonzero(_box_sizes(lattices, radii) > _MANY_IMAGES):
        atoms = slice(*starts[k : k + 2])
        compact = compact_lattice(lattices[k])
        frac_coords[atoms] = np.linalg.solve(compact.T, (frac_coords[atoms] @ lattices[k]).T).T
        lattices[k] = compact
    frac_coords -= np.floor(frac_coords)
    positions = _cartesian(frac_coords, lattices, starts)
    images = _images(frac_coords, lattices, starts, radii)

    receivers, which = _close(positions, starts, images, radii)
    senders = images.atoms[which]
    others = np.flatnonzero(~images.is_atom[which] | (senders != receivers))
    receivers, which, senders = (index.take(others) for index in (receivers, which, senders))
    vectors = images.positions.take(which, axis=0) - positions.take(receivers, axis=0)
    steps = np.rint(np.sqrt(_squares(vectors)) * _STEPS).astype(np.int64)
    # Pairs are found by receiver, sender and image; a stable sort keeps that order among equals.
    order = np.argsort((receivers << _STEP_BITS) + steps, kind="stable")
    return Pairs(receivers, senders[order], steps[order] / _STEPS, vectors.take(order, axis=0))


def _margins(lattices: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """``[n_crystal, 3]``, the radii in units of the distance between opposite faces of the cell,
    which is one over the length of a reciprocal lattice vector."""
    return radii[:, None] * np.linalg.norm(np.linalg.inv(lattices), axis=1)


def _box_sizes(lattices: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """``[n_crystal]``, the cells in a box with the shape of the cell around the sphere, and one
    more in each direction."""
    return (1 + 2 * _margins(lattices, radii)).prod(axis=1)


def compact_lattice(lattice: np.ndarray) -> np.ndarray:
    """``[3, 3]``, vectors of the same lattice that adding multiples of others does not shorten."""
    basis = lattice.copy()
    shortened = True
    while shortened:
        shortened = False
        for k in range(3):
            others = np.delete(basis, k, axis=0)
            multiples = np.rint(np.linalg.lstsq(others.T, basis[k], rcond=None)[0])
            shorter = basis[k] - multiples @ others
            # Ends: a vector of a lattice can shrink only so often.
            if np.linalg.norm(shorter) < 0.999 * np.linalg.norm(basis[k]):
                basis[k] = shorter
                shortened = True
    return basis


def _cartesian(frac_coords: np.ndarray, lattices: np.ndarray, starts: np.ndarray) -> np.ndarray:
    positions = np.empty_like(frac_coords)
    for lattice, start, stop in zip(lattices, starts.tolist(), starts[1:].tolist()):
        np.matmul(frac_coords[start:stop], lattice, out=positions[start:stop])
    return positions


def _images(
    frac_coords: np.ndarray, lattices: np.ndarray, starts: np.ndarray, radii: np.ndarray
) -> _Images:
    """The images in the smallest box, along the lattice vectors, that holds the atoms of a crystal
    and everything up to its radius from them."""
    n_atoms = np.diff(starts)
    margins = _margins(lattices, radii)
    lows = np.minimum.reduceat(frac_coords, starts[:-1]) - margins
    highs = np.maximum.reduceat(frac_coords, starts[:-1]) + margins
    first = np.ceil(np.repeat(lows, n_atoms, axis=0) - frac_coords).astype(np.int64)
    last = np.floor(np.repeat(highs, n_atoms, axis=0) - frac_coords).astype(np.int64)

    # An atom's images are all combinations of its translations along the three vectors.
    sizes = last - first + 1
    n_images = sizes[:, 0] * sizes[:, 1] * sizes[:, 2]
    ends = np.cumsum(n_images)
    atoms = np.repeat(np.arange(len(frac_coords)), n_images)
    number = np.arange(len(atoms)) - np.repeat(ends - n_images, n_images)
    number, along_c = np.divmod(number, sizes[:, 2].take(atoms))
    along_a, along_b = np.divmod(number, sizes[:, 1].take(atoms))
    shifts = np.column_stack([along_a, along_b, along_c]) + first.take(atoms, axis=0)
    is_atom = (shifts[:, 0] == 0) & (shifts[:, 1] == 0) & (shifts[:, 2] == 0)

    image_starts = np.append(0, ends)[starts]
    positions = _cartesian(frac_coords.take(atoms, axis=0) + shifts, lattices, image_starts)
    return _Images(atoms, positions, is_atom, image_starts)


def _close(
    positions: np.ndarray, starts: np.ndarray, images: _Images, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``[n]`` int64 atoms and images that are at most a radius apart, in this order."""
    # |x − y|² = |x|² − 2 x·y + |y|² is the product of two matrices of five columns.
    atoms = np.column_stack([positions, _squares(positions), np.ones(len(positions))])
    others = np.column_stack(
        [-2 * images.positions, np.ones(len(images.positions)), _squares(images.positions)]
    )
    found, blocks = [], []
    limits = (radii**2).tolist()
    for rows, columns, crystal in _blocks(starts, images.starts):
        squares = atoms[rows] @ others[columns].T
        found.append(np.flatnonzero(squares <= limits[crystal]))
        blocks.append((len(found[-1]), rows.start, columns.start, columns.stop - columns.start))
    n_found, row_starts, column_starts, widths = np.array(blocks).T
    row, column = np.divmod(np.concatenate(found), np.repeat(widths, n_found))
    return row + np.repeat(row_starts, n_found), column + np.repeat(column_starts, n_found)


def _squares(vectors: np.ndarray) -> np.ndarray:
    """``[n]``, the squared lengths; NumPy sums rows of three far slower than whole columns."""
    x, y, z = vectors.T
    return x * x + y * y + z * z


def _blocks(starts: np.ndarray, image_starts: np.ndarray) -> Iterator[tuple[slice, slice, int]]:
    """Atoms, images and number of each crystal; a large crystal in pieces of its atoms."""
    atoms, images = starts.tolist(), image_starts.tolist()
    for crystal, (start, stop) in enumerate(zip(atoms, atoms[1:])):
        columns = slice(*images[crystal : crystal + 2])
        n_rows = max(1, _BLOCK // (columns.stop - columns.start))
        for row in range(start, stop, n_rows):
            yield slice(row, min(row + n_rows, stop)), columns, crystal
