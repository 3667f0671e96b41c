"""Learning a property, with or without a teacher."""

import csv
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jraph
import numpy as np

from crysgnn_jax.batches.loader import Loader, lay_out
from crysgnn_jax.batches.splits import digest_of_ids
from crysgnn_jax.crystals.formula import readable
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.members import code_of, is_own
from crysgnn_jax.models.registry import OTHERS, STUDENTS, plain_settings
from crysgnn_jax.objectives.distillation import (
    ProjectedStudent,
    Pull,
    distil,
    embedding_loss,
    is_projected,
    teacher_columns,
)
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.settings import deciding
from crysgnn_jax.training.baseline import mae_of_composition
from crysgnn_jax.training.evaluation import Evaluator, compiled, predicted, what_it_says
from crysgnn_jax.training.memory import Memory, Seen
from crysgnn_jax.training.reference import Reference, kept
from crysgnn_jax.training.run import Learner, Run
from crysgnn_jax.training.settings import PropertySettings
from crysgnn_jax.training.taught import Taught
from crysgnn_jax.training.workdir import PREDICTIONS, REFERENCE, WORST, Workdir

N_WORST = 10
"""Test crystals, those with the largest errors, whose structures a run keeps."""

Variables = Mapping[str, Any]
"""What ``module.apply`` takes: ``params`` and ``batch_stats``."""


class Start(NamedTuple):
    """Weights to start from.

    Attributes:
      begin: random initial variables → those to start from, such as `take_over` gives.
      fingerprint: of the network that they come from.
      about: what ``result.json`` is to say of how that was trained.
      standardiser: of the property that it was trained on, in whose terms its outputs are; None
        where it was not, for the training crystals then decide.
      memory: of what it was trained on without labels; None where that is not known.
    """

    begin: Callable[[Variables], Variables]
    fingerprint: str
    about: Mapping[str, Any] = {}
    standardiser: Standardiser | None = None
    memory: Memory | None = None


