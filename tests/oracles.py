"""The lists that batches carry, of graphs made by hand: from their definitions, in NumPy."""

import numpy as np

from crysgnn_jax.batches.pairs import TILE


def padded(values, more, fill=0):
    """``[n, …]`` → ``[n + more, …]``."""
    values = np.asarray(values)
    return np.concatenate([values, np.full((more, *values.shape[1:]), fill, values.dtype)])


def counted(n, more):
    """Counts of ``n`` rows that stand for themselves, and of padding: float32."""
    return padded(np.ones(n, np.float32), more)


def triplets_of(senders, receivers, vectors):
    """All pairs of different edges, the second leaving where the first arrives: (first, second,
    cosine of the angle there), by second edge.

    Args:
      senders: ``[n_edge]``, of one or several crystals, and no padding.
      receivers: ``[n_edge]``
      vectors: ``[n_edge, 3]``, from the receiver to the image of the sender.
    """
    unit = np.asarray(vectors, float)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    found = []
    for second, atom in enumerate(senders):
        for first in np.flatnonzero(np.asarray(receivers) == atom):
            if first != second:
                # The atom sees the first edge along its vector, the second against it.
                found.append((int(first), second, float(-unit[first] @ unit[second])))
    return found


def with_triplets(graph, triplets, more=0):
    """The batch with triplets (first, second, cosine), and ``more`` of padding."""
    first, second, cosines = np.array(triplets, float).reshape(-1, 3).T
    last_edge = len(graph.senders) - 1
    columns = {
        "senders": padded(first.astype(np.int32), more, last_edge),
        "receivers": padded(second.astype(np.int32), more, last_edge),
        "cosines": padded(cosines.astype(np.float32), more),
        "count": counted(len(first), more),
    }
    return graph._replace(edges={**graph.edges, "triplets": columns})


def edges_between(graph):
    """``[n_node, n_node]``: how many edges lead from the second atom to the first."""
    counts = np.zeros((len(graph.nodes["species"]),) * 2, np.int32)
    real = graph.edges["count"] > 0
    np.add.at(counts, (graph.receivers[real], graph.senders[real]), 1)
    return counts


def with_pairs(graph, more_pairs=5, more_blocks=3):
    """The batch of whole graphs with its pairs of atoms and the blocks for them, and so many of
    padding."""
    n_node, n_graph = len(graph.nodes["species"]), len(graph.n_node)
    between = np.minimum(edges_between(graph), 5)  # which stands for more
    first, second = np.nonzero(between)
    crystals = []
    for crystal, (n, end) in enumerate(zip(graph.n_node, np.cumsum(graph.n_node))):
        if n and graph.nodes["count"][end - 1]:
            crystals += [crystal] * int(np.ceil(n / TILE)) ** 2
    pairs = {
        "receivers": padded(first.astype(np.int32), more_pairs, n_node - 1),
        "senders": padded(second.astype(np.int32), more_pairs, n_node - 1),
        "n_edges": padded(between[first, second], more_pairs),
        "count": counted(len(first), more_pairs),
    }
    blocks = {"crystals": padded(np.array(crystals, np.int32), more_blocks, n_graph - 1)}
    return graph._replace(edges={**graph.edges, "pairs": pairs, "blocks": blocks})
