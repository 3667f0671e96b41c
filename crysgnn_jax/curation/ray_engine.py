"""The work of a curation as tasks of a Ray cluster.

A cluster that runs already is joined where Ray finds it (``ray start`` on the machines, or the
variable ``RAY_ADDRESS``), else one of this machine is started. The machines need the same version
of this package, and to reach the output; sources whose items are paths, also these.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from crysgnn_jax import stopping
from crysgnn_jax.curation.engine import LOST, Call
from crysgnn_jax.extras import imported

_IN_TURN = 2
"""Calls a core: one that is under way, and one whose arguments are there when it ends."""

_SECONDS = 5.0
"""After which the number of cores is asked for again: machines come and go."""


class Cluster:
    """Tasks of Ray, as an `engine.Engine`. A cluster that it has not started goes on after it.

    Raises:
      UserError: Ray is not installed.
    """

    def __init__(self) -> None:
        self._ray: Any = imported("ray", "ray", "`engine` ray")
        import ray.exceptions as failures

        self._lost = (
            failures.WorkerCrashedError,
            failures.NodeDiedError,
            failures.OutOfMemoryError,
            failures.LocalRayletDiedError,
            failures.ObjectLostError,
        )
        self._raised = failures.RayTaskError
        self._own = False

    def run(self, function: Callable, calls: Iterable[Call]) -> Iterator[tuple[Any, Any]]:
        """As `Engine.run`."""
        if not self._ray.is_initialized():
            # What workers print goes to their own files.
            self._ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
            self._own = True
        # A task that is lost is told to the caller, who counts how often.
        task = self._ray.remote(num_cpus=1, max_retries=0)(function)
        left = iter(calls)
        running: dict[Any, Any] = {}
        asked, most = 0.0, 1
        following = next(left, None)
        while following is not None or running:
            if time.monotonic() - asked > _SECONDS:
                asked = time.monotonic()
                most = _IN_TURN * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            while following is not None and len(running) < most:
                key, arguments = following
                running[task.remote(*arguments)] = key
                following = next(left, None)
            found, _ = self._ray.wait(list(running), num_returns=1, timeout=0.5)
            for reference in found:
                key = running.pop(reference)
                try:
                    result = self._ray.get(reference)
                except self._lost:
                    result = LOST
                except self._raised as error:
                    raise error.cause from None
                yield key, result
            stopping.check()

    def close(self) -> None:
        """Leave the cluster."""
        if self._own:
            self._ray.shutdown()
