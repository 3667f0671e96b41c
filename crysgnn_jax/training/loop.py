"""The training loop: epochs, validation, logging, checkpoints, early stopping, resumption."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from crysgnn_jax import processes, stopping
from crysgnn_jax.batches.loader import Loader
from crysgnn_jax.errors import UserError
from crysgnn_jax.training.checkpoints import Checkpoints, Position
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.logs import Log, Progress
from crysgnn_jax.training.settings import TrainingSettings
from crysgnn_jax.training.step import TrainState

_WISH = "asked to stop"
"""Name, among the metrics of a step of several processes, of what any of them was."""

STATISTICS_STEPS = 10
"""The last steps of an epoch, whose batches the statistics of batch norms are taken over before
validation: enough for a mean, and little beside an epoch of many."""


@dataclasses.dataclass
class Fit:
    """What training ended with.

    Attributes:
      variables: the weights of the best epoch by validation score, as NumPy arrays.
      position: where the run ended.
    """

    variables: Any
    position: Position


def _with_wish(step: Callable) -> Callable:
    """A step that also tells whether any process has been asked to stop."""

    def wished(state: TrainState, graph: Any, wish: jax.Array) -> tuple[TrainState, Any]:
        state, metrics = step(state, graph)
        return state, {**metrics, _WISH: jax.lax.pmax(wish, AXIS)}

    return wished


def _stop() -> NoReturn:
    """
    Raises:
      Stopped: as all processes do, whichever was asked to.
    """
    stopping.check()
    raise stopping.Stopped()


class Trainer:
    """Trains a state on the crystals ``rows`` of a loader's store.

    Args:
      devices: where to train.
      step: pure function (state, batch) → (state, metrics), see `step.make_train_step`.
      statistics_step: pure function (state, batch, n) → state, see `step.make_statistics_step`.
      loader: makes the steps' batches.
      rows: ``[n]`` training crystals, as rows of the store.
      evaluate: variables, replicated → (score, metrics) on the validation crystals; the lowest
        score is the best.
      settings: how long and how.
      checkpoints: where the run is saved.
      saves: whether this process saves it; another one does where not.
      log: where metrics go.
      progress: what the user sees.
    """

    def __init__(
        self,
        *,
        devices: Devices,
        step: Callable,
        statistics_step: Callable,
        loader: Loader,
        rows: np.ndarray,
        evaluate: Callable[[Any], tuple[float, dict[str, float]]],
        settings: TrainingSettings,
        checkpoints: Checkpoints,
        saves: bool = True,
        log: Log,
        progress: Progress,
    ):
        self._devices = devices
        self._step = devices.compile(_with_wish(step) if devices.of_several else step, donate=(0,))
        self._statistics_step = devices.compile(statistics_step, donate=(0,))
        self._loader = loader
        self._rows = rows
        self._evaluate = evaluate
        self._settings = settings
        self._checkpoints = checkpoints
        self._saves = saves
        self._log = log
        self._progress = progress
        self._last_save = time.monotonic()
        self._clock: float | None = None
        self._stop_after: int | None = None
        self._planned: tuple[int, list[list[np.ndarray]]] | None = None

    def plan(self, epoch: int) -> list[list[np.ndarray]]:
        """The steps of an epoch, each the rows of one batch a device; a function of the seed."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self._loader.epoch(self._rows, (self._settings.seed, epoch))
        return self._planned[1]

    def summary(self, fit: Fit) -> dict[str, Any]:
        """What every ``result.json`` says of the training itself."""
        position = fit.position
        return {
            "epochs": position.epoch,
            "best_epoch": position.best_epoch,
            "steps": position.step,
            "seconds": round(position.seconds, 2),
            "crystals_per_second": round(
                position.timed_crystals / max(position.timed_seconds, 1e-9), 1
            ),
            "parameters": sum(x.size for x in jax.tree.leaves(fit.variables["params"])),
            "compilations": self._compilations,
            **self._loader.padding(self.plan(0)),
            "devices": str(self._devices),
        }

    def fit(self, state: TrainState, restart: int | None = None) -> Fit:
        """Train from ``state``, or from the last checkpoint if there is one.

        Args:
          state: before the first step.
          restart: the step after which the run was at its end, and goes on from its best weights,
            with a new state of the optimiser: its schedule has begun anew. None where it was not.

        Raises:
          UserError: the loss became NaN or infinite, or the run cannot be saved.
          Stopped: a signal came; the step under way was finished, and the run saved.
        """
        with stopping.graceful(), contextlib.closing(self._progress):
            return self._fit(state, restart)

    def _fit(self, state: TrainState, restart: int | None) -> Fit:
        position = Position()
        best = state.variables
        if processes.told(lambda: self._checkpoints.last_step) is not None:
            new = state.opt_state
            state, best, position = self._restored(state, best)
            if position.step == restart:
                state = dataclasses.replace(
                    state, **{k: best[k] for k in ("params", "batch_stats")}, opt_state=new
                )
                position.restarted_epoch = position.epoch
        self._log.truncate(position)
        state = self._devices.replicate(state)
        settings = self._settings
        started = time.monotonic() - position.seconds
        while position.epoch < settings.epochs and not self._out_of_patience(position):
            state = self._train_epoch(state, best, position, started)
            state = self._with_fresh_statistics(state, position.epoch)
            try:
                score, metrics = self._evaluate(state.variables)
            except stopping.Stopped:
                self._save(state, best, position)
                raise
            if not np.isfinite(score):
                raise UserError(
                    f"the validation score became {score} after epoch {position.epoch + 1}; "
                    f"{self._last_good()}; try a lower `learning_rate`"
                )
            position.epoch, position.batch = position.epoch + 1, 0
            position.seconds = time.monotonic() - started
            improved = score < position.best_score
            if improved:
                position.best_score, position.best_epoch = score, position.epoch
                best = self._devices.first(state.variables)
            n = position.sums.pop("crystals")
            train = {f"train_{name}": total / n for name, total in position.sums.items()}
            position.sums = {}
            self._log.write(
                {
                    "epoch": position.epoch,
                    "step": position.step,
                    **train,
                    **metrics,
                    **self._loader.padding(self.plan(position.epoch - 1)),
                    "compilations": self._compilations,
                },
                seconds=position.seconds,
            )
            self._progress.epoch(position, train, metrics, improved)
            finished = position.epoch >= settings.epochs or self._out_of_patience(position)
            if finished or self._save_is_due():
                self._save(state, best, position)
        return Fit(jax.tree.map(np.asarray, best), position)

    def _train_epoch(
        self, state: TrainState, best: Any, position: Position, started: float
    ) -> TrainState:
        plan = self.plan(position.epoch)
        steps = plan[position.batch :]
        self._progress.start_epoch(position, total=len(plan))
        if self._clock is not None:
            self._clock = time.monotonic()
        # The metrics of a step are read after the next one has been handed to the device, so
        # that the device never waits for the host.
        waiting: tuple[Sequence[np.ndarray], Any] | None = None
        for rows, batch in self._loader.load(steps):
            state, metrics = self._step(state, batch, *self._wish())
            if waiting is not None:
                self._account(*waiting, position, started)
            waiting = rows, metrics
            # Not after the epoch's last step: what follows it, the validation, decides which
            # weights are the best, and is saved under the same number of steps.
            is_due = self._save_is_due() and position.batch + 1 < len(plan)
            stop = self._must_stop(position.step + 1)
            if is_due or stop:
                # The step under way belongs to the state, so it must be counted with it.
                self._account(*waiting, position, started)
                waiting = None
                self._save(state, best, position)
                if stop:
                    _stop()
        if waiting is not None:
            self._account(*waiting, position, started)
        if self._stop_after is not None:
            self._save(state, best, position)
            _stop()
        return state

    def _wish(self) -> tuple[Any, ...]:
        """What a step of several processes takes beside the batch: whether this one was asked to
        stop."""
        if not self._devices.of_several:
            return ()
        return (self._devices.replicate(np.float32(stopping.asked())),)

    def _must_stop(self, step: int) -> bool:
        """Whether the step is to be the last one, which has just been handed to the devices.

        Several processes must stop after the same one: the one after that by which all of them know
        that any was asked to.
        """
        if not self._devices.of_several:
            return stopping.asked()
        return self._stop_after is not None and step >= self._stop_after

    def _with_fresh_statistics(self, state: TrainState, epoch: int) -> TrainState:
        """The state after an epoch, with the statistics of batch norms that validation sees."""
        if not state.batch_stats:
            return state
        steps = self.plan(epoch)[-STATISTICS_STEPS:]
        for n, (_, batch) in enumerate(self._loader.load(steps), 1):
            state = self._statistics_step(state, batch, self._devices.replicate(np.float32(n)))
        return state

    def _account(
        self, rows: Sequence[np.ndarray], metrics: Any, position: Position, started: float
    ) -> None:
        """Read one step's metrics and count it."""
        values = {name: float(value) for name, value in self._devices.first(metrics).items()}
        if values.pop(_WISH, 0.0) and self._stop_after is None:
            self._stop_after = position.step + 2
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad:
            raise UserError(self._describe_divergence(bad[0], values[bad[0]], rows, position))
        n = sum(map(len, rows))
        position.step += 1
        position.batch += 1
        position.seconds = time.monotonic() - started
        now = time.monotonic()
        if self._clock is not None:
            position.timed_crystals += n
            position.timed_seconds += now - self._clock
        self._clock = now
        sums = position.sums
        sums["crystals"] = sums.get("crystals", 0) + n
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + n * value
        if position.step % self._settings.log_every == 0:
            self._log.write(
                {"epoch": position.epoch, "step": position.step, **values},
                seconds=position.seconds,
            )
        self._progress.step(position, values)

    def _describe_divergence(
        self, name: str, value: float, rows: Sequence[np.ndarray], position: Position
    ) -> str:
        ids = [str(self._loader.batcher.store.ids[row]) for batch in rows for row in batch]
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        return (
            f"{name} became {value} at step {position.step + 1} (batch: {shown}); "
            f"{self._last_good()}; "
            "try a lower `learning_rate`, or look at the labels of these crystals"
        )

    def _last_good(self) -> str:
        last = self._checkpoints.last_step
        if last is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self._checkpoints.path(last)}"

    @property
    def _compilations(self) -> int:
        # A session that goes on after the last step of an epoch has had none to compile.
        return max(1, self._step.compilations)

    def _out_of_patience(self, position: Position) -> bool:
        patience = self._settings.patience
        # What goes on has as much patience as what begins.
        since = max(position.best_epoch, position.restarted_epoch)
        return patience is not None and position.epoch - since >= patience

    def _save_is_due(self) -> bool:
        return time.monotonic() - self._last_save > self._settings.checkpoint_seconds

    def _restored(self, state: TrainState, best: Any) -> tuple[TrainState, Any, Position]:
        """The last save, read by the first process."""
        found: list[Any] = []

        def read() -> dict[str, Any]:
            found.extend(self._checkpoints.restore(state, best))
            return dataclasses.asdict(found[2])

        position = Position(**processes.told(read))
        if processes.count() == 1:
            return found[0], found[1], position
        return *processes.same_arrays(tuple(found[:2]) or (state, best)), position

    def _save(self, state: TrainState, best: Any, position: Position) -> None:
        if self._saves:
            self._checkpoints.save(self._devices.first(state), best, position)
        self._last_save = time.monotonic()
