"""Graph store → padded batches of one static shape.

A budget of nodes, edges and graphs is chosen once from the sizes of the crystals; every batch is
packed until the budget is full, so that the compiled step sees one shape and little of it is
padding. Batches are NumPy arrays.
"""

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jraph
import numpy as np

from crysgnn_jax.data.graphs import Graphs, ragged
from crysgnn_jax.data.store import GraphStore
from crysgnn_jax.data.symmetry import crystal_system

SAMPLE = 20_000
"""Crystals on which a budget is tried out."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """Static shape of a batch, padding included.

    Attributes:
      nodes: of the graphs, at least one of them padding.
      edges: edges.
      graphs: crystals, at least one of them padding.
      extra: other quantities that a model lays out in static shapes, such as pair blocks.
    """

    nodes: int
    edges: int
    graphs: int
    extra: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def limits(self) -> np.ndarray:
        """What real crystals may use: ``[3 + extra]``, as the columns of `Sizes.table`."""
        return np.array([self.nodes - 1, self.edges, self.graphs - 1, *self.extra.values()])


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
    reach = 2 * int(limits[2])
    position = 0
    while position < len(order) or len(window):
        more = order[position : position + reach - len(window)]
        position += len(more)
        window = np.concatenate([window, more])
        sizes = table[window]
        taken = (np.cumsum(sizes, axis=0) <= limits).all(axis=1)
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
    names = ("nodes", "edges", "graphs", *sizes.extra)
    is_tight = np.isin(names, tight)
    table = sizes.table
    largest = table.max(axis=0)
    generator = np.random.default_rng(0)
    if len(table) > SAMPLE:
        table = table[generator.choice(len(table), SAMPLE, replace=False)]
    n_batches = -(-len(table) // batch_size)
    mean = table.sum(axis=0) / n_batches
    unlimited = np.full(table.shape[1], np.iinfo(np.int64).max // 2)
    unlimited[2] = 4 * batch_size
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
    return Budget(
        nodes=round_up(limits[0] + 1, 8),
        edges=max(round_up(limits[1], 64), 64),
        graphs=int(limits[2]) + 1,
        extra={name: int(n) for name, n in zip(sizes.extra, limits[3:])},
    )


def _padded(values: np.ndarray, length: int, fill=0) -> np.ndarray:
    out = np.full((length, *values.shape[1:]), fill, values.dtype)
    out[: len(values)] = values
    return out


class Batcher:
    """Assembles padded batches from a store.

    Args:
      store: the crystals.
      budget: the static shape.
      graphs: of the store, ``store.full`` or ``store.reduced``; the full ones where not given.
      label: ``[len(store)]`` targets in the property's own unit, NaN = missing; optional.
      node_columns: name → ``[all atoms of the store, d]``, further columns for ``nodes``.
      edge_columns: those of the graphs' ``edges`` that go to the batch.

    Those of the graphs' ``lists`` that the budget names among its extra quantities go to the batch:
    of reduced graphs, ``n_pair`` and ``n_triplet``.
    """

    def __init__(
        self,
        store: GraphStore,
        budget: Budget,
        *,
        graphs: Graphs | None = None,
        label: np.ndarray | None = None,
        node_columns: Mapping[str, np.ndarray] | None = None,
        edge_columns: Sequence[str] = ("distances",),
    ):
        self.store = store
        self.graphs = graphs = store.full if graphs is None else graphs
        self.budget = budget
        self._label = np.full(len(store), np.nan) if label is None else label
        self._node_columns = dict(node_columns or {})
        self._edge_columns = {name: graphs.edges[name] for name in edge_columns}
        self._lists = {name: graphs.lists[name] for name in budget.extra if name in graphs.lists}

    def atoms(self, rows: np.ndarray) -> np.ndarray:
        """Where the atoms of the crystals ``rows`` stand in the store, in the batch's order."""
        return ragged(self.store.node_offsets[rows], self.store.n_nodes[rows])

    def __call__(self, rows: np.ndarray) -> jraph.GraphsTuple:
        """The crystals ``rows`` of the store as one batch.

        ``nodes``: ``species`` [n_node] int32 and the further columns; ``edges``, float32, Å: the
        columns asked for of ``distances`` [n_edge] and ``vectors`` [n_edge, 3], from the receiver
        to the image of the sender; of reduced graphs, both have ``multiplicity``, float32, 0 for
        padding. ``globals``, [n_graph]: ``row`` in the store (−1 for padding), ``labels`` and
        ``label_mask`` [n_graph, 1], ``space_group``, ``crystal_system``; and, for the whole batch,
        the columns of its lists, see `reduction.Reduction`: multiplicities are float32, 0 for
        padding. Receivers are the centre atoms, ascending; senders their neighbours.
        """
        graphs, budget = self.graphs, self.budget
        n_node = graphs.n_nodes[rows].astype(np.int32)
        n_edge = graphs.n_edges[rows].astype(np.int32)
        node_rows = ragged(graphs.node_offsets[rows], n_node)
        edge_rows = ragged(graphs.edge_offsets[rows], n_edge)
        n_real = len(node_rows)
        first_node, first_edge = ((np.cumsum(n) - n).astype(np.int32) for n in (n_node, n_edge))
        receivers = np.repeat(np.arange(n_real, dtype=np.int32), graphs.degree[node_rows])
        senders = graphs.senders[edge_rows] + np.repeat(first_node, n_edge)
        space_group = self.store.space_group[rows].astype(np.int32)
        label = self._label[rows]
        known = np.isfinite(label)
        per_graph = {
            "space_group": space_group,
            "crystal_system": crystal_system(space_group).astype(np.int32),
            "labels": np.where(known, label, 0.0).astype(np.float32)[:, None],
            "label_mask": known.astype(np.float32)[:, None],
        }
        node_columns = {
            "species": graphs.species[node_rows].astype(np.int32),
            **graphs.node_columns(node_rows),
            **{
                name: graphs.of_nodes(rows, column[self.atoms(rows)])
                for name, column in self._node_columns.items()
            },
        }
        edge_columns = {
            **graphs.edge_columns(edge_rows),
            **{name: column[edge_rows] for name, column in self._edge_columns.items()},
        }
        padding_node = n_real
        counts = lambda real, whole: _padded(
            np.append(real, whole - real.sum()).astype(np.int32), budget.graphs
        )
        return jraph.GraphsTuple(
            nodes={name: _padded(x, budget.nodes) for name, x in node_columns.items()},
            edges={name: _padded(x, budget.edges) for name, x in edge_columns.items()},
            receivers=_padded(receivers, budget.edges, padding_node),
            senders=_padded(senders, budget.edges, padding_node),
            globals={
                "row": _padded(np.asarray(rows, dtype=np.int32), budget.graphs, -1),
                **{name: _padded(values, budget.graphs) for name, values in per_graph.items()},
                **self._list_columns(rows, first_node, first_edge),
            },
            n_node=counts(n_node, budget.nodes),
            n_edge=counts(n_edge, budget.edges),
        )

    def _list_columns(self, rows, first_node, first_edge) -> dict[str, np.ndarray]:
        """As many entries each as the budget has of the list."""
        out = {}
        for name, ragged_list in self._lists.items():
            for column, values in ragged_list.of_batch(rows, first_node, first_edge).items():
                if column.endswith("_multiplicity"):
                    values = values.astype(np.float32)
                # Padding ends at the last node or edge, so that what ascends goes on doing so.
                fill = 0
                if column in ragged_list.of_nodes:
                    fill = self.budget.nodes - 1
                elif column in ragged_list.of_edges:
                    fill = self.budget.edges - 1
                out[column] = _padded(values, self.budget.extra[name], fill)
        return out


