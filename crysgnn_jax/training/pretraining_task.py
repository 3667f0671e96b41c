"""Learning without labels."""

import dataclasses
from typing import Any

import jax
import numpy as np

from crysgnn_jax.batches.loader import Loader, lay_out
from crysgnn_jax.batches.splits import Split
from crysgnn_jax.errors import UserError
from crysgnn_jax.members import code_of, is_own
from crysgnn_jax.pretraining.objective import Weighted, pretraining_loss, pretraining_metrics
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.training.evaluation import Evaluator
from crysgnn_jax.training.run import Learner, Run
from crysgnn_jax.training.workdir import Workdir

VALIDATION_FRACTION = 0.05


def hold_out(n: int, seed: int) -> Split:
    """``n`` crystals: 5 % at random, at least one, for validation; the others for training.

    Raises:
      UserError: there are fewer than two crystals.
    """
    if n < 2:
        raise UserError(f"pre-training needs at least 2 crystals, not {n}")
    order = np.random.default_rng(seed).permutation(n)
    n_validation = max(1, round(VALIDATION_FRACTION * n))
    return Split(np.sort(order[n_validation:]), np.sort(order[:n_validation]), order[:0])


def needed_lists(objectives: Weighted) -> tuple[str, ...]:
    """The lists that batches must hold for these objectives."""
    return tuple(dict.fromkeys(name for objective, _ in objectives for name in objective.needs))


@dataclasses.dataclass(frozen=True)
class PretrainingTask:
    """Train a network without labels; the lowest validation loss decides which epoch is kept.

    Attributes:
      objectives: of the run's module, each with its weight.
    """

    objectives: Weighted

    def made_with(self, run: Run) -> dict[str, Any]:
        """What of the task determines the outcome."""
        module = run.module
        model = {name: getattr(module, name) for name in ("width", "n_convolutions", "cutoff")}
        names = ("epochs", "batch_size", "learning_rate", "seed")
        chosen = {name: getattr(run.settings, name) for name in names}
        # What the authors did without is written down where it is used.
        more = {name: getattr(run.settings, name) for name in ("weight_decay", "patience")}
        chosen |= {name: value for name, value in more.items() if value}
        chosen["weights"] = {objective.name: weight for objective, weight in self.objectives}
        for objective, _ in self.objectives:
            default = next((x for x, _ in RELEASED[run.name] if x.name == objective.name), None)
            if objective != default or objective.name == "contrastive":
                chosen |= vars(objective)
        foreign = [type(objective) for objective, _ in self.objectives if is_own(type(objective))]
        if foreign:
            chosen["code"] = {kind.name: code_of(kind) for kind in foreign}
        return {"model": model, "settings": chosen}

    def set_up(self, run: Run, workdir: Workdir) -> Learner:
        """What is to be trained, and by what."""
        store, split = run.store, run.split
        needs = dataclasses.replace(run.network.needs, lists=needed_lists(self.objectives))
        batcher, _ = lay_out(store, np.arange(len(store)), needs, run.settings.batch_size)
        loader = Loader(batcher, run.devices)
        loss, module = pretraining_loss(self.objectives), run.module
        # The same every time, so that epochs are judged by the same hidden parts.
        hidden = {"corruption": jax.random.key(0)}

        def metrics_of(variables, graph):
            outputs = module.apply(variables, graph, False, rngs=hidden)
            value, parts = loss(outputs, graph)
            more = pretraining_metrics(self.objectives, outputs, graph)
            return {"loss": value, **parts, **more}

        evaluator = Evaluator(run.devices, metrics_of, loader)

        def evaluate(variables: Any) -> tuple[float, dict[str, float]]:
            means = evaluator.means(variables, split.validation)
            return means["loss"], {f"validation_{name}": value for name, value in means.items()}

        def finish(variables: Any) -> dict[str, Any]:
            _, metrics = evaluate(variables)
            ids = split.ids(store)
            workdir.write_splits({name: ids[name] for name in ("train", "validation")})
            counts = {"n_train": len(split.train), "n_validation": len(split.validation)}
            return {"task": "pretraining", **counts, "n_test": 0, **metrics}

        return Learner(module, loss, loader, None, evaluate, finish)
