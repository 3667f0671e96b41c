"""How a network is trained: settings of any run, and of one that learns a property."""

import dataclasses
import importlib.util
import math
from typing import Any

from crysgnn_jax.errors import UserError
from crysgnn_jax.models.recipe import LOSSES, Recipe
from crysgnn_jax.settings import setting

LEVEL = 0.9
"""Share of crystals that the interval of a prediction is to hold unless another is asked for."""

TEACHER = "crysgnn-mp"
"""Name of the teacher that comes with the package."""

START_RATE = 0.4
"""Learning rate of a student that starts from what it has learned without labels, as a share of
that of one that starts from random weights."""

FEWEST = 8
"""Crystals of a batch that is made smaller because there are few: with 4, the statistics of a batch
norm say so little of other crystals that a student of 16 was worse than their mean."""


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How long and how to train. See each field's help.

    Example:
      ``TrainingSettings(epochs=100, learning_rate=0.002)``
    """

    epochs: int = setting(60, "passes over the training crystals", kind="positive int")
    patience: int | None = setting(
        None,
        "stop after N epochs without a better validation score (default: never)",
        kind="positive int",
    )
    batch_size: int = setting(
        None, "crystals of an average batch, a device (default: the network's own)",
        kind="positive int",
    )  # fmt: skip
    accumulate: int = setting(
        1,
        "take the gradient of a step in N parts, one after the other: needs about an Nth of the "
        "memory, and a third more time",
        kind="positive int",
    )
    learning_rate: float = setting(
        None,
        "highest rate of Adam; it warms up and falls to 0 (default: the network's own, less for "
        "the smaller batches of few crystals)",
        kind="positive",
    )
    weight_decay: float = setting(
        None,
        "of matrices, decoupled from the gradient (default: the network's own)",
        kind="not negative",
    )
    seed: int = setting(
        0, "of weights, splits and order; the same seed gives the same run", kind="natural int"
    )
    log_every: int = setting(
        50, "steps between lines of metrics.jsonl", kind="positive int", decides=False
    )
    checkpoint_seconds: float = setting(
        20.0,
        "save no more often than every X seconds; what a kill can cost",
        kind="not negative",
        decides=False,
    )

    tensorboard: bool = setting(
        False,
        "write the lines of metrics.jsonl for TensorBoard too, to DIR/tensorboard (default: to "
        "that file alone)",
        decides=False,
    )
    wandb: str | None = setting(
        None,
        "send the lines of metrics.jsonl to this project of Weights & Biases too (default: none)",
        metavar="PROJECT",
        decides=False,
    )

    def __post_init__(self) -> None:
        # Before any work is done, and not where it is first used.
        for parameter, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
            if getattr(self, parameter) and importlib.util.find_spec(package) is None:
                raise UserError(f"`{parameter}` needs {package}: pip install 'crysgnn-jax[report]'")

    def untracked(self) -> "TrainingSettings":
        """The same, of a run that leaves no more than its folder."""
        return dataclasses.replace(self, tensorboard=False, wandb=None)

    def filled(self, recipe: Recipe, n_train: int, n_devices: int = 1) -> "TrainingSettings":
        """With the network's own where nothing was given.

        Args:
          recipe: of the network.
          n_train: training crystals. A step takes no more than a tenth of them, but at least
            `FEWEST` a device, and the rate falls with its square root: an epoch of one step would
            teach next to nothing.
          n_devices: that a step is shared by.

        Raises:
          UserError: a batch has fewer crystals than it is to be taken in parts.
        """
        few = max(FEWEST, n_train // (10 * n_devices))
        if self.batch_size is None and few < recipe.batch_size:
            # Gradients of fewer crystals are noisier, by the square root of their number.
            rate = recipe.learning_rate * math.sqrt(few / recipe.batch_size)
            recipe = dataclasses.replace(recipe, batch_size=few, learning_rate=rate)
        own = ("batch_size", "learning_rate", "weight_decay")
        given = {name: getattr(self, name) for name in own}
        filled = dataclasses.replace(
            self,
            **{name: getattr(recipe, name) for name, value in given.items() if value is None},
        )
        if filled.accumulate > filled.batch_size:
            raise UserError(
                f"`accumulate` {self.accumulate}: a device takes {filled.batch_size} crystals in a "
                "step, which are its `batch_size`; give no more than that, or larger batches"
            )
        return filled


@dataclasses.dataclass(frozen=True)
class PropertySettings:
    """What a property predictor learns, and from whom. See each field's help.

    Example:
      ``PropertySettings(weight=0.3, loss="l1")``
    """

    property: str = ""
    unit: str = setting(
        None, "unit of the property, for one of your own (default: of a known one its own)",
        metavar="UNIT",
    )  # fmt: skip
    weight: float = setting(
        None,
        "weight of the teacher's pull beside the labels: 0 is the student alone (default 0.1, for "
        "pulls that are not standardised 0.5)",
        kind="fraction",
    )
    pull: str = setting(
        "standardised",
        "how the teacher pulls: standardised, through a projection on embeddings of mean 0 and "
        "variance 1; released, as the authors did; or a function of your own as "
        "package.module:NAME",
        metavar="NAME",
    )
    loss: str = setting(None, "of the property (default: the student's own)", choices=LOSSES)
    raw_targets: bool = setting(
        False,
        "train on targets in their own unit (default: standardised by the training crystals)",
    )
    taught_by: int = setting(
        0,
        "distil N students first, and let one more learn from what they say of crystals without "
        "labels too; 0 for none",
        kind="natural int",
    )
    unlabelled_per_batch: int = setting(
        None,
        "crystals without labels in an average batch, beside those with labels (default 0; with "
        "--taught-by 192)",
        kind="natural int",
    )

    def needs_unlabelled(self) -> bool:
        """Whether it takes crystals without labels, beside those that a student begins with."""
        return self.taught_by > 0 or bool(self.unlabelled_per_batch)

    def filled(self, recipe: Recipe) -> "PropertySettings":
        """With the network's own, and the pull's, where nothing was given."""
        weight = self.weight
        if weight is None:
            weight = 0.1 if self.pull == "standardised" else 0.5
        beside = self.unlabelled_per_batch
        if beside is None:
            beside = 192 if self.taught_by else 0
        return dataclasses.replace(
            self,
            loss=self.loss or recipe.loss,
            weight=weight,
            unlabelled_per_batch=beside,
            unit=self.unit or "",
        )


@dataclasses.dataclass(frozen=True)
class UntaggedSettings:
    """How a student follows the teacher before it sees a label. See each field's help.

    Example:
      ``UntaggedSettings(untagged_epochs=0)``
    """

    untagged_epochs: int = setting(
        None,
        "passes over the crystals without labels, on which the student follows the teacher before "
        "it sees any label; 0 for none (default: 120,000 crystals in all, in 3 to 20 passes; for "
        "the pull released 0)",
        kind="natural int",
    )

    def filled(self, pull: str) -> "UntaggedSettings":
        """With the pull's own where it has one: the authors had no such stage."""
        if self.untagged_epochs is None and pull == "released":
            return dataclasses.replace(self, untagged_epochs=0)
        return self

    def epochs_of(self, n_crystals: int) -> int:
        """Passes over so many crystals."""
        if self.untagged_epochs is not None:
            return self.untagged_epochs
        return max(3, min(20, round(120_000 / n_crystals)))


def updated(settings: Any, values: dict[str, Any]) -> Any:
    """Settings with those of ``values`` that they have, where they are given."""
    names = {field.name for field in dataclasses.fields(settings)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    return dataclasses.replace(settings, **given)