@dataclasses.dataclass(frozen=True)
class PropertyTask:
    """Train a property predictor, choose the epoch on validation, test once.

    Targets are standardised by the training crystals alone; the epoch is chosen by the mean
    absolute error on the validation crystals; the test crystals are looked at once, at the end.

    Attributes:
      settings: what to learn.
      teacher_embeddings: ``[all atoms of the store, d]``; needed if and only if
        ``settings.weight`` is not 0.
      pull: how the teacher pulls.
      teacher: fingerprint of the network that the embeddings are of.
      start: weights to start from; None for random ones.
      rule: by which the crystals were split.
      model: settings of the module that were given.
      unlabelled: rows of the store that take part in the teacher's pull alone; None for none.
      taught: what members say of crystals without a label, which are learned from beside the
        others; None for none.
      teacher_name: as the user knows it.
      seen: what the teacher, or the start, has seen of the test crystals; None for nothing.
    """

    settings: PropertySettings
    teacher_embeddings: np.ndarray | None = None
    teacher: str | None = None
    pull: Pull = embedding_loss
    start: Start | None = None
    rule: str = "random"
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unlabelled: np.ndarray | None = None
    taught: Taught | None = None
    teacher_name: str = ""
    seen: Seen | None = None

    @property
    def beside(self) -> np.ndarray | None:
        """Rows of the store that enter the steps without a label of their own."""
        return self.unlabelled if self.taught is None else self.taught.rows

    def made_with(self, run: Run) -> dict[str, Any]:
        """What of the task determines the outcome."""
        own = run.name not in {**STUDENTS, **OTHERS}
        unlabelled: dict[str, Any] = {}
        if self.beside is not None:
            ids = [str(id) for id in run.store.ids[self.beside]]
            n = self.settings.unlabelled_per_batch
            unlabelled = {"unlabelled": {"ids": digest_of_ids(ids), "per_batch": n}}
        if self.taught is not None:
            unlabelled["taught_by"] = self.taught.fingerprint
        kept: dict[str, Any] = {}
        if self.start is not None and self.start.standardiser is not None:
            kept = {"standardiser": dataclasses.astuple(self.start.standardiser)}
        chosen = {
            "student": run.name,
            "property": self.settings.property,
            "unit": self.settings.unit,
            **deciding(run.settings),
            **deciding(self.settings),
        }
        del chosen["unlabelled_per_batch"]
        if run.settings.accumulate == 1:  # as runs were called before there was more
            del chosen["accumulate"]
        if self.settings.weight > 0 and is_own(self.pull):
            chosen["pull_code"] = code_of(self.pull)
        return {
            "model": {**plain_settings(run.module), **self.model},
            "code": code_of(type(run.module)) if own else None,
            "split": {"rule": self.rule, "ids": run.split.fingerprint(run.store)},
            "settings": chosen,
            "teacher": self.teacher,
            "start": self.start.fingerprint if self.start else None,
            **unlabelled,
            **kept,
        }

    def in_words(self) -> str:
        """What is learned, and from whom."""
        said = self.settings.property
        if self.settings.unit:
            said += f" ({self.settings.unit})"
        said += f", teacher {self.teacher_name}" if self.settings.weight > 0 else ", no teacher"
        if self.start is not None and "from" in self.start.about:
            said += f", starting from {self.start.about['from']}"
        return said

    def set_up(self, run: Run, workdir: Workdir) -> Learner:
        """What is to be trained, and by what."""
        settings, split = self.settings, run.split
        targets = run.store.labels(settings.property)
        rows = np.concatenate([rows for _, rows in split.items()])
        label, label_weight, beside = targets, None, None
        if self.beside is not None:
            label = np.where(np.isin(np.arange(len(targets)), rows), targets, np.nan)
            n = -(-settings.unlabelled_per_batch // run.settings.accumulate)
            beside = (self.beside, n)
        if self.taught is not None:
            label[self.taught.rows] = self.taught.targets
            label_weight = np.ones(len(targets))
            label_weight[self.taught.rows] = self.taught.weights
        columns = {}
        if self.teacher_embeddings is not None:
            columns = teacher_columns(self.teacher_embeddings)
        batcher, share = lay_out(
            run.store,
            rows,
            run.network.needs,
            run.crystals_a_batch,
            label=label,
            label_weight=label_weight,
            node_columns=columns,
            beside=beside,
        )
        module, start = run.module, self.start.begin if self.start else None
        if self.teacher_embeddings is not None:
            start = _as_vanilla(module, batcher(split.train[:1]), run.settings.seed, start)
            width = self.teacher_embeddings.shape[1]
            module = ProjectedStudent(module, width, always=is_projected(self.pull))
        fitted = Standardiser.fit(targets[split.train])
        standardiser = Standardiser(0.0, 1.0) if settings.raw_targets else fitted
        if self.start is not None and self.start.standardiser is not None:
            # With another, what the network knows already would be shifted and scaled.
            standardiser = self.start.standardiser

        def standardised(variables: Any, graph: jraph.GraphsTuple) -> jax.Array:
            outputs: Any = module.apply(variables, graph, False)
            return outputs.prediction

        program = compiled(run.devices, standardised)
        evaluator = Evaluator(run.devices, program, Loader(batcher, run.devices))

        def predict(variables: Any, rows: np.ndarray) -> np.ndarray:
            # In float64: a total energy of −1e4 eV has no third decimal in float32.
            return standardiser.invert(evaluator.per_crystal(variables, rows))

        def evaluate(variables: Any) -> tuple[float, dict[str, float]]:
            mae = _mae(predict(variables, split.validation), targets[split.validation])
            return mae, {"validation_mae": mae}

        def finish(variables: Any) -> dict[str, Any]:
            found = run.devices.first(variables)
            own = found if self.teacher_embeddings is None else bare(found)
            loader = Loader(batcher, run.devices)
            says = compiled(run.devices, what_it_says(run.module))
            raw, embeddings = predicted(says, own, run.devices, loader, rows)
            place = {row: k for k, row in enumerate(rows)}
            of = lambda chosen: np.array([place[row] for row in chosen], int)
            predictions = {
                name: standardiser.invert(raw[of(chosen)]) for name, chosen in split.items()
            }
            if workdir.ours:
                self._write(run, workdir, targets, predictions)
            reference = Reference.of(
                run.store,
                split.train,
                split.validation,
                {
                    "train": embeddings[of(kept(split.train))],
                    "validation": embeddings[of(split.validation)],
                },
                targets,
                predictions["validation"],
            )
            if workdir.ours:
                reference.save(workdir.path / REFERENCE)
            result = self._result(run, targets, predictions, standardiser, fitted)
            # The projection that the pull looks through is no part of what predicts.
            return {**result, "parameters": sum(x.size for x in jax.tree.leaves(own["params"]))}

        return Learner(
            module,
            distil(
                property_loss(standardiser, kind=settings.loss), self.pull, weight=settings.weight
            ),
            Loader(batcher, run.learners, share=share, beside=self.beside),
            start,
            evaluate,
            finish,
        )

    def _write(
        self,
        run: Run,
        workdir: Workdir,
        targets: np.ndarray,
        predictions: Mapping[str, np.ndarray],
    ) -> None:
        store = run.store
        with open(workdir.path / PREDICTIONS, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["id", "split", "target", "prediction", "formula", "n_atoms", "space_group"]
            )
            for name, rows in run.split.items():
                for row, value in zip(rows, predictions[name]):
                    known = [store.ids[row], name, f"{targets[row]:.9g}", f"{value:.9g}"]
                    about = [store.n_nodes[row], store.space_group[row]]
                    writer.writerow([*known, readable(str(store.reduced_formula[row])), *about])
        test = run.split.test
        worst = np.argsort(-np.abs(predictions["test"] - targets[test]), kind="stable")[:N_WORST]
        write_table(workdir.path / WORST, [store.crystal(row) for row in test[worst]])
        workdir.write_splits(run.split.ids(run.store))

    def _result(
        self,
        run: Run,
        targets: np.ndarray,
        predictions: Mapping[str, np.ndarray],
        standardiser: Standardiser,
        fitted: Standardiser,
    ) -> dict[str, Any]:
        """What ``result.json`` says of the property."""
        settings, split = self.settings, run.split
        mae = {name: _mae(predictions[name], targets[rows]) for name, rows in split.items()}
        start = {}
        if self.start is not None and self.start.about:
            start = {"start": dict(self.start.about)}
        unlabelled = {} if self.beside is None else {"n_unlabelled": len(self.beside)}
        seen = {} if self.seen is None else {"teacher_has_seen": self.seen._asdict()}
        return {
            "task": "student",
            "property": settings.property,
            "unit": settings.unit,
            "student": run.name,
            "distilled": settings.weight > 0,
            "weight": settings.weight,
            "n_train": len(split.train),
            "n_validation": len(split.validation),
            "n_test": len(split.test),
            **unlabelled,
            **start,
            **seen,
            "train_mae": mae["train"],
            "validation_mae": mae["validation"],
            "test_mae": mae["test"],
            "target_mean": standardiser.mean,
            "target_std": standardiser.std,
            # The errors of always predicting the mean of the training crystals, and of knowing
            # nothing but compositions, to judge the others by.
            "test_mae_of_mean": _mae(np.full(len(split.test), fitted.mean), targets[split.test]),
            "test_mae_of_composition": mae_of_composition(run.store, targets, split),
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
