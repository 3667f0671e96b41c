"""A PyTorch state dict that is being read: each array is taken once, of the shape expected."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from crysgnn_jax.errors import UserError

Tree = dict[str, Any]


class State:
    """Arrays by torch name, each to be taken once.

    Args:
      arrays: name → array: those under ``params/`` where there are any, else all but scalars.
      complaint: beginning of every message.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], complaint: str):
        prefix = "params/"
        inside = {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
        # Without any prefix, what else a file holds has a slash in its name, or none at all.
        bare = {k: v for k, v in arrays.items() if "/" not in k and np.ndim(v)}
        self._left = {
            name: array
            for name, array in (inside or bare).items()
            if not name.endswith("num_batches_tracked")
        }
        self._complaint = complaint

    def misfit(self, what: str) -> UserError:
        """The error to raise when the arrays are not those of the kind."""
        return UserError(f"{self._complaint}: {what}")

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def shape(self, name: str, n_axes: int) -> tuple[int, ...]:
        """Shape of an array of so many axes, which stays.

        Raises:
          UserError: it is missing, or has another number of axes.
        """
        if name not in self._left:
            raise self.misfit(f"{name} is missing")
        shape = np.shape(self._left[name])
        if len(shape) != n_axes:
            raise self.misfit(f"{name} is {shape}, not of {n_axes} axes")
        return shape

    def take(self, name: str, *shape: int) -> np.ndarray:
        """An array of this very shape, float32.

        Raises:
          UserError: it is missing, or of another shape or not of numbers.
        """
        found = self.shape(name, len(shape))
        if found != shape:
            raise self.misfit(f"{name} is {found} and should be {shape}")
        array = self._left.pop(name)
        if array.dtype.kind not in "fiu":
            raise self.misfit(f"{name} holds {array.dtype}, not numbers")
        return array.astype(np.float32)

    def linear(self, prefix: str, n_in: int, n_out: int, *, use_bias: bool = True) -> Tree:
        out = {"kernel": self.take(f"{prefix}.weight", n_out, n_in).T}
        if use_bias:
            out["bias"] = self.take(f"{prefix}.bias", n_out)
        return out

    def norm(self, prefix: str, width: int) -> tuple[Tree, Tree]:
        """Parameters and statistics of a batch norm."""
        take = lambda name: self.take(f"{prefix}.{name}", width)
        return (
            {"scale": take("weight"), "bias": take("bias")},
            {"mean": take("running_mean"), "var": take("running_var")},
        )

    def count(self, prefix: str) -> int:
        """How many layers there are: of ``prefix.0.…``, ``prefix.1.…`` and so on."""
        return len({k.split(".")[1] for k in self._left if k.startswith(f"{prefix}.")})

    def drop(self, prefix: str) -> None:
        """Leave out what the network never uses."""
        self._left = {k: v for k, v in self._left.items() if not k.startswith(prefix)}

    def require_empty(self) -> None:
        """Check that everything has been taken.

        Raises:
          UserError: names the first array that has not.
        """
        if self._left:
            raise self.misfit(f"it has no use for {next(iter(self._left))}")
