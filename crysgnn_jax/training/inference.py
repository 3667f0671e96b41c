"""Running a compiled function over many crystals, and putting the results back in order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from crysgnn_jax.batches.budget import Budget, Sizes, choose_budget, pack
from crysgnn_jax.batches.loader import Batcher, group, prefetch
from crysgnn_jax.graphs.ragged import Graphs
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.protocol import Student
from crysgnn_jax.training.devices import Devices


class Layout(NamedTuple):
    """How a store's crystals become batches for a module.

    Attributes:
      module: the module, laid out for batches of this budget.
      budget: the static shape of a batch.
      sizes: ``[len(store), r]``, the table of `batches.Sizes`.
      graphs: of the store, those that the module takes.
    """

    module: nn.Module
    budget: Budget
    sizes: np.ndarray
    graphs: Graphs


def layout(
    student: Student, module: nn.Module, store: GraphStore, rows: np.ndarray, batch_size: int
) -> Layout:
    """Budget batches of the crystals ``rows``, and tell the module what it must know of them."""
    extra = student.extra_sizes(store) if student.extra_sizes else {}
    graphs = store.reduced if student.reduced else store.full
    sizes = Sizes(graphs.n_nodes, graphs.n_edges, extra)
    # What a module lays out besides, such as triplets, is most of its cost.
    tight = tuple(extra) or ("nodes", "edges")
    budget = choose_budget(sizes.of(rows), batch_size, tight=tight)
    return Layout(module.clone(**budget.extra), budget, sizes.table, graphs)


class Evaluator:
    """Applies a function to batches of a store's crystals.

    Args:
      devices: where to run.
      function: pure, (variables, batch) → outputs; compiled once.
      batcher: makes the batches.
      sizes: ``[len(store), r]``, the table of `batches.Sizes`.
    """

    def __init__(self, devices: Devices, function: Callable, batcher: Batcher, sizes: np.ndarray):
        self._devices = devices
        self._function = devices.compile(function)
        self._batcher = batcher
        self._sizes = sizes

    def batches(
        self, variables: Any, rows: np.ndarray
    ) -> Iterator[tuple[Sequence[np.ndarray], Any]]:
        """Outputs for the crystals ``rows``, a step at a time.

        Args:
          variables: replicated over the devices.
          rows: rows of the store.

        Yields:
          The rows of each device's batch, and the outputs ``[n_devices, …]`` on the devices.
        """
        plan = group(pack(self._sizes, self._batcher.budget.limits, rows), len(self._devices))
        for step_rows, batch in prefetch(self._batcher, plan, self._devices.put):
            yield step_rows, self._function(variables, batch)

    def per_crystal(self, variables: Any, rows: np.ndarray) -> np.ndarray:
        """One number a crystal, for a function that returns ``[n_graph]``: ``[len(rows)]``, in
        the order of ``rows``."""
        values = np.full(len(self._batcher.store), np.nan)
        for step_rows, outputs in self.batches(variables, rows):
            for batch_rows, output in zip(step_rows, np.asarray(outputs)):
                values[batch_rows] = output[: len(batch_rows)]
        return values[rows]

    def means(self, variables: Any, rows: np.ndarray) -> dict[str, float]:
        """Mean over the crystals of metrics that the function returns for a whole step."""
        sums: dict[str, float] = {}
        total = 0
        for step_rows, metrics in self.batches(variables, rows):
            n = sum(map(len, step_rows))
            total += n
            for name, value in self._devices.first(metrics).items():
                sums[name] = sums.get(name, 0.0) + n * float(value)
        return {name: value / total for name, value in sums.items()}
