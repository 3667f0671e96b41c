"""Running a compiled function over many crystals, and putting the results back in order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from crysgnn_jax import stopping
from crysgnn_jax.batches.loader import Loader
from crysgnn_jax.training.devices import Devices


class Evaluator:
    """Applies a function to batches of a store's crystals.

    Args:
      devices: where to run.
      function: pure, (variables, batch) → outputs; compiled once.
      loader: makes the batches.
    """

    def __init__(self, devices: Devices, function: Callable, loader: Loader):
        self._devices = devices
        self._function = devices.compile(function)
        self._loader = loader

    def batches(
        self, variables: Any, rows: np.ndarray
    ) -> Iterator[tuple[Sequence[np.ndarray], Any]]:
        """Outputs for the crystals ``rows``, a step at a time.

        Args:
          variables: replicated over the devices.
          rows: rows of the store.

        Yields:
          The rows of each device's batch, and the outputs ``[n_devices, …]`` on the devices.

        Raises:
          Stopped: a signal came while something is to be saved, see `stopping`.
        """
        for step_rows, batch in self._loader.load(self._loader.steps(rows)):
            stopping.check()
            yield step_rows, self._function(variables, batch)

    def per_crystal(self, variables: Any, rows: np.ndarray) -> np.ndarray:
        """One number a crystal, for a function that returns ``[n_graph]``: ``[len(rows)]``, in
        the order of ``rows``."""
        values = np.full(len(self._loader.batcher.store), np.nan)
        for step_rows, outputs in self.batches(variables, rows):
            for batch_rows, output in zip(step_rows, np.asarray(outputs)):
                values[batch_rows] = output[: len(batch_rows)]
        return values[rows]

    def means(self, variables: Any, rows: np.ndarray) -> dict[str, Any]:
        """Mean over the crystals of metrics that the function returns for a whole step: floats,
        and arrays where they are."""
        sums: dict[str, Any] = {}
        total = 0
        for step_rows, metrics in self.batches(variables, rows):
            n = sum(map(len, step_rows))
            total += n
            for name, value in self._devices.first(metrics).items():
                sums[name] = sums.get(name, 0.0) + n * np.asarray(value, np.float64)
        means = {name: value / total for name, value in sums.items()}
        return {name: float(x) if np.ndim(x) == 0 else x for name, x in means.items()}
