"""This project's steps, to be timed: those that its commands run."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.steps import WARM_UP
from benchmarks.timing import forget_peak_memory, peak_memory
from crysgnn_jax.batches.budget import Budget, choose_budget, pack
from crysgnn_jax.batches.loader import Batcher, group, stack
from crysgnn_jax.graphs.store import GraphStore, open_store
from crysgnn_jax.models.protocol import Student
from crysgnn_jax.models.registry import build, find_student
from crysgnn_jax.models.teacher import Teacher
from crysgnn_jax.objectives.distillation import distil
from crysgnn_jax.objectives.pretraining import pretraining_loss
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.inference import layout
from crysgnn_jax.training.pretraining import pair_sizes
from crysgnn_jax.training.state import create_optimiser, create_state, make_train_step
from crysgnn_jax.training.trained import TrainedModel

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
      sizes: ``[len(store), r]``, the table of `batches.Sizes`.
      student: initial parameters, nested mappings; None where the job has no student.
      teacher: likewise.
    """

    step: Callable
    state: Any
    batcher: Batcher
    sizes: np.ndarray
    student: Any = None
    teacher: Any = None


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
    student = find_student(DISTILLED if job == "distilled" else job)
    module = build(student.module, {}, cutoff=store.settings.cutoff, axis_name=AXIS)
    plan = layout(student, module, store, rows, batch_size or student.batch_size)
    loss = property_loss(Standardiser(0.0, 1.0), kind=student.loss, axis_name=AXIS)
    node_columns, teacher = {}, None
    if job == "distilled":
        loss = distil(loss, 0.5, axis_name=AXIS)
        frozen = _teacher(store)
        teacher = frozen.variables["params"]
        node_columns["teacher_embeddings"] = frozen.embeddings(store, devices, EMBEDDING_BATCH)
    batcher = Batcher(
        store,
        plan.budget,
        graphs=plan.graphs,
        label=targets,
        node_columns=node_columns,
        edge_columns=student.edge_columns,
    )
    optimiser = create_optimiser(LEARNING_RATE, TOTAL_STEPS, weight_decay=student.weight_decay)
    state = create_state(plan.module, optimiser, jax.random.key(0), batcher(rows[:1]))
    step = make_train_step(plan.module, loss, optimiser, axis_name=AXIS)
    return Work(step, state, batcher, plan.sizes, state.params, teacher)


def _pretraining(store: GraphStore, rows: np.ndarray, batch_size: int) -> Work:
    sizes = pair_sizes(store)
    budget = choose_budget(sizes.of(rows), batch_size)
    batcher = Batcher(store, budget, graphs=store.reduced)
    call = {"n_block": batcher.budget.extra["blocks"]}
    module = Teacher(cutoff=store.settings.cutoff, axis_name=AXIS)
    optimiser = create_optimiser(LEARNING_RATE, TOTAL_STEPS)
    state = create_state(module, optimiser, jax.random.key(0), batcher(rows[:1]), **call)
    loss = pretraining_loss(axis_name=AXIS)
    step = make_train_step(module, loss, optimiser, axis_name=AXIS, **call)
    return Work(step, state, batcher, sizes.table, teacher=state.params)


def _embedding(store: GraphStore, rows: np.ndarray, batch_size: int) -> Work:
    teacher = _teacher(store)
    plan = layout(teacher.student, teacher.module, store, rows, batch_size)
    step = lambda variables, graph: (variables, teacher.embed(variables, graph))
    variables, batcher = teacher.variables, Batcher(store, plan.budget, graphs=plan.graphs)
    return Work(step, variables, batcher, plan.sizes, teacher=variables["params"])


def _teacher(store: GraphStore) -> TrainedModel:
    """A teacher with initial weights, which cost the same time as trained ones."""
    module = Teacher(cutoff=store.settings.cutoff)
    one_crystal = Budget(int(store.n_nodes[0]) + 1, int(store.n_edges[0]), 2)
    example = Batcher(store, one_crystal)(np.arange(1))
    optimiser = create_optimiser(LEARNING_RATE, TOTAL_STEPS)
    # Parameters do not depend on the number of blocks.
    state = create_state(module, optimiser, jax.random.key(0), example, n_block=1)
    return TrainedModel(
        network="crysgnn",
        module=module,
        student=Student(Teacher, reduced=True),
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
        plan = pack(found.sizes, found.batcher.budget.limits, order)
        steps = group(plan, n_devices)
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
        budget = self._work.batcher.budget
        shape = {
            "nodes": budget.nodes,
            "edges": budget.edges,
            "graphs": budget.graphs,
            **budget.extra,
        }
        batches = [rows for step in self._steps for rows in step]
        used = np.mean([self._work.sizes[rows].sum(axis=0) for rows in batches], axis=0)
        return {name: round(float(n) / size, 3) for (name, size), n in zip(shape.items(), used)}

    def _take(self, batch: int) -> Any:
        self._state, outputs = self._step(self._state, self._graphs[batch])
        return outputs
