"""From a module, a loss and crystals to trained weights: what every kind of run does."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.objectives.reduction import Loss
from crysgnn_jax.training.checkpoints import Checkpoints
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.logs import MetricsLog, Progress
from crysgnn_jax.training.loop import LoopSettings, Trainer
from crysgnn_jax.training.state import create_optimiser, create_state, make_train_step
from crysgnn_jax.training.workdir import Workdir


def fit(
    module: nn.Module,
    loss: Loss,
    batcher: Batcher,
    rows: np.ndarray,
    sizes: np.ndarray,
    evaluate: Callable[[Any], tuple[float, dict[str, float]]],
    workdir: Workdir,
    devices: Devices,
    progress: Progress,
    settings: LoopSettings,
    *,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    start: Callable[[Any], Any] | None = None,
    **call: Any,
) -> tuple[Any, dict[str, Any]]:
    """Train, or go on from the last checkpoint of the workdir.

    Args:
      module: its ``axis_name`` must be `devices.AXIS`.
      loss: of its outputs and a batch, with `devices.AXIS` too.
      batcher: makes the batches.
      rows: ``[n]`` training crystals, as rows of the store.
      sizes: ``[len(store), r]``, the table of `batches.Sizes`.
      evaluate: variables, replicated → (score, metrics) on the validation crystals; the lowest
        score is the best.
      workdir: of the run.
      devices: where to train.
      progress: what the user sees.
      settings: how long, and how often to log and to save.
      batch_size: crystals of an average batch, a device.
      learning_rate: the highest of the schedule.
      weight_decay: of matrices.
      start: random initial variables → those to start from.
      **call: static arguments of the module.

    Returns:
      The variables of the best epoch, as NumPy arrays, and what ``result.json`` says of the
      training itself.

    Raises:
      UserError: the loss became NaN or infinite.
    """
    steps_per_epoch = -(-len(rows) // (batch_size * len(devices)))
    optimiser = create_optimiser(
        learning_rate, settings.epochs * steps_per_epoch, weight_decay=weight_decay
    )
    checkpoints = Checkpoints(workdir.checkpoints)
    trainer = Trainer(
        devices=devices,
        step=make_train_step(module, loss, optimiser, axis_name=AXIS, **call),
        batcher=batcher,
        rows=rows,
        sizes=sizes,
        evaluate=evaluate,
        settings=settings,
        checkpoints=checkpoints,
        log=MetricsLog(workdir.metrics),
        progress=progress,
    )
    key = jax.random.key(settings.seed)
    state = create_state(module, optimiser, key, batcher(rows[:1]), **call)
    if start is not None:
        begun = start(state.variables)
        state = state.replace(params=begun["params"], batch_stats=begun["batch_stats"])
    found = trainer.fit(state)
    checkpoints.close()
    return found.variables, trainer.summary(found)
