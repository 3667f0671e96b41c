"""Learning without labels."""

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from crysgnn_jax.batches.loader import Loader, NodeColumn, lay_out
from crysgnn_jax.batches.splits import Split
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.members import code_of, is_own
from crysgnn_jax.models.registry import plain_settings
from crysgnn_jax.objectives.distillation import teacher_columns
from crysgnn_jax.pretraining.objective import (
    Objective,
    Weighted,
    pretraining_loss,
    pretraining_metrics,
    with_trivial_losses,
)
from crysgnn_jax.pretraining.registry import PRETRAINED, RELEASED
from crysgnn_jax.training.evaluation import Evaluator, compiled
from crysgnn_jax.training.memory import Memory
from crysgnn_jax.training.property_task import Start, bare
from crysgnn_jax.training.run import Learner, Run
from crysgnn_jax.training.workdir import MEMORY, Workdir

VALIDATION_FRACTION = 0.05


def hold_out(rows: np.ndarray | int, seed: int) -> Split:
    """5 % of some crystals at random, at least one, for validation; the others for training.

    Args:
      rows: of the store; a number for as many from the first.
      seed: of the draw.

    Raises:
      UserError: there are fewer than two crystals.
    """
    rows = np.arange(rows) if isinstance(rows, int) else rows
    n = len(rows)
    if n < 2:
        raise UserError(f"pre-training needs at least 2 crystals, not {n}")
    order = np.random.default_rng(seed).permutation(rows)
    n_validation = max(1, round(VALIDATION_FRACTION * n))
    return Split(np.sort(order[n_validation:]), np.sort(order[:n_validation]), order[:0])


def rows_without(store: GraphStore, formulas: Collection[str]) -> np.ndarray:
    """Rows of a store whose reduced formula is none of some.

    So that a teacher has not seen what its students are tested on: the same compound would be
    there under another id, or as another polymorph. What a user may name is read by
    `crystals.excluded`.
    """
    if not formulas:
        return np.arange(len(store))
    return np.flatnonzero([formula not in formulas for formula in store.reduced_formula.tolist()])


def needed_lists(objectives: Weighted) -> tuple[str, ...]:
    """The lists that batches must hold for these objectives."""
    return tuple(dict.fromkeys(name for objective, _ in objectives for name in objective.needs))


def _differing(objective: Objective) -> dict[str, Any]:
    """The settings of an objective that are not at their defaults; functions by name, those of
    others than the package by their code too."""
    found = {}
    fields: Any = objective
    for field in dataclasses.fields(fields):
        value = getattr(objective, field.name)
        if value != field.default:
            named = callable(value)
            found[field.name] = f"{value.__module__}:{value.__qualname__}" if named else value
            if named and is_own(value):
                found[f"{field.name}_code"] = code_of(value)
    return found


