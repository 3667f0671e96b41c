"""Graph store → padded batches, assembled ahead of the step that takes them."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jraph
import numpy as np

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.graphs.ragged import Graphs, ragged
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.graphs.symmetry import crystal_system


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
