"""The edges of a crystal graph: each atom's nearest neighbours across periodic images.

Two rules (`FeaturiserSettings.rule`): an atom receives edges from its nearest neighbours, as in
CGCNN (Xie and Grossman 2018); or these bonds, taken both ways, as in ALIGNN (Choudhary and DeCost
2021).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import InvalidCrystal
from crysgnn_jax.graphs.neighbour_search import Pairs, pairs_within
from crysgnn_jax.graphs.settings import FeaturiserSettings

MIN_DISTANCE = 0.5
"""Å. Atoms closer than this are a broken or disordered structure: the shortest bond, H–H, is
0.74 Å, and the worst relaxed structures of the Materials Project have 0.63 Å."""

MAX_LATTICE_VECTOR = 1000.0
"""Å. Longer lattice vectors are most likely in another unit."""

_CUTOFF_SLACK = 1e-5
"""Å, added to the cutoff: a neighbour exactly at the cutoff counts, whatever the rounding of
coordinates that were once stored in single precision."""

_CROWDING = 1.75
"""The first search sphere would hold this many times the wanted neighbours if the atoms filled
space evenly; 98 % of the crystals of the Materials Project need no second search."""

_GROWTH = 1.4
"""Radius of a search over the radius of the one before."""

_GROUP_ATOMS = 1000
"""Atoms to search around at once: enough to make NumPy's cost per call small, and few enough that
their pairs stay in the processor's cache."""


class Neighbours(NamedTuple):
    """The directed edges of a crystal graph, sorted by receiver, distance, sender and image.

    Attributes:
      receivers: ``[n_edge]`` int32, the atoms at the centre.
      senders: ``[n_edge]`` int32, their neighbours.
      distances: ``[n_edge]`` float32, Å.
      vectors: ``[n_edge, 3]`` float32, Å, from the receiver to the image of the sender.
    """

    receivers: np.ndarray
    senders: np.ndarray
    distances: np.ndarray
    vectors: np.ndarray


def neighbour_list(crystal: Crystal, settings: FeaturiserSettings) -> Neighbours:
    """The ``n_neighbours`` nearest neighbours of every atom.

    Periodic images of an atom are neighbours of it too. With ``ties="keep"``, all neighbours up to
    ``tie_tolerance`` beyond the last one are edges as well.

    With ``rule="nearest"``, an atom with fewer neighbours within the cutoff, or none, has fewer
    edges. With ``rule="bonds"`` the cutoff grows where needed, so that it has no effect, and every
    edge has its reverse: the sender at the other end, the opposite vector.

    Raises:
      InvalidCrystal: two atoms closer than `MIN_DISTANCE`, or a lattice vector longer than
        `MAX_LATTICE_VECTOR`.
    """
    (found,) = neighbour_lists([crystal], settings)
    if isinstance(found, InvalidCrystal):
        raise found
    return found


def neighbour_lists(
    crystals: Sequence[Crystal], settings: FeaturiserSettings
) -> list[Neighbours | InvalidCrystal]:
    """The `neighbour_list` of each crystal; for one that cannot be used, what it would raise.

    Much faster than one crystal after the other.
    """
    found: list[Neighbours | InvalidCrystal] = []
    for group in _groups(crystals):
        found += _search(group, settings)
    return found


def _groups(crystals: Sequence[Crystal]) -> Iterator[list[Crystal]]:
    """The crystals in their order, up to `_GROUP_ATOMS` atoms or one crystal at a time."""
    group: list[Crystal] = []
    n_atoms = 0
    for crystal in crystals:
        if group and n_atoms + len(crystal.species) > _GROUP_ATOMS:
            yield group
            group, n_atoms = [], 0
        group.append(crystal)
        n_atoms += len(crystal.species)
    if group:
        yield group


