"""What the graph store asks of a collection of crystals, wherever it comes from."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from crysgnn_jax.data.crystal import Crystal


class Source(Protocol):
    """A collection of crystals that can be read piece by piece, also by other processes.

    Attributes:
      name: short name for messages, such as a data set's name or a path.
      label_names: the properties for which at least one item may carry a value.
      decode: a module-level function from an item to a `Crystal`. It raises `InvalidCrystal`
        for an item that is not a usable crystal. Functions and items are pickled to workers.
    """

    name: str
    label_names: Sequence[str]
    decode: Callable[[Any], Crystal]

    def __len__(self) -> int:
        """Number of items, usable or not."""

    def fingerprint(self) -> str:
        """Hex digest of the content: equal exactly when every crystal and label is."""

    def ids(self) -> np.ndarray | None:
        """``[len(self)]`` text: the ids of the items; None where they are not known unread."""

    def labelled(self, label: str) -> np.ndarray:
        """``[len(self)]`` bool: which items carry the label, as far as is known unread."""

    def items(self, start: int, stop: int) -> list[Any]:
        """The undecoded items ``start … stop − 1``: small, picklable, cheap to make."""
