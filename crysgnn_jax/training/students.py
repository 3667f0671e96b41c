"""Training a student, with or without a teacher: from a graph store to a finished run."""

import csv
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from crysgnn_jax.data.batches import Batcher, Sizes, choose_budget
from crysgnn_jax.data.splits import Split
from crysgnn_jax.data.store import GraphStore
from crysgnn_jax.objectives.distillation import ProjectedStudent, distil
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.training.checkpoints import Checkpoints
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.inference import Evaluator
from crysgnn_jax.training.logs import MetricsLog, Progress
from crysgnn_jax.training.loop import LoopSettings, Trainer
from crysgnn_jax.training.state import create_optimiser, create_state, make_train_step
from crysgnn_jax.training.trained import TrainedTeacher
from crysgnn_jax.training.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """Settings of a student's run.

    Attributes:
      student: name of the student, for the record.
      property: name of the label to predict.
      unit: its unit.
      weight: of the teacher's pull; 0 trains the vanilla student.
      epochs: at most.
      patience: epochs without a better validation error after which to stop.
      batch_size: crystals of an average batch, a device.
      learning_rate: the highest of the schedule.
      seed: of the weights and the order.
    """

    student: str
    property: str
    unit: str
    weight: float
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    seed: int = 0


def train_student(
    store: GraphStore,
    split: Split,
    workdir: Workdir,
    student: nn.Module,
    settings: StudentSettings,
    teacher: TrainedTeacher | None,
    devices: Devices,
    progress: Progress,
    *,
    log_every: int = 50,
    checkpoint_seconds: float = 20.0,
) -> dict[str, Any]:
    """Train a student, or go on with it, test it once, and write the run's files but the pictures.

    Targets are standardised by the training crystals alone; the epoch is chosen by the mean
    absolute error on the validation crystals; the test crystals are looked at once, at the end.

    Args:
      store: the crystals.
      split: which of them to train on, choose by and test on.
      workdir: of the run.
      student: a module that returns a `Prediction`; its ``axis_name`` must be `devices.AXIS`.
      settings: how to train.
      teacher: the teacher; needed if and only if ``settings.weight`` is not 0.
      devices: where to train.
      progress: what the user sees.
      log_every: steps between lines of the metrics log.
      checkpoint_seconds: save no more often than this.

    Returns:
      The content of ``result.json``, which the caller writes when all else is written.

    Raises:
      UserError: the teacher's graphs were built with other settings, or the loss became NaN.
    """
    targets = store.labels(settings.property)
    used = np.concatenate([rows for _, rows in split.items()])
    sizes = Sizes(store.n_nodes, store.n_edges)
    budget = choose_budget(Sizes(store.n_nodes[used], store.n_edges[used]), settings.batch_size)
    node_columns = {}
    module = student
    if teacher is not None:
        node_columns["teacher_embeddings"] = teacher.embeddings(store, devices, settings.batch_size)
        module = ProjectedStudent(student, teacher.module.width)
    batcher = Batcher(store, budget, label=targets, node_columns=node_columns)
    standardiser = Standardiser.fit(targets[split.train])
    loss = distil(property_loss(standardiser, axis_name=AXIS), settings.weight, axis_name=AXIS)
    standardised = lambda variables, graph: module.apply(variables, graph, False).prediction
    evaluator = Evaluator(devices, standardised, batcher, sizes.table)

    def predict(variables, rows):
        # In float64: a total energy of −1e4 eV has no third decimal in float32.
        return standardiser.invert(evaluator.per_crystal(variables, rows))

    def evaluate(variables):
        mae = _mae(predict(variables, split.validation), targets[split.validation])
        return mae, {"validation_mae": mae}

    steps_per_epoch = -(-len(split.train) // (settings.batch_size * len(devices)))
    optimiser = create_optimiser(settings.learning_rate, settings.epochs * steps_per_epoch)
    checkpoints = Checkpoints(workdir.checkpoints)
    trainer = Trainer(
        devices=devices,
        step=make_train_step(module, loss, optimiser, axis_name=AXIS),
        batcher=batcher,
        rows=split.train,
        sizes=sizes.table,
        evaluate=evaluate,
        settings=LoopSettings(
            epochs=settings.epochs,
            patience=settings.patience,
            seed=settings.seed,
            log_every=log_every,
            checkpoint_seconds=checkpoint_seconds,
        ),
        checkpoints=checkpoints,
        log=MetricsLog(workdir.metrics),
        progress=progress,
    )
    example = batcher(split.train[:1])
    state = create_state(module, optimiser, jax.random.key(settings.seed), example)
    fit = trainer.fit(state)
    checkpoints.close()
    best = devices.replicate(fit.variables)
    predictions = {name: predict(best, rows) for name, rows in split.items()}
    mae = {name: _mae(predictions[name], targets[rows]) for name, rows in split.items()}
    with open(workdir.path / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "target", "prediction"])
        for name, rows in split.items():
            for row, prediction in zip(rows, predictions[name]):
                writer.writerow([store.ids[row], name, f"{targets[row]:.9g}", f"{prediction:.9g}"])
    workdir.write_splits(split.ids(store))
    return {
        "task": "student",
        "property": settings.property,
        "unit": settings.unit,
        "student": settings.student,
        "distilled": settings.weight > 0,
        "weight": settings.weight,
        "n_train": len(split.train),
        "n_validation": len(split.validation),
        "n_test": len(split.test),
        "train_mae": mae["train"],
        "validation_mae": mae["validation"],
        "test_mae": mae["test"],
        "target_mean": standardiser.mean,
        "target_std": standardiser.std,
        **trainer.summary(fit),
    }


def _mae(predictions: np.ndarray, targets: np.ndarray) -> float:
    return float(np.mean(np.abs(predictions - targets)))
