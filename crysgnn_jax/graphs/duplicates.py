"""Crystals that look alike to a network, and those that are the same structure.

Two crystals of one formula whose looks agree (`looks`) get nearly the same prediction, and a test
crystal with such a twin in training is hardly one. Polytypes, such as those of SiC, look alike as
well. Two that look alike are the same structure, in whatever cell, or mirror images of each other,
if their powder patterns are similar (`diffraction`) and one can be laid upon the other
(`alignment`). Equal patterns are not enough: spinel-like and layered LiFeO2 have the same one. The
space group decides nothing: it is lost where atoms are off by little more than its tolerance.

Time and memory grow with the number of crystals, not with its square: only those of one formula are
compared, and of many of one formula only those that lie close in a tree.
"""

import functools
from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from crysgnn_jax.graphs import diffraction
from crysgnn_jax.graphs.alignment import can_be_aligned, normal_cell
from crysgnn_jax.graphs.looks import (
    SHARE_TOLERANCE,
    WIDE_SHARE_TOLERANCE,
    Looks,
    looks_of_store,
    scaled,
)
from crysgnn_jax.graphs.primitive import Cell
from crysgnn_jax.graphs.settings import TOLERANCE
from crysgnn_jax.graphs.store import GraphStore

OTHER = 0.2
"""Of how far patterns are apart: more is another structure; up to it, it is asked whether one can
be laid upon the other. Atoms that are off by 0.01 Å change patterns by up to 0.03; a lattice that
is 0.5 % longer in one direction and shorter in another by 0.1. Patterns of the polytypes 6H and 15R
of SiC are 0.26 apart, those of very long ones, 36 and 72 layers of ZnS, 0.006."""

_WIDTH = 4 / 3
"""Of the lines of a pattern, in tolerances."""

_MANY = 500
"""Crystals of one formula from which on a tree is faster than all pairs."""

_PAIRS = 100_000
"""Pairs that are compared at a time: some 50 MB."""

_KEPT = 2000
"""Structures that are kept to be laid upon others."""

_LARGEST = 6e4
"""Below the largest number of half precision."""

Structure = Callable[[int], Cell]
"""Row → structure of the crystal."""


def look_alikes(store: GraphStore) -> np.ndarray:
    """``[n]`` int64: for each crystal, the row of the first that looks like it; its own where there
    is none before it.

    A crystal belongs to a first one within `TOLERANCE`, not to a chain of such.

    Args:
      store: its graphs must be of the `nearest` kind: others do not reach as many neighbours.
    """
    return _first_in_store(store, store.reduced_formula, None)


def same_structures(store: GraphStore, alike: np.ndarray) -> np.ndarray:
    """``[n]`` int64: for each crystal, the row of the first that is the same structure; its own
    where there is none before it.

    Args:
      store: of the crystals.
      alike: as of `look_alikes`; only those that look like the same one are compared.
    """
    return _first_in_store(store, alike, lambda row: cell_of(store, row))


def cell_of(store: GraphStore, row: int) -> Cell:
    """The structure of a crystal of a store."""
    begin, end = store.node_offsets[row : row + 2]
    return Cell(
        np.asarray(store.lattice[row]),
        np.asarray(store.frac_coords[begin:end]),
        np.asarray(store.species[begin:end]),
    )


def _first_in_store(store: GraphStore, keys: np.ndarray, structure: Structure | None) -> np.ndarray:
    """`first_of_each`, of the crystals that share their key with another alone."""
    _, key, counts = np.unique(keys, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[key] > 1)
    first = np.arange(len(store))
    if len(rows):
        of_row = None if structure is None else lambda place: structure(int(rows[place]))
        first[rows] = rows[first_of_each(key[rows], looks_of_store(store, rows), of_row)]
    return first


def first_of_each(
    keys: np.ndarray,
    looks: Looks,
    structure: Structure | None = None,
    tolerance: float = TOLERANCE,
    n_fixed: int = 0,
) -> np.ndarray:
    """``[n]`` int64: for each crystal, the row of the first that it repeats; its own where it
    repeats none before it.

    A crystal belongs to a first one, not to a chain of such that each differ by little.

    Args:
      keys: ``[n]``, of any type that can be sorted: only crystals of the same key are compared;
        usually the reduced formula, or a hash of it.
      looks: of the crystals.
      structure: what a row's crystal is. It is asked of each crystal that looks like another, for
        crystals of as many elements in ascending order, and of a few of these again. Where it is
        not given, crystals that look alike are the same.
      tolerance: of lengths, see `TOLERANCE`.
      n_fixed: so many crystals, the first ones, repeat none: those that the others must not repeat,
        whether or not they repeat each other.

    Example:
      ``first_of_each(store.reduced_formula, looks, lambda row: cell_of(store, row))``
    """
    first = np.arange(len(keys))
    _, key, counts = np.unique(keys, return_inverse=True, return_counts=True)
    several = counts[key] > 1
    shares = SHARE_TOLERANCE if structure is None else WIDE_SHARE_TOLERANCE
    for size in np.unique(looks.counts[several]).tolist():
        rows = np.flatnonzero(several & (looks.counts == size))
        points = scaled(looks.of(rows), tolerance, shares)
        owner = _owners(key[rows], points, _Same(rows, structure, tolerance), rows < n_fixed)
        first[rows] = rows[owner]
    return first


