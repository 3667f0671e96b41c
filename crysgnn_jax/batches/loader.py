"""Graph store → padded batches, assembled ahead of the step that takes them. NumPy throughout."""

import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jraph
import numpy as np

from crysgnn_jax.batches.budget import Budget, Sizes, choose_budget, pack
from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.batches.pairs import count_blocks
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.ragged import Graphs, ragged
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.graphs.symmetry import crystal_system


def _padded(values: np.ndarray, length: int, fill=0) -> np.ndarray:
    out = np.full((length, *values.shape[1:]), fill, values.dtype)
    out[: len(values)] = values
    return out


NodeColumn = np.ndarray | Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of nodes: an array ``[all atoms of the store, d]``; or what makes of the row in the store of each
node's crystal, ``[n_node]``, and of its element, ``[n_node]``, the column ``[n_node, d]``, float32,
which spares a large store to look at every atom."""


class Batcher:
    """Assembles padded batches from a store.

    Args:
      store: the crystals.
      budget: the static shape.
      graphs: of the store, ``store.full`` or ``store.reduced``; the full ones where not given.
      label: ``[len(store)]`` targets in the property's own unit, NaN = missing; optional.
      label_weight: ``[len(store)]`` how much each target counts; 1 where not given.
      node_columns: further columns for ``nodes``, by name.
      edge_columns: those of the graphs' ``edges`` that go to the batch.

    The lists that the budget names among its extra quantities go to the batch, see `Graphs.list`.
    """

    def __init__(
        self,
        store: GraphStore,
        budget: Budget,
        *,
        graphs: Graphs | None = None,
        label: np.ndarray | None = None,
        label_weight: np.ndarray | None = None,
        node_columns: Mapping[str, NodeColumn] | None = None,
        edge_columns: Sequence[str] = ("distances",),
    ):
        self.store = store
        self.graphs = graphs = store.full if graphs is None else graphs
        self.budget = budget
        self._label = np.full(len(store), np.nan) if label is None else label
        self._label_weight = np.ones(len(store)) if label_weight is None else label_weight
        self._node_columns = dict(node_columns or {})
        self._edge_columns = {name: graphs.edges[name] for name in edge_columns}
        self._lists = {name: graphs.list(name) for name in budget.extra if name != "blocks"}

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """``[len(store), r]``: what each crystal takes of the budget, `Sizes.table`."""
        return Sizes.of_graphs(self.graphs, self.budget.extra).table

    def atoms(self, rows: np.ndarray) -> np.ndarray:
        """Where the atoms of the crystals ``rows`` stand in the store, in the batch's order."""
        return ragged(self.store.node_offsets[rows], self.store.n_nodes[rows])

    def __call__(self, rows: np.ndarray) -> jraph.GraphsTuple:
        """The crystals ``rows`` of the store as one batch.

        ``nodes``: ``species`` [n_node] int32, ``count``, float32, the atoms that each stands for (0
        for padding), and the further columns. ``edges``: the columns asked for of ``distances``
        [n_edge] and ``vectors`` [n_edge, 3], float32, Å, from the receiver to the image of the
        sender; ``count``, float32; and by name the lists, dicts of columns of their own length:
        ``pairs``, ``triplets``, and ``blocks``, which has the crystal of each block of pairs.
        ``globals``, [n_graph]: ``row`` in the store (−1 for padding), ``labels`` and
        ``label_mask``, how much each counts, [n_graph, 1], ``space_group``, ``crystal_system``.
        Receivers are the centre atoms, ascending; senders their neighbours. `views.Batch` reads
        all of it.

        Raises:
          UserError: the crystals do not fit into the budget.
        """
        graphs, budget = self.graphs, self.budget
        n_node = graphs.n_nodes[rows].astype(np.int32)
        n_edge = graphs.n_edges[rows].astype(np.int32)
        node_rows = ragged(graphs.node_offsets[rows], n_node)
        edge_rows = ragged(graphs.edge_offsets[rows], n_edge)
        n_real = len(node_rows)
        taken = (n_real, len(edge_rows), len(rows))
        for name, n, most in zip(("nodes", "edges", "graphs"), taken, budget.limits.tolist()):
            if n > most:
                raise UserError(
                    f"{len(rows)} crystals take {n} {name}; the budget holds {most} beside padding"
                )
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
            "label_mask": (known * self._label_weight[rows]).astype(np.float32)[:, None],
        }
        species = graphs.species[node_rows].astype(np.int32)
        node_columns = {
            "species": species,
            "count": graphs.node_counts[node_rows].astype(np.float32),
            **{
                name: graphs.of_nodes(rows, column[self.atoms(rows)])
                if isinstance(column, np.ndarray)
                else column(np.repeat(rows, n_node), species)
                for name, column in self._node_columns.items()
            },
        }
        edge_columns = {
            "count": graphs.edge_counts[edge_rows].astype(np.float32),
            **{name: column[edge_rows] for name, column in self._edge_columns.items()},
        }
        padding_node = n_real
        counts = lambda real, whole: _padded(
            np.append(real, whole - real.sum()).astype(np.int32), budget.graphs
        )
        return jraph.GraphsTuple(
            nodes={name: _padded(x, budget.nodes) for name, x in node_columns.items()},
            edges={
                **{name: _padded(x, budget.edges) for name, x in edge_columns.items()},
                **self._list_columns(rows, first_node, first_edge),
            },
            receivers=_padded(receivers, budget.edges, padding_node),
            senders=_padded(senders, budget.edges, padding_node),
            globals={
                "row": _padded(np.asarray(rows, dtype=np.int32), budget.graphs, -1),
                **{name: _padded(values, budget.graphs) for name, values in per_graph.items()},
            },
            n_node=counts(n_node, budget.nodes),
            n_edge=counts(n_edge, budget.edges),
        )

    def _list_columns(
        self, rows: np.ndarray, first_node: np.ndarray, first_edge: np.ndarray
    ) -> dict[str, dict[str, np.ndarray]]:
        """Name → columns, with as many entries each as the budget has of the list."""
        budget = self.budget
        out = {}
        for name, entries in self._lists.items():
            # Padding ends at the last node or edge, so that what ascends goes on doing so.
            fill = dict.fromkeys(entries.of_nodes, budget.nodes - 1)
            fill |= dict.fromkeys(entries.of_edges, budget.edges - 1)
            columns = entries.of_batch(rows, first_node, first_edge)
            columns["count"] = columns["count"].astype(np.float32)
            out[name] = {
                column: _padded(values, budget.extra[name], fill.get(column, 0))
                for column, values in columns.items()
            }
        if "blocks" in budget.extra:
            n_blocks = count_blocks(self.graphs.n_nodes[rows])
            crystals = np.repeat(np.arange(len(rows), dtype=np.int32), n_blocks)
            last = budget.graphs - 1  # padding, which has no pairs
            out["blocks"] = {"crystals": _padded(crystals, budget.extra["blocks"], last)}
        return out


