"""The one static shape that all batches of a run have.

A budget of nodes, edges and graphs is chosen once from the sizes of the crystals; every batch is
packed until the budget is full, so that the compiled step sees one shape and little of it is
padding.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from crysgnn_jax.batches.pairs import count_blocks
from crysgnn_jax.graphs.ragged import Graphs

SAMPLE = 20_000
"""Crystals on which a budget is tried out."""

_QUANTITIES = ("nodes", "edges", "graphs")
"""What every crystal takes of a budget, before the entries of its lists."""

_GRAPHS = _QUANTITIES.index("graphs")


@dataclasses.dataclass(frozen=True)
class Budget:
    """Static shape of a batch, padding included.

    Attributes:
      nodes: of the graphs, at least one of them padding.
      edges: edges.
      graphs: crystals, at least one of them padding.
      extra: list → entries: ``pairs`` and ``blocks`` of pairs, ``triplets``. See `Graphs.list`.
    """

    nodes: int
    edges: int
    graphs: int
    extra: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def shape(self) -> dict[str, int]:
        """Quantity → how much of it a batch has, padding included."""
        return {"nodes": self.nodes, "edges": self.edges, "graphs": self.graphs, **self.extra}

    @property
    def limits(self) -> np.ndarray:
        """What real crystals may use: ``[3 + extra]``, as the columns of `Sizes.table`."""
        return np.array([self.nodes - 1, self.edges, self.graphs - 1, *self.extra.values()])

    def __add__(self, other: "Budget") -> "Budget":
        """Room for the crystals of both."""
        extra = {name: n + other.extra[name] for name, n in self.extra.items()}
        return Budget(
            self.nodes + other.nodes, self.edges + other.edges, self.graphs + other.graphs, extra
        )


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What each crystal takes of a budget.

    Attributes:
      nodes: ``[n]`` nodes of each crystal.
      edges: ``[n]`` edges.
      extra: name → ``[n]``, further quantities to budget.
    """

    nodes: np.ndarray
    edges: np.ndarray
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def table(self) -> np.ndarray:
        """``[n, 3 + extra]``: nodes, edges, one graph, and the extra quantities."""
        ones = np.ones_like(self.nodes)
        return np.stack([self.nodes, self.edges, ones, *self.extra.values()], axis=1)

    def of(self, rows: np.ndarray) -> "Sizes":
        """Those of the crystals ``rows``."""
        extra = {name: values[rows] for name, values in self.extra.items()}
        return Sizes(self.nodes[rows], self.edges[rows], extra)

    @classmethod
    def of_graphs(cls, graphs: Graphs, extra: Iterable[str] = ()) -> "Sizes":
        """Of all crystals of a store, with the lists ``extra`` of their graphs."""
        lengths = {
            name: count_blocks(graphs.n_nodes) if name == "blocks" else graphs.list(name).lengths
            for name in extra
        }
        return cls(graphs.n_nodes, graphs.n_edges, lengths)


def pack(table: np.ndarray, limits: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """Fill batches with crystals in the given order.

    Each batch takes the crystals at the head of the queue as long as they fit; then the first
    ones further back that still fit in the rest, so that one large crystal does not leave a hole.
    The ones passed over stay at the head.

    Args:
      table: ``[n, r]``, what each crystal takes.
      limits: ``[r]``, what a batch has.
      order: row numbers of ``table``.

    Returns:
      Arrays of row numbers, every one of ``order`` in exactly one of them.

    Raises:
      ValueError: a crystal is larger than a batch.
    """
    batches = []
    window = np.empty(0, dtype=order.dtype)
    reach = 2 * int(limits[_GRAPHS])
    position = 0
    while position < len(order) or len(window):
        more = order[position : position + reach - len(window)]
        position += len(more)
        window = np.concatenate([window, more])
        sizes = table[window]
        taken = np.all(np.cumsum(sizes, axis=0) <= limits, axis=1)
        if not taken.any() and not (sizes <= limits).all(axis=1).any():
            raise ValueError(f"crystal {window[0]} takes {sizes[0]}, more than {limits}")
        left = limits - sizes[taken].sum(axis=0)
        while (fits := ~taken & (sizes <= left).all(axis=1)).any():
            first = int(np.argmax(fits))
            taken[first] = True
            left = left - sizes[first]
        batches.append(window[taken])
        window = window[~taken]
    return batches


def choose_budget(
    sizes: Sizes, batch_size: int, *, tight: Sequence[str] = ("nodes", "edges")
) -> Budget:
    """The smallest budget that packs the crystals into ⌈n / batch_size⌉ batches.

    Batches then hold ``batch_size`` crystals on average, more where they are small. The quantities
    named by ``tight``, those that decide what a step costs, are given as little slack as packing
    allows; the others as much as it happens to use, so that they do not decide. Every crystal fits
    into a batch of its own.

    Args:
      sizes: of all crystals that will ever be in a batch: training, validation and test.
      batch_size: crystals of an average batch.
      tight: of ``nodes``, ``edges`` and the names of ``sizes.extra``. The fewer, the tighter.
    """
    names = (*_QUANTITIES, *sizes.extra)
    is_tight = np.isin(names, tight)
    table = sizes.table
    largest = table.max(axis=0)
    generator = np.random.default_rng(0)
    if len(table) > SAMPLE:
        table = table[generator.choice(len(table), SAMPLE, replace=False)]
    n_batches = -(-len(table) // batch_size)
    mean = table.sum(axis=0) / n_batches
    unlimited = np.full(table.shape[1], np.iinfo(np.int64).max // 2)
    unlimited[_GRAPHS] = 4 * batch_size
    orders = [generator.permutation(len(table)) for _ in range(3)]
    for slack in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0):
        limits = unlimited.copy()
        limits[is_tight] = np.maximum(largest, np.ceil(mean * (1 + slack)))[is_tight]
        packings = [pack(table, limits, order) for order in orders]
        if max(map(len, packings)) <= n_batches:
            break
    used = np.array([table[rows].sum(axis=0) for packing in packings for rows in packing])
    limits[~is_tight] = np.maximum(largest, np.ceil(used.max(axis=0) * 1.05))[~is_tight]
    round_up = lambda value, multiple: -(-int(value) // multiple) * multiple
    found = dict(zip(names, map(int, limits)))
    return Budget(
        nodes=round_up(found["nodes"] + 1, 8),
        edges=max(round_up(found["edges"], 64), 64),
        graphs=found["graphs"] + 1,
        extra={name: found[name] for name in sizes.extra},
    )
