"""Pre-training the teacher: from a graph store to a finished run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jraph
import numpy as np

from crysgnn_jax.batches.budget import Sizes, choose_budget
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.pairs import count_blocks
from crysgnn_jax.objectives.reduction import Loss
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.fitting import fit
from crysgnn_jax.training.inference import Evaluator
from crysgnn_jax.training.logs import Progress
from crysgnn_jax.training.loop import LoopSettings
from crysgnn_jax.training.workdir import Workdir

VALIDATION_FRACTION = 0.05


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """Settings of a pre-training run.

    Attributes:
      epochs: passes over the crystals.
      batch_size: crystals of an average batch, a device.
      learning_rate: the highest of the schedule.
      seed: of the weights, the validation crystals and the order.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int = 0


def hold_out(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows of ``n`` crystals; 5 % at random, at least one, are validation.

    Raises:
      UserError: there are fewer than two crystals.
    """
    if n < 2:
        raise UserError(f"pre-training needs at least 2 crystals, not {n}")
    order = np.random.default_rng(seed).permutation(n)
    n_validation = max(1, round(VALIDATION_FRACTION * n))
    return np.sort(order[n_validation:]), np.sort(order[:n_validation])


def pair_sizes(store: GraphStore) -> Sizes:
    """What each crystal takes of a batch of reduced graphs with pairs of atoms."""
    graphs = store.reduced
    extra = {"blocks": count_blocks(graphs.n_nodes), "n_pair": graphs.lists["n_pair"].lengths}
    return Sizes(graphs.n_nodes, graphs.n_edges, extra)


def pretrain(
    store: GraphStore,
    rows: tuple[np.ndarray, np.ndarray],
    workdir: Workdir,
    module: nn.Module,
    loss: Loss,
    settings: PretrainSettings,
    devices: Devices,
    progress: Progress,
    *,
    monitor: Callable[[Any, jraph.GraphsTuple], dict[str, jax.Array]] = lambda outputs, graph: {},
    log_every: int = 50,
    checkpoint_seconds: float = 20.0,
) -> dict[str, Any]:
    """Train a network without labels, or go on with it, and write the run's files but the pictures.

    Args:
      store: the crystals; labels are not read.
      rows: those to train on and those to validate by, as of `hold_out`.
      workdir: of the run.
      module: of `registry.TEACHERS`; its ``axis_name`` must be `devices.AXIS`.
      loss: of its outputs and a batch, with `devices.AXIS` too.
      settings: how to train.
      devices: where to train.
      progress: what the user sees.
      monitor: further metrics of the validation crystals, as each device's share.
      log_every: steps between lines of the metrics log.
      checkpoint_seconds: save no more often than this.

    Returns:
      The content of ``result.json``, which the caller writes when all else is written.

    Raises:
      UserError: the loss became NaN.
    """
    train, validation = rows
    sizes = pair_sizes(store)
    budget = choose_budget(sizes, settings.batch_size)
    batcher = Batcher(store, budget, graphs=store.reduced)
    n_block = budget.extra["blocks"]

    def metrics_of(variables, graph):
        outputs = module.apply(variables, graph, False, n_block=n_block)
        value, parts = loss(outputs, graph)
        return jax.lax.psum({"loss": value, **parts, **monitor(outputs, graph)}, AXIS)

    evaluator = Evaluator(devices, metrics_of, batcher, sizes.table)

    def evaluate(variables):
        means = evaluator.means(variables, validation)
        return means["loss"], {f"validation_{name}": value for name, value in means.items()}

    variables, summary = fit(
        module,
        loss,
        batcher,
        train,
        sizes.table,
        evaluate,
        workdir,
        devices,
        progress,
        LoopSettings(
            epochs=settings.epochs,
            seed=settings.seed,
            log_every=log_every,
            checkpoint_seconds=checkpoint_seconds,
        ),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        n_block=n_block,
    )
    _, validation_metrics = evaluate(devices.replicate(variables))
    workdir.write_splits(
        {"train": store.ids[train].tolist(), "validation": store.ids[validation].tolist()}
    )
    return {
        "task": "pretraining",
        "n_train": len(train),
        "n_validation": len(validation),
        "n_test": 0,
        **validation_metrics,
        **summary,
    }
