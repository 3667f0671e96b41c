"""Training a student, with or without a teacher: from a graph store to a finished run."""

import csv
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jraph
import numpy as np

from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.batches.splits import Split
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.protocol import Student
from crysgnn_jax.objectives.distillation import ProjectedStudent, distil
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.fitting import fit
from crysgnn_jax.training.inference import Evaluator, layout
from crysgnn_jax.training.logs import Progress
from crysgnn_jax.training.loop import LoopSettings
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
      loss: name in `objectives.property.LOSSES`.
      weight_decay: of matrices.
      raw_targets: train on targets in the property's own unit instead of standardised ones.
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
    loss: str = "mse"
    weight_decay: float = 0.0
    raw_targets: bool = False


Variables = Mapping[str, Any]
"""What ``module.apply`` takes: ``params`` and ``batch_stats``."""


def train_student(
    store: GraphStore,
    split: Split,
    workdir: Workdir,
    student: Student,
    module: nn.Module,
    settings: StudentSettings,
    devices: Devices,
    progress: Progress,
    *,
    teacher_embeddings: np.ndarray | None = None,
    start: Callable[[Variables], Variables] | None = None,
    log_every: int = 50,
    checkpoint_seconds: float = 20.0,
) -> dict[str, Any]:
    """Train a student, or go on with it, test it once, and write the run's files but the pictures.

    Targets are standardised by the training crystals alone; the epoch is chosen by the mean
    absolute error on the validation crystals; the test crystals are looked at once, at the end.

    Args:
      store: the crystals, as graphs of the student's kind.
      split: which of them to train on, choose by and test on.
      workdir: of the run.
      student: what the module needs of batches.
      module: returns a `Prediction`; its ``axis_name`` must be `devices.AXIS`.
      settings: how to train.
      devices: where to train.
      progress: what the user sees.
      teacher_embeddings: ``[all atoms of the store, d]``; needed if and only if
        ``settings.weight`` is not 0.
      start: from random initial variables to those to start from, such as `take_over` gives.
      log_every: steps between lines of the metrics log.
      checkpoint_seconds: save no more often than this.

    Returns:
      The content of ``result.json``, which the caller writes when all else is written.

    Raises:
      UserError: the loss became NaN.
    """
    targets = store.labels(settings.property)
    used = np.concatenate([rows for _, rows in split.items()])
    plan = layout(student, module, store, used, settings.batch_size)
    module = plan.module
    node_columns = {}
    if teacher_embeddings is not None:
        node_columns["teacher_embeddings"] = teacher_embeddings
    batcher = Batcher(
        store,
        plan.budget,
        graphs=plan.graphs,
        label=targets,
        node_columns=node_columns,
        edge_columns=student.edge_columns,
    )
    example = batcher(split.train[:1])
    if teacher_embeddings is not None:
        start = _as_vanilla(module, example, settings.seed, start)
        module = ProjectedStudent(module, teacher_embeddings.shape[1])
    fitted = Standardiser.fit(targets[split.train])
    standardiser = Standardiser(0.0, 1.0) if settings.raw_targets else fitted
    loss = distil(
        property_loss(standardiser, kind=settings.loss, axis_name=AXIS),
        settings.weight,
        axis_name=AXIS,
    )
    standardised = lambda variables, graph: module.apply(variables, graph, False).prediction
    evaluator = Evaluator(devices, standardised, batcher, plan.sizes)

    def predict(variables, rows):
        # In float64: a total energy of −1e4 eV has no third decimal in float32.
        return standardiser.invert(evaluator.per_crystal(variables, rows))

    def evaluate(variables):
        mae = _mae(predict(variables, split.validation), targets[split.validation])
        return mae, {"validation_mae": mae}

    variables, summary = fit(
        module,
        loss,
        batcher,
        split.train,
        plan.sizes,
        evaluate,
        workdir,
        devices,
        progress,
        LoopSettings(
            epochs=settings.epochs,
            patience=settings.patience,
            seed=settings.seed,
            log_every=log_every,
            checkpoint_seconds=checkpoint_seconds,
        ),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        start=start,
    )
    best = devices.replicate(variables)
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
        # The error of always predicting the mean of the training crystals, to judge the others by.
        "test_mae_of_mean": _mae(np.full(len(split.test), fitted.mean), targets[split.test]),
        **summary,
    }


def bare(variables: Variables) -> Variables:
    """The student's variables from those of a `ProjectedStudent` around it."""
    return {name: tree.get("student", {}) for name, tree in variables.items()}


def _as_vanilla(
    module: nn.Module,
    example: jraph.GraphsTuple,
    seed: int,
    start: Callable[[Variables], Variables] | None,
) -> Callable[[Variables], Variables]:
    """Let a distilled student start from the very weights of its vanilla twin.

    Inside a `ProjectedStudent` the same key would give it others, for Flax derives a layer's key
    from its path; twins that differ by more than the teacher could not be compared in pairs.
    """
    init = jax.jit(lambda key: module.init(key, example, True))

    def begin(variables: Variables) -> Variables:
        own = init(jax.random.key(seed))
        own = start(own) if start is not None else own
        return {
            name: {**tree, "student": own[name]} if name in own else tree
            for name, tree in variables.items()
        }

    return begin


def _mae(predictions: np.ndarray, targets: np.ndarray) -> float:
    return float(np.mean(np.abs(predictions - targets)))