def _search(
    crystals: Sequence[Crystal], settings: FeaturiserSettings
) -> list[Neighbours | InvalidCrystal]:
    """`neighbour_lists` of a few crystals: radii grow until each has the neighbours it needs."""
    lattices = np.stack([crystal.lattice for crystal in crystals])
    longest = np.linalg.norm(lattices, axis=2).max(axis=1)
    found: list[Any] = [None] * len(crystals)
    for k in np.flatnonzero(longest > MAX_LATTICE_VECTOR).tolist():
        reason = f"a lattice vector is {longest[k]:.4g} Å long; check that its unit is Å"
        found[k] = InvalidCrystal(crystals[k].id, reason)
    pending = np.flatnonzero(longest <= MAX_LATTICE_VECTOR)
    n_atoms = np.array([len(crystal.species) for crystal in crystals])
    cutoff = settings.cutoff + _CUTOFF_SLACK
    radii = np.minimum(cutoff, _first_radii(lattices, n_atoms, settings.n_neighbours))[pending]
    if settings.rule == "bonds":
        cutoff = math.inf
    while len(pending):
        some = [crystals[k] for k in pending.tolist()]
        pairs = pairs_within(some, radii)
        starts = np.append(0, np.cumsum(n_atoms[pending]))
        reach = _reach(pairs, starts[-1], settings)
        is_last = (radii >= cutoff) | (np.maximum.reduceat(reach, starts[:-1]) < radii)
        reach = np.minimum(reach, cutoff)
        bonds = settings.rule == "bonds"
        keep = _bonds(pairs, reach) if bonds else _nearest(pairs, reach, settings)
        results = _split(pairs, np.flatnonzero(keep), starts)
        overlaps = _overlaps(some, pairs, starts)
        for number, k in enumerate(pending.tolist()):
            if number in overlaps:
                found[k] = overlaps[number]
                is_last[number] = True
            elif is_last[number]:
                found[k] = results[number]
        pending = pending[~is_last]
        radii = np.minimum(cutoff, _GROWTH * radii[~is_last])
    return found


def _first_radii(lattices: np.ndarray, n_atoms: np.ndarray, n_neighbours: int) -> np.ndarray:
    """``[n_crystal]`` Å; radii that hold the neighbours of nearly every atom, from the number
    density."""
    volumes = np.abs(np.linalg.det(lattices))
    return np.cbrt(_CROWDING * n_neighbours * volumes / n_atoms * 3 / (4 * math.pi))


def _overlaps(
    crystals: Sequence[Crystal], pairs: Pairs, starts: np.ndarray
) -> dict[int, InvalidCrystal]:
    """By its number, each crystal with atoms closer than `MIN_DISTANCE`."""
    close = np.flatnonzero(pairs.distances < MIN_DISTANCE)
    numbers = np.searchsorted(starts, pairs.receivers[close], side="right") - 1
    found = {}
    for number in np.unique(numbers).tolist():
        those = close[numbers == number]
        closest = those[np.argmin(pairs.distances[those])]
        first = int(pairs.receivers[closest] - starts[number]) + 1
        second = int(pairs.senders[closest] - starts[number]) + 1
        atoms = (
            f"atom {first} and an image of itself"
            if first == second
            else f"atoms {first} and {second} (counted from 1)"
        )
        reason = f"{atoms} are {pairs.distances[closest]:.2f} Å apart"
        found[number] = InvalidCrystal(crystals[number].id, reason)
    return found


def _reach(pairs: Pairs, n_atoms: int, settings: FeaturiserSettings) -> np.ndarray:
    """``[n_atoms]`` Å: the distance up to which neighbours are edges; infinite for an atom with
    fewer pairs than ``n_neighbours``."""
    starts = np.searchsorted(pairs.receivers, np.arange(n_atoms + 1))
    last = starts[:-1] + settings.n_neighbours - 1
    enough = last < starts[1:]
    reach = np.full(n_atoms, np.inf)
    reach[enough] = pairs.distances[last[enough]] + settings.tie_tolerance
    return reach


def _nearest(pairs: Pairs, reach: np.ndarray, settings: FeaturiserSettings) -> np.ndarray:
    """``[n_pair]`` bool: within the receiver's reach, up to ``n_neighbours`` where ties are cut."""
    keep = pairs.distances <= reach.take(pairs.receivers)
    if settings.ties == "cut":
        first = np.searchsorted(pairs.receivers, pairs.receivers)
        keep &= np.arange(len(first)) - first < settings.n_neighbours
    return keep


def _bonds(pairs: Pairs, reach: np.ndarray) -> np.ndarray:
    """``[n_pair]`` bool: within the reach of either atom. A pair and its reverse have equal
    distances, so both are bonds or neither."""
    return pairs.distances <= np.maximum(reach.take(pairs.receivers), reach.take(pairs.senders))


def _split(pairs: Pairs, kept: np.ndarray, starts: np.ndarray) -> list[Neighbours]:
    """The pairs at the places ``kept``, by crystal, in the precision of a graph."""
    receivers = pairs.receivers.take(kept)
    edges = np.searchsorted(receivers, starts)
    shifts = np.repeat(starts[:-1], np.diff(edges))
    columns = (
        (receivers - shifts).astype(np.int32),
        (pairs.senders.take(kept) - shifts).astype(np.int32),
        pairs.distances.take(kept).astype(np.float32),
        pairs.vectors.take(kept, axis=0).astype(np.float32),
    )
    return [
        Neighbours(*(column[start:stop] for column in columns))
        for start, stop in zip(edges.tolist(), edges[1:].tolist())
    ]
