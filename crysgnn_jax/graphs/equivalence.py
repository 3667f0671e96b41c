"""Which atoms of a crystal graph, and which edges, a network cannot tell apart.

By colour refinement (Weisfeiler and Leman 1968): atoms start with their element as colour, and two
of them keep the same colour as long as they have as many neighbours of each colour at each
distance. What is left is the coarsest partition whose classes a network of messages gives equal
vectors, layer by layer. Symmetry makes nearly all of it, but it is read off the graph: it also
holds where the space group was missed, or neighbours were cut off.

Where a network sees angles too, as ALIGNN does, edges have vectors of their own, and are refined
with the atoms, by the angles to the edges before them.
"""

from typing import NamedTuple

import numpy as np


class FlatGraphs(NamedTuple):
    """The graphs of some crystals as one: N atoms and E edges, counted through.

    Attributes:
      crystal: ``[N]``, the crystal of each atom, ascending.
      edge_crystal: ``[E]``, that of each edge.
      receivers: ``[E]``, ascending.
      senders: ``[E]``
    """

    crystal: np.ndarray
    edge_crystal: np.ndarray
    receivers: np.ndarray
    senders: np.ndarray


class FlatTriplets(NamedTuple):
    """Pairs of edges of which the second leaves the atom that the first arrives at.

    Attributes:
      first: ``[T]``, an edge each.
      second: ``[T]``, ascending.
      shells: ``[T]``, of the angle between them, see `shells`.
    """

    first: np.ndarray
    second: np.ndarray
    shells: np.ndarray


_MAX_WIDTH = 10
"""Tolerances. Groups of values without a gap, which are wider in crystals without symmetry, are cut
there."""


def shells(values: np.ndarray, crystal: np.ndarray, tolerance: float) -> np.ndarray:
    """Number equal values: ``[n]``, counted within each crystal, the least first.

    A number ends at a gap of the tolerance, so that rounding does not part what is equal, or after
    `_MAX_WIDTH` tolerances.

    Args:
      values: ``[n]``, not negative.
      crystal: ``[n]``, the crystal of each.
      tolerance: in the values' unit.
    """
    # One key, since a sort by two takes three times as long; it is rounded by 1e-12 or so,
    # far below the tolerance. Stable, since that kind makes use of runs, and the distances of an
    # atom ascend.
    order = np.argsort(crystal * (1.0 + values.max(initial=0.0)) + values, kind="stable")
    values, crystal = values[order], crystal[order]
    differs = lambda x: np.append(True, x[1:] != x[:-1])[: len(order)]
    first = differs(crystal)
    gap = first | np.append(True, np.diff(values) > tolerance)[: len(order)]
    # The key's rounding may have put the first of a group behind others that are as good as equal.
    beyond = np.maximum(values - _at_last(gap, values), 0.0)
    cell = np.floor(beyond / (_MAX_WIDTH * tolerance))
    number = np.cumsum(gap | differs(cell))
    out = np.empty(len(order), np.int64)
    out[order] = number - _at_last(first, number)
    return out


def _at_last(marked: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value at the last marked place up to each; the first place is marked."""
    places = np.flatnonzero(marked)
    return np.repeat(values[places], np.diff(np.append(places, len(values))))


def atom_colours(species: np.ndarray, graphs: FlatGraphs, distances: np.ndarray) -> np.ndarray:
    """Refined by neighbours.

    Colours are hashes of 64 bits: two different ones of a million are equal by chance once in 10⁷
    times.

    Args:
      species: ``[N]``, atomic numbers.
      graphs: the graphs.
      distances: ``[E]``, shells of the edges.

    Returns:
      ``[N]`` uint64, equal for atoms that cannot be told apart.
    """
    colours = _first_colours(species, graphs)
    edge = _mix(distances.astype(np.uint64))
    n_colours = 0
    while (n := _count(colours)) > n_colours:
        n_colours = n
        messages = _mix(edge + colours[graphs.senders])
        colours = _mix(colours + _sums(messages, graphs.receivers, len(species)))
    return colours


def atom_and_edge_colours(
    species: np.ndarray, graphs: FlatGraphs, distances: np.ndarray, triplets: FlatTriplets
) -> tuple[np.ndarray, np.ndarray]:
    """Refined by neighbours and angles.

    Args:
      species: ``[N]``, atomic numbers.
      graphs: the graphs.
      distances: ``[E]``, shells of the edges.
      triplets: of the edges.

    Returns:
      ``[N]`` and ``[E]`` uint64, equal for atoms, and for edges, that cannot be told apart.
    """
    atoms = _first_colours(species, graphs)
    edges = _mix(distances.astype(np.uint64))
    angle = _mix(triplets.shells.astype(np.uint64))
    n_colours = 0
    while (n := _count(atoms) + _count(edges)) > n_colours:
        n_colours = n
        ends = _mix(_mix(atoms)[graphs.senders] + atoms[graphs.receivers])
        before = _sums(_mix(angle + edges[triplets.first]), triplets.second, len(edges))
        edges = _mix(edges + ends + before)
        atoms = _mix(atoms + _sums(edges, graphs.receivers, len(atoms)))
    return atoms, edges


def _first_colours(species: np.ndarray, graphs: FlatGraphs) -> np.ndarray:
    """Element and crystal: atoms of two crystals are never taken together."""
    return _mix(_mix(graphs.crystal.astype(np.uint64)) + species.astype(np.uint64))


def _count(colours: np.ndarray) -> int:
    # A sort, for np.unique has to hash them.
    colours = np.sort(colours)
    return 1 + int(np.count_nonzero(colours[1:] != colours[:-1]))


def _sums(values: np.ndarray, segments: np.ndarray, n: int) -> np.ndarray:
    """``[n]`` uint64: sums over segments, whose numbers ascend. Whatever the order of the values, a
    sum is the same; it wraps around, as a hash may."""
    ends = np.cumsum(np.bincount(segments, minlength=n))
    return np.diff(np.append(np.uint64(0), np.cumsum(values))[np.append(0, ends)])


def _mix(values: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64 numbers (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