@dataclasses.dataclass(frozen=True)
class PretrainingTask:
    """Train a network without labels; the lowest validation loss decides which epoch is kept.

    Attributes:
      objectives: of the run's module, each with its weight.
      teacher_embeddings: ``[all atoms of the store, d]``, where an objective is to tell them.
      teacher: fingerprint of the network that they are of.
      teacher_memory: what that one was trained on; None where it is not known.
      start: weights of the student to start from; None for random ones.
    """

    objectives: Weighted
    teacher_embeddings: np.ndarray | None = None
    teacher: str | None = None
    teacher_memory: Memory | None = None
    start: Start | None = None

    def made_with(self, run: Run) -> dict[str, Any]:
        """What of the task determines the outcome."""
        module: Any = run.module
        if run.name in PRETRAINED:
            model = {name: getattr(module, name) for name in ("width", "n_convolutions", "cutoff")}
            # Runs of the authors' recipe are called as they were before there was another.
            if module.unit_length != type(module).unit_length:
                model["unit_length"] = module.unit_length
        else:
            model = plain_settings(module.student)
        names = ("epochs", "batch_size", "learning_rate", "seed")
        chosen = {name: getattr(run.settings, name) for name in names}
        # What the authors did without is written down where it is used.
        more = {name: getattr(run.settings, name) for name in ("weight_decay", "patience")}
        chosen |= {name: value for name, value in more.items() if value}
        if run.settings.accumulate > 1:
            chosen["accumulate"] = run.settings.accumulate
        chosen["weights"] = {objective.name: weight for objective, weight in self.objectives}
        authors = {objective.name: objective for objective, _ in RELEASED.get(run.name, ())}
        for objective, _ in self.objectives:
            if objective.name not in authors:
                if differing := _differing(objective):
                    chosen[objective.name] = differing
            elif objective != authors[objective.name] or objective.name == "contrastive":
                chosen |= vars(objective)
        foreign = [type(objective) for objective, _ in self.objectives if is_own(type(objective))]
        if foreign:
            chosen["code"] = {kind.name: code_of(kind) for kind in foreign}
        more = {} if self.teacher is None else {"teacher": self.teacher}
        if self.start is not None:
            more["start"] = self.start.fingerprint
        if run.name not in PRETRAINED and is_own(type(module.student)):
            more["code"] = code_of(type(module.student))
        if len(run.split.train) + len(run.split.validation) < len(run.store):
            more["crystals"] = run.split.fingerprint(run.store)
        return {"model": model, "settings": chosen, **more}

    def in_words(self) -> str:
        """What is learned."""
        names = [objective.name.replace("_", " ") for objective, _ in self.objectives]
        return f"learning {', '.join(names)}"

    def set_up(self, run: Run, workdir: Workdir) -> Learner:
        """What is to be trained, and by what."""
        store, split = run.store, run.split
        needs = run.network.needs
        lists = dict.fromkeys([*needs.lists, *needed_lists(self.objectives)])
        needs = dataclasses.replace(needs, lists=tuple(lists))
        columns: dict[str, NodeColumn] = {}
        for objective, _ in self.objectives:
            columns |= objective.columns(store)
        if self.teacher_embeddings is not None:
            columns |= teacher_columns(self.teacher_embeddings)
        rows = np.concatenate([split.train, split.validation])
        batcher, _ = lay_out(store, rows, needs, run.crystals_a_batch, node_columns=columns)
        loader = Loader(batcher, run.learners)
        loss, module = pretraining_loss(self.objectives), run.module
        # The same every time, so that epochs are judged by the same hidden parts.
        hidden = {"corruption": jax.random.key(0)}

        def outputs_of(variables, graph):
            return module.apply(variables, graph, False, rngs=hidden)

        def metrics_of(outputs, graph):
            value, parts = loss(outputs, graph)
            more = pretraining_metrics(self.objectives, outputs, graph)
            return {"loss": value, **parts, **more}

        program = compiled(run.devices, outputs_of, metrics_of)
        evaluator = Evaluator(run.devices, program, Loader(batcher, run.devices))

        def evaluate(variables: Any) -> tuple[float, dict[str, float]]:
            means = with_trivial_losses(
                self.objectives, evaluator.means(variables, split.validation)
            )
            return means["loss"], {f"validation_{name}": value for name, value in means.items()}

        def finish(variables: Any) -> dict[str, Any]:
            _, metrics = evaluate(variables)
            ids = split.ids(store)
            workdir.write_splits({name: ids[name] for name in ("train", "validation")})
            before = (self.teacher_memory, self.start and self.start.memory)
            Memory.of(store, rows, before).save(workdir.path / MEMORY)
            counts = {"n_train": len(split.train), "n_validation": len(split.validation)}
            return {"task": "pretraining", **counts, "n_test": 0, **metrics}

        begin = None
        if self.start is not None:
            inner = self.start.begin
            begin = lambda variables: {
                name: {**tree, "student": inner(bare(variables))[name]}
                for name, tree in variables.items()
            }
        return Learner(module, loss, loader, begin, evaluate, finish)