def lay_out(
    store: GraphStore,
    rows: np.ndarray,
    needs: Needs,
    batch_size: int,
    *,
    label: np.ndarray | None = None,
    label_weight: np.ndarray | None = None,
    node_columns: Mapping[str, NodeColumn] | None = None,
    beside: tuple[np.ndarray, int] | None = None,
) -> tuple[Batcher, Budget]:
    """Batches for the crystals ``rows``, in a shape that suits what a network needs of them.

    Args:
      store: the crystals.
      rows: all that will ever be in a batch.
      needs: of the network.
      batch_size: crystals of an average batch.
      label: as of `Batcher`, and ``label_weight`` and ``node_columns`` likewise.
      beside: further crystals, and how many of them an average batch is to have room for as well.

    Returns:
      What makes the batches, and the budget of ``rows`` alone, which is the batches' own without
      ``beside``.
    """
    graphs = store.reduced if needs.reduced else store.full
    sizes = Sizes.of_graphs(graphs, needs.budgeted)
    own = choose_budget(sizes.of(rows), batch_size, tight=needs.tight)
    budget = own
    if beside is not None:
        more, n_more = beside
        budget = own + choose_budget(sizes.of(more), n_more, tight=needs.tight)
    batcher = Batcher(
        store,
        budget,
        graphs=graphs,
        label=label,
        label_weight=label_weight,
        node_columns=node_columns,
        edge_columns=needs.edges,
    )
    return batcher, own


