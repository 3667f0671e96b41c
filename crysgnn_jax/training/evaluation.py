"""Running a compiled function over many crystals, and putting the results back in order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jraph
import numpy as np

from crysgnn_jax.batches.loader import Loader
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.training.devices import Compiled, Devices
from crysgnn_jax.training.rounds import one_by_one, together


def compiled(
    devices: Devices,
    function: Callable,
    measure: Callable | None = None,
    *,
    any_shape: bool = False,
) -> Compiled:
    """A function of batches, compiled for an `Evaluator`.

    Args:
      devices: where to run.
      function: pure, (variables, batch) → outputs.
      measure: pure, (outputs, batch) → metrics of the whole step, for `Evaluator.means`; where it
        is not given, the outputs are they.
      any_shape: as of `Devices.compile`: it is for the batches of several stores.
    """

    def outputs(variables: Any, graph: jraph.GraphsTuple) -> Any:
        found = one_by_one(lambda batch, _: function(variables, batch), graph)
        if measure is None:
            return devices.of_all(found)
        found = together(measure, found, graph)
        return found if devices.rounds == 1 else jax.tree.map(lambda x: x[0], found)

    return devices.compile(outputs, any_shape=any_shape)


class Evaluator:
    """Applies a function to batches of a store's crystals.

    Args:
      devices: where to run.
      function: as `compiled` makes it, for these devices.
      loader: makes the batches.
    """

    def __init__(self, devices: Devices, function: Compiled, loader: Loader):
        self._devices = devices
        self._function = function
        self._loader = loader

    def _steps(self, variables: Any, rows: np.ndarray) -> Iterator[tuple[Any, Any]]:
        for step_rows, batch in self._loader.load(self._loader.steps(rows)):
            self._devices.check()
            yield step_rows, self._function(variables, batch)

    def batches(
        self, variables: Any, rows: np.ndarray
    ) -> Iterator[tuple[Sequence[np.ndarray], Any]]:
        """Outputs for the crystals ``rows``, a step at a time.

        Args:
          variables: replicated over the devices.
          rows: rows of the store.

        Yields:
          The rows of each batch, and the outputs ``[n_batches, …]``, NumPy arrays.

        Raises:
          Stopped: a signal came while something is to be saved, see `stopping`.
        """
        for step_rows, outputs in self._steps(variables, rows):
            yield step_rows, self._devices.of_batches(outputs)

    def per_crystal(self, variables: Any, rows: np.ndarray) -> np.ndarray:
        """One number a crystal, for a function that returns ``[n_graph]``: ``[len(rows)]``, in
        the order of ``rows``."""
        values = np.full(len(self._loader.batcher.store), np.nan)
        for step_rows, outputs in self.batches(variables, rows):
            for batch_rows, output in zip(step_rows, outputs):
                values[batch_rows] = output[: len(batch_rows)]
        return values[rows]

    def columns(
        self,
        variables: Any,
        rows: np.ndarray,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Several numbers a crystal, for a function that returns a dict of ``[n_graph, …]``.

        Args:
          variables: replicated over the devices.
          rows: rows of the store.
          progress: is told how many crystals are done, and of how many.

        Returns:
          Name → ``[len(rows), …]`` in the order of ``rows``.
        """
        place = np.zeros(len(self._loader.batcher.store), np.int64)
        place[rows] = np.arange(len(rows))
        out: dict[str, np.ndarray] = {}
        done = 0
        for step_rows, outputs in self.batches(variables, rows):
            for name, values in outputs.items():
                for batch_rows, value in zip(step_rows, values):
                    if name not in out:
                        out[name] = np.empty((len(rows), *value.shape[1:]), value.dtype)
                    out[name][place[batch_rows]] = value[: len(batch_rows)]
            done += sum(map(len, step_rows))
            if progress is not None:
                progress(done, len(rows))
        return out

    def means(self, variables: Any, rows: np.ndarray) -> dict[str, Any]:
        """Mean over the crystals of metrics of whole steps: floats, and arrays where they are."""
        sums: dict[str, Any] = {}
        total = 0
        for step_rows, metrics in self._steps(variables, rows):
            n = sum(map(len, step_rows))
            total += n
            for name, value in self._devices.first(metrics).items():
                sums[name] = sums.get(name, 0.0) + n * np.asarray(value, np.float64)
        means = {name: value / total for name, value in sums.items()}
        return {name: float(x) if np.ndim(x) == 0 else x for name, x in means.items()}


def what_it_says(module: nn.Module) -> Callable[[Any, jraph.GraphsTuple], dict[str, jax.Array]]:
    """(variables, batch) → a property predictor's outputs, and the mean of the atoms' embeddings,
    of each crystal.

    Args:
      module: returns a `network.Prediction`.
    """

    def function(variables: Any, graph: jraph.GraphsTuple) -> dict[str, jax.Array]:
        outputs: Any = module.apply(variables, graph, False)
        means = Batch(graph).mean_of_atoms(outputs.embeddings)
        return {"prediction": outputs.prediction, "embedding": means}

    return function


def predicted(
    function: Compiled,
    variables: Any,
    devices: Devices,
    loader: Loader,
    rows: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What a property predictor says of crystals, and what it makes of them, in evaluation mode.

    Args:
      function: `compiled` of `what_it_says`.
      variables: the predictor's weights.
      devices: where to run.
      loader: makes the batches.
      rows: of the store; all of them where not given.
      progress: is told how many crystals are done, and of how many.

    Returns:
      ``[n]`` float64, in standardised units; ``[n, d]`` float32, the mean of the atoms' embeddings.
    """
    store = loader.batcher.store
    if rows is None:
        rows = np.arange(len(store))
    found = Evaluator(devices, function, loader).columns(
        devices.replicate(variables), rows, progress
    )
    return found["prediction"].astype(np.float64), found["embedding"].astype(np.float32)
