"""How a network's authors trained it. Without JAX, for the flags of the commands."""

import dataclasses

from crysgnn_jax.errors import UserError

LOSSES = ("mse", "smooth_l1", "l1")
"""Names of losses of a property, see `objectives.property`."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a run does unless it is told otherwise.

    Attributes:
      loss: of the property: ``mse``, ``smooth_l1`` or ``l1``.
      learning_rate: the highest of the schedule.
      batch_size: crystals of an average batch, a device.
      weight_decay: decoupled, on kernels alone.

    Raises:
      UserError: there is no such loss.

    Example:
      ``Recipe(loss="l1", learning_rate=0.001)``
    """

    loss: str = "mse"
    learning_rate: float = 0.005
    batch_size: int = 64
    weight_decay: float = 0.0

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise UserError(f"Recipe(loss={self.loss!r}): there is {', '.join(LOSSES)}")
