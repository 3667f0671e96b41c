"""Every mention of devices: how many there are, and how a step is spread over them.

One batch a device, the parameters replicated: arrays that a step takes or returns have a leading
axis of one entry a device. Inside a step, `AXIS` names that axis for sums over devices. Of a run of
several processes, arrays hold the entries of this process's devices, and the axis has all of them.

A step may have more batches than there are devices, which then take several each, one after the
other, in rounds (`training.rounds`): where gradients are accumulated, or where a run goes on with
fewer devices than it began with.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jraph
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from crysgnn_jax import processes, stopping
from crysgnn_jax.batches.loader import EMPTY
from crysgnn_jax.batches.views import mark_spread
from crysgnn_jax.errors import UserError

AXIS = "devices"
"""Name of the device axis inside steps, which batches carry with them: see `Devices.put`."""


KEPT = 40
"""Compiled programs after which those of before are let go."""


class _Programs:
    """What has been compiled in this process, and is kept.

    `jax.pmap` keeps its programs for as long as the process lives. On a CPU each is some hundred
    memory maps, of which Linux gives a process 65,530: without this, there are none left after some
    sixty trainings, or some hundred predictions.

    Attributes:
      made: since they were last let go.
      times: that they were.
    """

    def __init__(self) -> None:
        self.made = 0
        self.times = 0

    def let_go_of_many(self) -> None:
        """Those that are still in use are compiled again when they are next called.

        Not by one of several threads, another of which may be compiling: runs side by side, a
        device each, keep theirs.
        """
        if self.made > KEPT and threading.current_thread() is threading.main_thread():
            self.made = 0
            self.times += 1
            jax.clear_caches()


_programs = _Programs()


class Compiled:
    """A function compiled for several devices.

    Batches of a run have one static shape, so that a second compilation can only be a mistake, and
    a slow one: it is refused, unless ``any_shape`` says that there may be others.

    Attributes:
      compilations: how often it was compiled, since programs were last let go.
    """

    def __init__(
        self,
        step: Callable,
        devices: list[jax.Device],
        donate: tuple[int, ...],
        any_shape: bool = False,
    ):
        self.compilations = 0
        self._any_shape = any_shape
        times = _programs.times

        def traced(*arguments):
            # Runs once for each new shape or type of the arguments, and not at other calls.
            nonlocal times
            if times < _programs.times:
                times, self.compilations = _programs.times, 0
            _programs.made += 1
            self.compilations += 1
            if self.compilations > 1 and not any_shape:
                shapes = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", arguments)
                raise RuntimeError(
                    f"a step would be compiled again: its arguments are now {shapes}"
                )
            return step(*arguments)

        _programs.let_go_of_many()
        self._call = jax.pmap(traced, axis_name=AXIS, devices=devices, donate_argnums=donate)

    def __call__(self, *arguments: Any) -> Any:
        # Not in the middle of a run, whose steps would be compiled once more.
        if self._any_shape:
            _programs.let_go_of_many()
        return self._call(*arguments)


class Devices:
    """The devices that a run uses: of this process and, if there are several, of the others.

    ``len`` is how many batches they take in a step.

    Args:
      count: how many of each process; None for all.

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
        self._take(_of_each_process(count))

    def _take(self, devices: list[jax.Device], batches: int | None = None) -> None:
        """
        Args:
          devices: of all processes.
          batches: of a step; one a device where not given.
        """
        here = [k for k, x in enumerate(devices) if x.process_index == jax.process_index()]
        self._devices = devices
        self._here = here
        self._batches = batches or len(devices)
        mesh = Mesh(np.array([devices[k] for k in here]), (AXIS,))
        self._sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def each(self) -> "list[Devices]":
        """Every device by itself, for runs side by side."""
        return [self._with([device]) for device in self._devices]

    def alone(self) -> "Devices":
        """Those of this process alone, for what it does without the others."""
        return self._with([self._devices[k] for k in self._here])

    def times(self, n: int) -> "Devices":
        """The same devices, for steps of ``n`` times as many batches."""
        return self._with(self._devices, n * self._batches)

    def taking(self, n: int) -> "Devices":
        """The same devices, or the first of them, for steps of ``n`` batches."""
        if n >= len(self._devices):
            return self._with(self._devices, n)
        # Every process has to take part: some devices may have nothing to do.
        return self._with(_of_each_process(-(-n // processes.count()), self._devices), n)

    def _with(self, devices: list[jax.Device], batches: int | None = None) -> "Devices":
        out = object.__new__(Devices)
        out._take(devices, batches)
        return out

    def __len__(self) -> int:
        return self._batches

    @property
    def rounds(self) -> int:
        """How many batches a device takes in a step, one after the other."""
        return -(-self._batches // len(self._devices))

    @property
    def of_several(self) -> bool:
        """Whether other processes have some of them."""
        return len(self._here) < len(self._devices)

    def __str__(self) -> str:
        kind = self._devices[0].device_kind
        text = f"{len(self._devices)} × {kind} ({self._devices[0].platform})"
        if self.of_several:
            text += f" of {processes.count()} processes"
        if self._batches != len(self._devices):
            text += f", {self._batches} batches a step"
        return text

    def require(self, n_train: int) -> None:
        """Check that there is a training crystal for every batch of a step.

        Raises:
          UserError: there are fewer.
        """
        if n_train < len(self):
            raise UserError(
                f"{n_train} training crystals are too few for {len(self)} devices; "
                f"give more, or `devices` {max(n_train, 1)}"
            )

    @property
    def key(self) -> tuple[Any, ...]:
        """What is equal for the same devices that take as many batches."""
        return (*self._devices, self._batches)

    def compile(
        self, step: Callable, *, donate: tuple[int, ...] = (), any_shape: bool = False
    ) -> "Compiled":
        """Compile ``step`` to run on every device at once, each on its slice of the arguments.

        Args:
          step: a pure function; it may sum over devices along `AXIS`.
          donate: numbers of the arguments whose memory the result may take over.
          any_shape: whether its arguments may have several shapes, for each of which it is
            compiled when that first comes.
        """
        return Compiled(step, self._devices, donate, any_shape)

    def own(self, step: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Those batches of a step that this process's devices take, device by device, and for each
        of them round by round: in the k-th round, the devices take the k-th of as many batches."""
        n = len(self._devices)
        places = [k + n * turn for k in self._here for turn in range(self.rounds)]
        return [step[place] if place < len(step) else EMPTY for place in places]

    def put(self, stacked: jraph.GraphsTuple) -> jraph.GraphsTuple:
        """Move the batches of a step, as `own` lists them, onto the devices.

        ``[n_batches, …]`` → ``[n_devices, …]``, with more than one round ``[n_devices, n_rounds,
        …]``. They are marked as spread over the devices, so that in a step sums over their rows
        (`batches.views.Rows`) are over the rows of all devices.
        """
        rounds = self.rounds
        if rounds > 1:
            stacked = jax.tree.map(lambda x: x.reshape(-1, rounds, *x.shape[1:]), stacked)
        return jax.device_put(mark_spread(stacked, AXIS, rounds), self._sharding)

    def replicate(self, tree: Any) -> Any:
        """A copy of every array on every device: ``[…]`` → ``[n_devices, …]``."""
        n = len(self._here)
        stacked = jax.tree.map(lambda x: np.stack([np.asarray(x)] * n), tree)
        return jax.device_put(stacked, self._sharding)

    @staticmethod
    def first(tree: Any) -> Any:
        """The first device's copy, as NumPy arrays: ``[n_devices, …]`` → ``[…]``."""
        return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], tree)

    def of_all(self, value: Any) -> Any:
        """In a step: what the other processes' devices have made too, for `of_batches`."""
        if not self.of_several:
            return value
        return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS), value)

    def of_batches(self, tree: Any) -> Any:
        """What a step has returned through `of_all`, batch by batch, as NumPy arrays:
        ``[n_devices, n_rounds, …]`` → ``[n_batches, …]``; without rounds likewise."""
        values = self.first(tree) if self.of_several else jax.tree.map(np.asarray, tree)
        if self.rounds == 1:
            return jax.tree.map(lambda x: x[: self._batches], values)
        in_order = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[: self._batches]
        return jax.tree.map(in_order, values)

    def check(self) -> None:
        """What `stopping.check` does, for all processes: they have to ask in the same places.

        Raises:
          Stopped: a signal came, to any of them, within `stopping.graceful`.
        """
        if not self.of_several:
            stopping.check()
        elif self.first(self._largest(self.replicate(np.float32(stopping.asked())))):
            stopping.check()
            raise stopping.Stopped()

    @functools.cached_property
    def _largest(self) -> Compiled:
        return self.compile(lambda x: jax.lax.pmax(x, AXIS))


def _of_each_process(
    count: int | None, among: Sequence[jax.Device] | None = None
) -> list[jax.Device]:
    """The first ``count`` devices of each process, or all; process after process."""
    by_process: dict[int, list[jax.Device]] = {}
    ordered = sorted(among or jax.devices(), key=lambda x: (x.process_index, x.id))
    for device in ordered:
        by_process.setdefault(device.process_index, []).append(device)
    return [device for found in by_process.values() for device in found[:count]]
