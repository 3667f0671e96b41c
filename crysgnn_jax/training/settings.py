"""How a network is trained: settings of any run, and of one that learns a property."""

import dataclasses
from typing import Any

from crysgnn_jax.models.recipe import LOSSES, Recipe
from crysgnn_jax.settings import setting


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
    learning_rate: float = setting(
        None,
        "highest rate of Adam; it warms up and falls to 0 (default: the network's own)",
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

    def filled(self, recipe: Recipe) -> "TrainingSettings":
        """With the network's own where nothing was given."""
        own = ("batch_size", "learning_rate", "weight_decay")
        given = {name: getattr(self, name) for name in own}
        return dataclasses.replace(
            self,
            **{name: getattr(recipe, name) for name, value in given.items() if value is None},
        )


@dataclasses.dataclass(frozen=True)
class PropertySettings:
    """What a property predictor learns, and from whom. See each field's help.

    Example:
      ``PropertySettings(weight=0.3, loss="l1")``
    """

    property: str = ""
    unit: str = ""
    weight: float = setting(
        0.5, "weight of the teacher's pull: 0 is the student alone", kind="fraction"
    )
    pull: str = setting(
        "released",
        "how the teacher pulls: released, or a function of your own as package.module:NAME",
        metavar="NAME",
    )
    loss: str = setting(None, "of the property (default: the student's own)", choices=LOSSES)
    raw_targets: bool = setting(
        False,
        "train on targets in their own unit (default: standardised by the training crystals)",
    )
    unlabelled_per_batch: int = setting(
        32,
        "crystals of --unlabelled in an average batch, beside those with labels",
        kind="positive int",
    )

    def filled(self, recipe: Recipe) -> "PropertySettings":
        """With the network's own where nothing was given."""
        return self if self.loss else dataclasses.replace(self, loss=recipe.loss)


def updated(settings: Any, values: dict[str, Any]) -> Any:
    """Settings with those of ``values`` that they have, where they are given."""
    names = {field.name for field in dataclasses.fields(settings)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    return dataclasses.replace(settings, **given)
