"""Every mention of devices: how many there are, and how a step is spread over them.

One batch a device, the parameters replicated: arrays that a step takes or returns have a leading
axis of one entry a device. Inside a step, `AXIS` names that axis for sums over devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jraph
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from crysgnn_jax.batches.views import mark_spread
from crysgnn_jax.errors import UserError

AXIS = "devices"
"""Name of the device axis inside steps, which batches carry with them: see `Devices.put`."""


class Compiled:
    """A function compiled for several devices, once.

    Batches have one static shape, so that a second compilation can only be a mistake, and a slow
    one: it is refused.
    """

    def __init__(self, step: Callable, devices: list[jax.Device], donate: tuple[int, ...]):
        self.compilations = 0

        def traced(*arguments):
            # Runs once for each new shape or type of the arguments, and not at other calls.
            self.compilations += 1
            if self.compilations > 1:
                shapes = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", arguments)
                raise RuntimeError(
                    f"a step would be compiled again: its arguments are now {shapes}"
                )
            return step(*arguments)

        self._call = jax.pmap(traced, axis_name=AXIS, devices=devices, donate_argnums=donate)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class Devices:
    """The local devices that a run uses.

    Args:
      count: how many; None for all.

    Raises:
      UserError: there are fewer.
    """

    def __init__(self, count: int | None = None):
        available = jax.local_devices()
        if count is not None and count > len(available):
            hint = (
                f"; set XLA_FLAGS=--xla_force_host_platform_device_count={count} to split the CPU"
                if available[0].platform == "cpu"
                else ""
            )
            raise UserError(
                f"`devices` {count}: this machine has {len(available)} "
                f"({available[0].device_kind}){hint}"
            )
        self._take(available[:count])

    def _take(self, devices: list[jax.Device]) -> None:
        self._devices = devices
        mesh = Mesh(np.array(devices), (AXIS,))
        self._sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def each(self) -> "list[Devices]":
        """Every device by itself, for runs side by side."""
        singles = []
        for device in self._devices:
            single = object.__new__(Devices)
            single._take([device])
            singles.append(single)
        return singles

    def __len__(self) -> int:
        return len(self._devices)

    def __str__(self) -> str:
        kind = self._devices[0].device_kind
        return f"{len(self)} × {kind} ({self._devices[0].platform})"

    def require(self, n_train: int) -> None:
        """Check that there is a training crystal for every device.

        Raises:
          UserError: there are fewer.
        """
        if n_train < len(self):
            raise UserError(
                f"{n_train} training crystals are too few for {len(self)} devices; "
                f"give more, or `devices` {max(n_train, 1)}"
            )

    def compile(self, step: Callable, *, donate: tuple[int, ...] = ()) -> "Compiled":
        """Compile ``step`` to run on every device at once, each on its slice of the arguments.

        Args:
          step: a pure function; it may sum over devices along `AXIS`.
          donate: numbers of the arguments whose memory the result may take over.
        """
        return Compiled(step, self._devices, donate)

    def put(self, stacked: Any) -> Any:
        """Move arrays ``[n_devices, …]`` onto the devices, one slice each.

        Batches are marked as spread over the devices, so that in a step sums over their rows
        (`batches.views.Rows`) are over the rows of all devices.
        """
        if isinstance(stacked, jraph.GraphsTuple):
            stacked = mark_spread(stacked, AXIS)
        return jax.device_put(stacked, self._sharding)

    def replicate(self, tree: Any) -> Any:
        """A copy of every array on every device: ``[…]`` → ``[n_devices, …]``."""
        return self.put(jax.tree.map(lambda x: np.stack([np.asarray(x)] * len(self)), tree))

    @staticmethod
    def first(tree: Any) -> Any:
        """The first device's copy, as NumPy arrays: ``[n_devices, …]`` → ``[…]``."""
        return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], tree)