def stack(graphs: Sequence[jraph.GraphsTuple]) -> jraph.GraphsTuple:
    """One batch a device, stacked along a new leading axis."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *graphs)


class DeviceGroup(Protocol):
    """What a loader asks of the devices: how many batches they take in a step, which of them are
    this process's, and to take a stack of these."""

    def __len__(self) -> int: ...

    def own(self, step: Sequence[np.ndarray]) -> list[np.ndarray]: ...

    def put(self, stacked: jraph.GraphsTuple) -> jraph.GraphsTuple: ...


class Loader:
    """The steps that crystals make up, and their batches on the devices, ahead of time.

    Args:
      batcher: makes the batches.
      devices: each takes a batch of its own, or several one after the other.
      share: the part of a batch that crystals are packed into; the whole where not given.
      beside: further crystals, rows of the store, that fill the rest of each batch.
    """

    def __init__(
        self,
        batcher: Batcher,
        devices: DeviceGroup,
        *,
        share: Budget | None = None,
        beside: np.ndarray | None = None,
    ):
        self.batcher = batcher
        self._devices = devices
        self._limits = (share or batcher.budget).limits
        self._beside = beside

    def steps(self, rows: np.ndarray) -> list[list[np.ndarray]]:
        """Pack the crystals ``rows``, in about this order, into steps of as many batches as the
        devices take."""
        return group(pack(self.batcher.sizes, self._limits, rows), len(self._devices))

    def epoch(self, rows: np.ndarray, key: Sequence[int]) -> list[list[np.ndarray]]:
        """The steps of an epoch: the crystals ``rows`` in a random order, a function of ``key``;
        beside each batch of them, one of the further crystals, in a random order too, which start
        over where they run out."""
        generator = np.random.default_rng(key)
        steps = self.steps(generator.permutation(rows))
        if self._beside is None:
            return steps
        limits = self.batcher.budget.limits - self._limits
        more: Iterator[np.ndarray] = iter(())
        for step in steps:
            for device, batch in enumerate(step):
                if (found := next(more, None)) is None:
                    order = generator.permutation(self._beside)
                    more = iter(pack(self.batcher.sizes, limits, order))
                    found = next(more)
                step[device] = np.concatenate([batch, found])
        return steps

    def load(
        self, steps: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[tuple[Sequence[np.ndarray], jraph.GraphsTuple]]:
        """The rows of each step, and this process's batches of it on its devices, made in the
        background."""
        return prefetch(self.batcher, steps, self._devices.put, own=self._devices.own)

    def padding(self, steps: Sequence[Sequence[np.ndarray]]) -> dict[str, float]:
        """Fraction of each quantity in the batches of these steps that is padding."""
        used = sum(self.batcher.sizes[rows].sum(axis=0) for step in steps for rows in step)
        whole = len(steps) * len(self._devices)
        return {
            f"padding_{name}": round(1.0 - float(n) / (whole * size), 4)
            for (name, size), n in zip(self.batcher.budget.shape.items(), used)
        }


EMPTY = np.empty(0, dtype=np.int64)
"""The rows of a batch of padding alone."""


def group(batches: Sequence[np.ndarray], n: int) -> list[list[np.ndarray]]:
    """Batches → steps of ``n`` batches; the last step is filled up with empty batches."""
    padded = [*batches, *[EMPTY] * (-len(batches) % n)]
    return [padded[i : i + n] for i in range(0, len(padded), n)]


def prefetch(
    batcher: Batcher,
    steps: Iterable[Sequence[np.ndarray]],
    put: Callable[[jraph.GraphsTuple], Any] = lambda graph: graph,
    *,
    own: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]] = lambda step: step,
    depth: int = 3,
) -> Iterator[tuple[Sequence[np.ndarray], Any]]:
    """Assemble batches, and move them to the devices, in a background thread.

    Args:
      batcher: makes the batches.
      steps: the rows of each batch, step by step.
      put: from the stacked batches ``[n_batches, …]`` to what is yielded.
      own: which of a step's batches are made here.
      depth: steps ahead.

    Yields:
      The rows of each batch of a step, and what ``put`` made of those that are made here.
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
                if not hand_over((rows, put(stack([batcher(r) for r in own(rows)])))):
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
