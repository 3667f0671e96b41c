"""The edges of a crystal graph: each atom's nearest neighbours across periodic images.

Two rules (`FeaturiserSettings.rule`): an atom receives edges from its nearest neighbours, as in
CGCNN (Xie and Grossman 2018); or these bonds, taken both ways, as in ALIGNN (Choudhary and DeCost
2021).
"""

import math
from typing import NamedTuple

import numpy as np
import vesin

from crysgnn_jax.data.crystal import Crystal
from crysgnn_jax.data.settings import FeaturiserSettings
from crysgnn_jax.errors import InvalidCrystal

MIN_DISTANCE = 0.5
"""Å. Atoms closer than this are a broken or disordered structure: the shortest bond, H–H, is
0.74 Å, and the worst relaxed structures of the Materials Project have 0.63 Å."""

MAX_LATTICE_VECTOR = 1000.0
"""Å. Longer lattice vectors are most likely in another unit."""

_CUTOFF_SLACK = 1e-5
"""Å, added to the cutoff: a neighbour exactly at the cutoff counts, whatever the rounding of
coordinates that were once stored in single precision."""

_DECIMALS = 8
"""Distances are rounded to this, far below single precision and far above the noise of double
precision, so that symmetry-equivalent neighbours have equal distances."""

_CROWDING = 1.75
"""The first search sphere would hold this many times the wanted neighbours if the atoms filled
space evenly; 98 % of the crystals of the Materials Project need no second search."""

_GROWTH = 1.4
"""Radius of a search over the radius of the one before."""

_MAX_CELLS_PER_VECTOR = 300
"""vesin divides the cell into at most 10⁵ cells in all, and divides by zero where this leaves
less than one along a short direction; 300² stays below."""


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
    longest = float(np.linalg.norm(crystal.lattice, axis=1).max())
    if longest > MAX_LATTICE_VECTOR:
        raise InvalidCrystal(
            crystal.id, f"a lattice vector is {longest:.4g} Å long; check that its unit is Å"
        )
    bonds = settings.rule == "bonds"
    cutoff = settings.cutoff + _CUTOFF_SLACK
    radius = min(cutoff, _first_radius(crystal, settings.n_neighbours))
    radius = max(radius, longest / _MAX_CELLS_PER_VECTOR)
    if bonds:
        cutoff = math.inf
    while True:
        pairs = _pairs_within(crystal, radius)
        reach = _reach(pairs, len(crystal.species), settings)
        if radius >= cutoff or reach.max() < radius:
            reach = np.minimum(reach, cutoff)
            keep = _bonds(pairs, reach) if bonds else _nearest(pairs, reach, settings)
            return _take(pairs, keep)
        radius = min(cutoff, _GROWTH * radius)


def _first_radius(crystal: Crystal, n_neighbours: int) -> float:
    """Å; radius that holds the neighbours of nearly every atom, from the number density."""
    volume_per_atom = abs(np.linalg.det(crystal.lattice)) / len(crystal.species)
    return float(np.cbrt(_CROWDING * n_neighbours * volume_per_atom * 3 / (4 * math.pi)))


def _pairs_within(crystal: Crystal, radius: float) -> Neighbours:
    """All pairs up to ``radius`` Å, in double precision."""
    search = vesin.NeighborList(cutoff=radius, full_list=True)
    receivers, senders, images, distances, vectors = search.compute(
        crystal.frac_coords @ crystal.lattice, crystal.lattice, True, "ijSdD"
    )
    distances = np.round(distances, _DECIMALS)
    order = np.lexsort((*images.T[::-1], senders, distances, receivers))
    pairs = Neighbours(receivers[order], senders[order], distances[order], vectors[order])
    _refuse_overlap(crystal.id, pairs)
    return pairs


def _refuse_overlap(crystal_id: str, pairs: Neighbours) -> None:
    if len(pairs.distances) == 0:
        return
    closest = int(np.argmin(pairs.distances))
    if pairs.distances[closest] >= MIN_DISTANCE:
        return
    first, second = int(pairs.receivers[closest]) + 1, int(pairs.senders[closest]) + 1
    atoms = (
        f"atom {first} and an image of itself"
        if first == second
        else f"atoms {first} and {second} (counted from 1)"
    )
    raise InvalidCrystal(crystal_id, f"{atoms} are {pairs.distances[closest]:.2f} Å apart")


def _reach(pairs: Neighbours, n_atoms: int, settings: FeaturiserSettings) -> np.ndarray:
    """``[n_atoms]`` Å: the distance up to which neighbours are edges; infinite for an atom with
    fewer pairs than ``n_neighbours``."""
    starts = np.searchsorted(pairs.receivers, np.arange(n_atoms + 1))
    last = starts[:-1] + settings.n_neighbours - 1
    enough = last < starts[1:]
    reach = np.full(n_atoms, np.inf)
    reach[enough] = pairs.distances[last[enough]] + settings.tie_tolerance
    return reach


def _nearest(pairs: Neighbours, reach: np.ndarray, settings: FeaturiserSettings) -> np.ndarray:
    """``[n_pair]`` bool: within the receiver's reach, up to ``n_neighbours`` where ties are cut."""
    keep = pairs.distances <= reach[pairs.receivers]
    if settings.ties == "cut":
        first = np.searchsorted(pairs.receivers, pairs.receivers)
        keep &= np.arange(len(first)) - first < settings.n_neighbours
    return keep


def _bonds(pairs: Neighbours, reach: np.ndarray) -> np.ndarray:
    """``[n_pair]`` bool: within the reach of either atom. A pair and its reverse have equal
    distances, so both are bonds or neither."""
    return pairs.distances <= np.maximum(reach[pairs.receivers], reach[pairs.senders])


def _take(pairs: Neighbours, keep: np.ndarray) -> Neighbours:
    """The pairs to keep, in the precision of a graph."""
    return Neighbours(
        pairs.receivers[keep].astype(np.int32),
        pairs.senders[keep].astype(np.int32),
        pairs.distances[keep].astype(np.float32),
        pairs.vectors[keep].astype(np.float32),
    )
