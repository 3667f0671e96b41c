"""This project's steps, to be timed: those that its commands run, on one device."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from benchmarks.timing import peak_memory
from crysgnn_jax.data.batches import Batcher, Sizes, choose_budget, pack, stack
from crysgnn_jax.data.store import open_store
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.models.pairs import TILE, count_blocks
from crysgnn_jax.models.teacher import Teacher
from crysgnn_jax.objectives.distillation import distil
from crysgnn_jax.objectives.pretraining import pretraining_loss
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.objectives.reduction import Loss
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.state import TrainState, create_optimiser, create_state, make_train_step

LEARNING_RATE = 1e-3


class ProjectSide:
    """Batches in memory and a compiled step.

    Args:
      job: ``pretrain``, ``cgcnn``, ``distilled`` or ``embed``.
      path: of a graph store.
      rows: of the store, the crystals to use.
      targets: ``[len(store)]``, standardised.
      batch_size: crystals of an average batch.
    """

    def __init__(
        self, job: str, path: Path, rows: np.ndarray, targets: np.ndarray, batch_size: int
    ):
        self._store = store = open_store(path)
        extra = {}
        if job == "pretrain":
            extra["blocks"] = count_blocks(store.n_nodes)
        sizes = Sizes(store.n_nodes, store.n_edges, extra)
        extra_used = {name: values[rows] for name, values in extra.items()}
        used = Sizes(store.n_nodes[rows], store.n_edges[rows], extra_used)
        self._budget = choose_budget(used, batch_size)
        plan = pack(sizes.table, self._budget.limits, np.random.default_rng(0).permutation(rows))
        # The last batch is not full.
        self._plan = plan[:-1] or plan

        self._devices = Devices(1)
        batcher = Batcher(store, self._budget, label=targets)
        self._example = batcher(self._plan[0])
        student, teacher = CGCNN(axis_name=AXIS), Teacher(axis_name=AXIS)
        self._student = self._state(student)
        # Parameters do not depend on the number of blocks.
        self._teacher = self._state(teacher, n_block=1)
        embed = self._embedding(teacher)
        if job == "distilled":
            columns = {"teacher_embeddings": self._embed_store(embed, batcher)}
            batcher = Batcher(store, self._budget, label=targets, node_columns=columns)
        self._graphs = [self._devices.put(stack([batcher(rows)])) for rows in self._plan]

        loss = property_loss(Standardiser(0.0, 1.0), axis_name=AXIS)
        if job == "pretrain":
            n_block = self._budget.extra["blocks"]
            loss = pretraining_loss(axis_name=AXIS)
            self._step = self._training(teacher, self._teacher, loss, n_block=n_block)
        elif job == "cgcnn":
            self._step = self._training(student, self._student, loss)
        elif job == "distilled":
            self._step = self._training(student, self._student, distil(loss, 0.5, axis_name=AXIS))
        else:
            self._step = embed

    def plan(self) -> list[np.ndarray]:
        """Rows of the store in each batch."""
        return self._plan

    def parameters(self) -> tuple[Any, Any]:
        """Initial parameters of student and teacher, as nested dictionaries of NumPy arrays."""
        return jax.tree.map(np.asarray, (self._student.params, self._teacher.params))

    def check(self) -> dict[str, float]:
        """What the step computes of the first batch."""
        outputs = self._devices.first(self._step(self._graphs[0]))
        if isinstance(outputs, dict):
            return {name: float(outputs[name]) for name in ("loss", "gradient_norm")}
        n_atoms = int(self._store.n_nodes[self._plan[0]].sum())
        return {"embedding_norm": float(np.linalg.norm(outputs[:n_atoms].mean(axis=0)))}

    def repeat(self, batches: Sequence[int]) -> float:
        """Seconds for a step on each of these batches, after one more that is not counted: the
        other sides have had the caches and the memory meanwhile."""
        jax.block_until_ready(self._step(self._graphs[batches[0]]))
        start = time.perf_counter()
        for batch in batches:
            outputs = self._step(self._graphs[batch])
        jax.block_until_ready(outputs)
        return time.perf_counter() - start

    def memory(self) -> float | None:
        """GB."""
        return peak_memory()

    def filled(self) -> dict[str, float]:
        """Fraction of a batch's static shape that is not padding, on average."""
        store, budget = self._store, self._budget
        sizes = {"nodes": store.n_nodes, "edges": store.n_edges}
        shape = {"nodes": budget.nodes, "edges": budget.edges}
        if "blocks" in budget.extra:
            sizes["pairs"] = store.n_nodes**2
            shape["pairs"] = budget.extra["blocks"] * TILE**2
        mean = lambda values: np.mean([values[rows].sum() for rows in self._plan])
        return {name: round(float(mean(sizes[name]) / shape[name]), 3) for name in sizes}

    def _state(self, module: nn.Module, **call: Any) -> TrainState:
        optimiser = create_optimiser(LEARNING_RATE, total_steps=10_000)
        return create_state(module, optimiser, jax.random.key(0), self._example, **call)

    def _training(
        self, module: nn.Module, initial: TrainState, loss: Loss, **call: Any
    ) -> Callable:
        optimiser = create_optimiser(LEARNING_RATE, total_steps=10_000)
        step = self._devices.compile(
            make_train_step(module, loss, optimiser, axis_name=AXIS, **call), donate=(0,)
        )
        state = self._devices.replicate(initial)

        def run(graph):
            nonlocal state
            state, metrics = step(state, graph)
            return metrics

        return run

    def _embedding(self, teacher: Teacher) -> Callable:
        embed = self._devices.compile(
            lambda variables, graph: teacher.apply(variables, graph, method=Teacher.embed)
        )
        variables = self._devices.replicate(self._teacher.variables)
        return lambda graph: embed(variables, graph)

    def _embed_store(self, embed: Callable, batcher: Batcher) -> np.ndarray:
        """``[all atoms of the store, 64]``; zero for crystals of no batch."""
        store = self._store
        vectors = np.zeros((int(store.node_offsets[-1]), 64), np.float32)
        for rows in self._plan:
            values = self._devices.first(embed(self._devices.put(stack([batcher(rows)]))))
            start = 0
            for row, n in zip(rows, store.n_nodes[rows]):
                first = store.node_offsets[row]
                vectors[first : first + n] = values[start : start + n]
                start += n
        return vectors