def stack(graphs: Sequence[jraph.GraphsTuple]) -> jraph.GraphsTuple:
    """One batch a device, stacked along a new leading axis."""
    both = lambda *xs: {k: np.stack([x[k] for x in xs]) for k in xs[0]}
    return jraph.GraphsTuple(
        *(both(*field) if isinstance(field[0], dict) else np.stack(field) for field in zip(*graphs))
    )


def group(batches: Sequence[np.ndarray], n_devices: int) -> list[list[np.ndarray]]:
    """Batches → steps of one batch a device; the last step is filled up with empty batches."""
    empty = np.empty(0, dtype=np.int64)
    padded = [*batches, *[empty] * (-len(batches) % n_devices)]
    return [padded[i : i + n_devices] for i in range(0, len(padded), n_devices)]


def prefetch(
    batcher: Batcher,
    steps: Iterable[Sequence[np.ndarray]],
    put: Callable[[jraph.GraphsTuple], Any] = lambda graph: graph,
    *,
    depth: int = 3,
) -> Iterator[tuple[Sequence[np.ndarray], Any]]:
    """Assemble batches, and move them to the devices, in a background thread.

    Args:
      batcher: makes the batches.
      steps: the rows of each device's batch, step by step.
      put: from the stacked batches ``[n_devices, …]`` to what is yielded.
      depth: steps ahead.

    Yields:
      The rows of each device's batch, and what ``put`` made of the batches.
    """
    done = object()
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def hand_over(item) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        try:
            for rows in steps:
                if not hand_over((rows, put(stack([batcher(r) for r in rows])))):
                    return
            hand_over(done)
        except BaseException as error:  # handed to the consumer, which raises it
            hand_over(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not done:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