def _owners(key: np.ndarray, points: np.ndarray, same: "_Same", fixed: np.ndarray) -> np.ndarray:
    """``[n]``, the place of the first crystal that each repeats.

    Args:
      key: ``[n]``
      points: ``[n, d]``: crystals that differ by up to 1 everywhere look alike.
      same: whether those that look alike are the same.
      fixed: ``[n]`` bool, which repeat none.
    """
    counts = np.bincount(key)
    many = counts[key] > _MANY
    pairs = _alike(key, points, np.flatnonzero(~many))
    groups = []
    for number in np.flatnonzero(counts > _MANY):
        members = np.flatnonzero(key == number)
        tree = cKDTree(points[members])
        found, _ = tree.query(points[members], 2, p=np.inf, distance_upper_bound=1 + 1e-6)
        groups.append((members, tree, np.isfinite(found[:, 1])))

    compared = np.zeros(len(key), bool)
    compared[pairs.ravel()] = True
    for members, _, has_other in groups:
        compared[members[has_other]] = True
    same.prepare(np.flatnonzero(compared))

    pairs = pairs[np.lexsort(pairs.T[::-1])]
    apart = same.apart(*pairs.T)
    owner = np.arange(len(key))
    for k in np.flatnonzero(apart < OTHER).tolist():
        i, j = pairs[k]
        if owner[i] == i and owner[j] == j and not fixed[j] and same(i, j, apart[k]):
            owner[j] = i
    for members, tree, has_other in groups:
        for place in np.flatnonzero(has_other).tolist():
            i = members[place]
            if owner[i] != i:
                continue
            near = members[tree.query_ball_point(tree.data[place], 1.0, p=np.inf)]
            near = near[(near > i) & (owner[near] == near) & ~fixed[near]]
            apart = same.apart(np.full(len(near), i), near)
            for j, difference in zip(near.tolist(), apart.tolist()):
                if same(i, j, difference):
                    owner[j] = i
    return owner


def _alike(key: np.ndarray, points: np.ndarray, among: np.ndarray) -> np.ndarray:
    """``[p, 2]``, pairs of places of the same key that look alike, the lesser first."""
    # By volume, so that a crystal is compared with the next ones until these are too large.
    order = among[np.lexsort((points[among, 0], key[among]))]
    found = [np.empty((0, 2), np.int64)]
    here, step = np.arange(len(order)), 0
    while len(here):
        step += 1
        here = here[here + step < len(order)]
        one, other = order[here], order[here + step]
        close = (key[one] == key[other]) & (points[other, 0] - points[one, 0] <= 1.0)
        here, pairs = here[close], np.sort(np.column_stack([one, other])[close], axis=1)
        for start in range(0, len(pairs), _PAIRS):
            i, j = pairs[start : start + _PAIRS].T
            alike = (np.abs(points[i] - points[j]) <= 1.0).all(axis=1)
            found.append(pairs[start : start + _PAIRS][alike])
    return np.concatenate(found)


class _Same:
    """Whether crystals that look alike are the same structure.

    Args:
      rows: ``[n]``, of the crystals.
      structure: of a row; None where all that look alike are the same.
      tolerance: of lengths.
    """

    def __init__(self, rows: np.ndarray, structure: Structure | None, tolerance: float):
        self._rows, self._structure, self._tolerance = rows, structure, tolerance
        self._patterns: np.ndarray | None = None
        # The crystals of a formula are compared one after the other.
        self._normal = functools.lru_cache(maxsize=_KEPT)(
            lambda place: normal_cell(self._cell(place))
        )

    def _cell(self, place: int) -> Cell:
        assert self._structure is not None
        return self._structure(int(self._rows[place]))

    def prepare(self, places: np.ndarray) -> None:
        """Make the patterns of the crystals that will be asked of, in ascending order."""
        if self._structure is None:
            return
        self._at = np.full(len(self._rows), -1)
        self._at[places] = np.arange(len(places))
        for k, place in enumerate(places.tolist()):
            found = diffraction.pattern(self._cell(place), _WIDTH * self._tolerance)
            if self._patterns is None:
                # Half the precision is a hundredth of what patterns of the same differ by.
                self._patterns = np.empty((len(places), *found.shape), np.float16)
            self._patterns[k] = np.minimum(found, _LARGEST)

    def apart(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """``[p]``, how far the patterns of pairs of places are apart; 0 without structures."""
        out = np.zeros(len(one), np.float32)
        if self._patterns is not None:
            for start in range(0, len(one), _PAIRS // 10):
                some = slice(start, start + _PAIRS // 10)
                pair = (self._patterns[self._at[side[some]]] for side in (one, other))
                out[some] = diffraction.apart(*(x.astype(np.float32) for x in pair))
        return out

    def __call__(self, one: int, other: int, apart: float) -> bool:
        """Whether two places, whose patterns are so far apart, hold the same structure."""
        if self._structure is None:
            return True
        if apart >= OTHER:
            return False
        return can_be_aligned(self._normal(one), self._normal(other), 2 * self._tolerance)
