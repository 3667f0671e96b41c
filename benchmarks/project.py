"""This project's steps, to be timed: those that its commands run."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from benchmarks.timing import WARM_UP, forget_peak_memory, peak_memory
from crysgnn_jax.batches.loader import Batcher, Loader, lay_out, stack
from crysgnn_jax.graphs.store import GraphStore, open_store
from crysgnn_jax.models.registry import build, find_network, smallest_batch
from crysgnn_jax.objectives.distillation import distil
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import PRETRAINED, RELEASED
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.pretraining_task import needed_lists
from crysgnn_jax.training.step import (
    create_optimiser,
    create_state,
    make_statistics_step,
    make_train_step,
)

TEACHER = "crysgnn"

OBJECTIVES = RELEASED[TEACHER]

PRETRAINING_NEEDS = dataclasses.replace(PRETRAINED[TEACHER].needs, lists=needed_lists(OBJECTIVES))
"""Of the teacher while it learns."""

DISTILLED = "cgcnn"
"""The student of the job ``distilled``."""

EMBEDDING_BATCH = 128
LEARNING_RATE = 1e-3
TOTAL_STEPS = 10_000


class Work(NamedTuple):
    """What a job computes.

    Attributes:
      step: pure function (state, batch) → (state, outputs), to be compiled; it may take over the
        memory of the state.
      state: before the first step.
      batcher: makes the batches.
      sizes: ``[len(store), r]``, what each crystal takes of a batch.
      student: initial parameters, nested mappings; None where the job has no student.
      teacher: likewise.
      statistics: pure function (state, batch, n) → state, of jobs that train.
    """

    step: Callable
    state: Any
    batcher: Batcher
    sizes: np.ndarray
    student: Any = None
    teacher: Any = None
    statistics: Callable | None = None


def work(
    job: str,
    store: GraphStore,
    rows: np.ndarray,
    targets: np.ndarray,
    batch_size: int | None,
    devices: Devices,
) -> Work:
    """Set up a job as the commands do.

    Args:
      job: ``pretrain``; ``embed``; ``distilled``; or a student's name.
      store: graphs of the kind that the job takes.
      rows: of the store, the crystals to use.
      targets: ``[len(store)]``, standardised.
      batch_size: crystals of an average batch; None for the student's own.
      devices: where to run.
    """
    if job == "pretrain":
        return _pretraining(store, rows, batch_size)
    if job == "embed":
        return _embedding(store, rows, batch_size)
    network = find_network(DISTILLED if job == "distilled" else job)
    module = build(network.module, {}, cutoff=store.settings.cutoff)
    loss = property_loss(Standardiser(0.0, 1.0), kind=network.recipe.loss)
    node_columns, teacher = {}, None
    if job == "distilled":
        loss = distil(loss, weight=0.5)
        frozen = _teacher(store)
        teacher = frozen.variables["params"]
        node_columns["teacher_embeddings"] = frozen.embeddings(store, devices, EMBEDDING_BATCH)
    batch_size = batch_size or network.recipe.batch_size
    batcher, _ = lay_out(
        store, rows, network.needs, batch_size, label=targets, node_columns=node_columns
    )
    optimiser = create_optimiser(
        LEARNING_RATE, TOTAL_STEPS, weight_decay=network.recipe.weight_decay
    )
    state = create_state(module, optimiser, jax.random.key(0), batcher(rows[:1]))
    step = make_train_step(module, loss, optimiser)
    statistics = make_statistics_step(module)
    return Work(step, state, batcher, batcher.sizes, state.params, teacher, statistics)


def _pretraining(store: GraphStore, rows: np.ndarray, batch_size: int | None) -> Work:
    batch_size = batch_size or PRETRAINED[TEACHER].recipe.batch_size
    batcher, _ = lay_out(store, rows, PRETRAINING_NEEDS, batch_size)
    module = _module(store)
    optimiser = create_optimiser(LEARNING_RATE, TOTAL_STEPS)
    state = create_state(module, optimiser, jax.random.key(0), batcher(rows[:1]))
    step = make_train_step(module, pretraining_loss(OBJECTIVES), optimiser)
    statistics = make_statistics_step(module)
    return Work(step, state, batcher, batcher.sizes, teacher=state.params, statistics=statistics)


def _embedding(store: GraphStore, rows: np.ndarray, batch_size: int | None) -> Work:
    teacher = _teacher(store)
    step = lambda variables, graph: (variables, teacher.embed_batch(variables, graph))
    batcher, _ = lay_out(store, rows, teacher.network.needs, batch_size or EMBEDDING_BATCH)
    variables = teacher.variables
    return Work(step, variables, batcher, batcher.sizes, teacher=variables["params"])


def _module(store: GraphStore) -> nn.Module:
    """The teacher with the heads of the released objectives."""
    objectives = tuple(objective for objective, _ in OBJECTIVES)
    return PRETRAINED[TEACHER].module(cutoff=store.settings.cutoff, objectives=objectives)


def _teacher(store: GraphStore) -> TrainedModel:
    """A teacher with initial weights, which cost the same time as trained ones."""
    module = _module(store)
    optimiser = create_optimiser(LEARNING_RATE, TOTAL_STEPS)
    example = smallest_batch(PRETRAINING_NEEDS)
    state = create_state(module, optimiser, jax.random.key(0), example)
    return TrainedModel(
        name=TEACHER,
        module=module,
        network=PRETRAINED[TEACHER],
        variables=jax.tree.map(np.asarray, state.variables),
        featuriser=store.settings,
        fingerprint="initial",
        path=Path("the benchmark"),
    )


class ProjectSide:
    """Batches in memory and a compiled step.

    Args:
      job: as of `work`.
      path: of a graph store.
      rows: of the store, the crystals to use.
      targets: ``[len(store)]``, standardised.
      batch_size: crystals of an average batch, a device; None for the student's own.
      n_devices: how many to use; a step takes a batch on each.
    """

    def __init__(
        self,
        job: str,
        path: Path,
        rows: np.ndarray,
        targets: np.ndarray,
        batch_size: int | None,
        n_devices: int = 1,
    ):
        devices = Devices(n_devices)
        self._work = found = work(job, open_store(path), rows, targets, batch_size, devices)
        order = np.random.default_rng(0).permutation(rows)
        steps = Loader(found.batcher, devices).steps(order)
        self._steps = steps[:-1] or steps  # the last batch is not full
        self._parameters = jax.tree.map(np.asarray, (found.student, found.teacher))
        self._graphs = [
            devices.put(stack([found.batcher(rows) for rows in batches])) for batches in self._steps
        ]
        self._step = devices.compile(found.step, donate=(0,))
        self._state = devices.replicate(found.state)

    def plan(self) -> list[np.ndarray]:
        """Rows of the store in each step, on whatever device."""
        return [np.concatenate(batches) for batches in self._steps]

    def parameters(self) -> tuple[Any, Any]:
        """Initial parameters of student and teacher, as nested dictionaries of NumPy arrays; None
        for the one that the job does not have."""
        return self._parameters

    def check(self) -> dict[str, float]:
        """What the step computes of the first batch."""
        outputs = Devices.first(self._take(0))
        if isinstance(outputs, dict):
            return {name: float(outputs[name]) for name in ("loss", "gradient_norm")}
        nodes = self._work.batcher.graphs.nodes_of_atoms(self._steps[0][0])
        return {"embedding_norm": float(np.linalg.norm(outputs[nodes].mean(axis=0)))}

    def repeat(self, batches: Sequence[int]) -> float:
        """Seconds for a step on each of these batches, after `WARM_UP` that are not counted."""
        for batch in batches[:WARM_UP]:
            outputs = self._take(batch)
        jax.block_until_ready((self._state, outputs))
        start = time.perf_counter()
        for batch in batches:
            outputs = self._take(batch)
        jax.block_until_ready((self._state, outputs))
        return time.perf_counter() - start

    def memory(self) -> float | None:
        """GB."""
        return peak_memory()

    def forget_memory(self) -> None:
        """Let `memory` start anew: compiling a step can need more than the step."""
        forget_peak_memory()

    def filled(self) -> dict[str, float]:
        """Fraction of a batch's static shape that is not padding, on average."""
        shape = self._work.batcher.budget.shape
        batches = [rows for step in self._steps for rows in step]
        used = np.mean([self._work.sizes[rows].sum(axis=0) for rows in batches], axis=0)
        return {name: round(float(n) / size, 3) for (name, size), n in zip(shape.items(), used)}

    def _take(self, batch: int) -> Any:
        self._state, outputs = self._step(self._state, self._graphs[batch])
        return outputs
