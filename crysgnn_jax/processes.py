"""The processes of a run: one on each machine or GPU, which train together.

All of them run the same program on the same crystals, each with its own devices. The first one
writes all files, and speaks; the others wait where it makes what they need, and are told what it
has read. Of a process by itself, all of this is nothing.

This module imports JAX only where there are several: what does not train must not wait for it.
"""

import contextlib
import importlib.util
import inspect
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from crysgnn_jax import stopping
from crysgnn_jax.errors import UserError
from crysgnn_jax.runtime_lines import end_without_a_core, others_ended, own_lines

PATIENCE = 30
"""Seconds after which a process that says nothing counts as ended: of a machine that is lost. Where
the process alone ends, its sockets are closed, which the others mostly notice before."""

_FOREVER = 30 * 24 * 3600 * 1000
"""Milliseconds that the others wait for the first: it may make graphs for hours. They wait in vain
no longer than `PATIENCE`."""

_OF_OTHERS = ("gloo", "nccl", "rccl", "coordination", "heartbeat", "socket", "connection reset",
              "connection closed", "unavailable", "barrier")  # fmt: skip
"""What errors of the runtime say that come from the end of another process."""


def _client() -> Any:
    """JAX's connection to the other processes; None where there are none."""
    if "jax" not in sys.modules:
        return None
    from jax._src import distributed

    return distributed.global_state.client


def count() -> int:
    """How many processes there are."""
    if _client() is None:
        return 1
    import jax

    return jax.process_count()


def number() -> int:
    """Which of them this is, from 0."""
    if _client() is None:
        return 0
    import jax

    return jax.process_index()


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return number() == 0


def told(make: Callable[[], Any]) -> Any:
    """What the first process makes, in all of them. All have to ask, in the same order.

    Args:
      make: run by the first process alone; what it returns can be written as JSON.

    Raises:
      UserError: it was raised by ``make``.
    """
    if _client() is None:
        return make()
    if is_first():
        with _telling() as answer:
            answer["value"] = make()
        return answer["value"]
    return _heard()


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """What is within is done by the first process, and then by the others, at the same time: they
    find what it has made, if they see the same files.

    Raises:
      UserError: it was raised in the first process.
    """
    if _client() is None:
        yield
    elif is_first():
        with _telling():
            yield
    else:
        _heard()
        yield


@contextlib.contextmanager
def _telling() -> Iterator[dict[str, Any]]:
    """What is within has an answer for `_heard`, or a `UserError`."""
    key = _next_key()
    answer: dict[str, Any] = {"value": None}
    try:
        yield answer
    except UserError as error:
        _client().key_value_set(key, json.dumps({"error": str(error)}))
        raise
    _client().key_value_set(key, json.dumps(answer))


def _heard() -> Any:
    answer = json.loads(_client().blocking_key_value_get(_next_key(), _FOREVER))
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["value"]


def same_arrays(tree: Any) -> Any:
    """Arrays of the first process, in all of them: those of the others have the same shapes."""
    if _client() is None:
        return tree
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree))


_asked = 0


def _next_key() -> str:
    global _asked
    _asked += 1
    return f"crysgnn/{_asked}"


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    process_id: int | None = None,
    num_processes: int | None = None,
) -> Iterator[None]:
    """Join the other processes of a run, if there are any; before JAX is used.

    On SLURM, a TPU pod, Kubernetes and with Open MPI, JAX finds them; elsewhere all three arguments
    are needed. With ``num_processes=1`` this process is by itself wherever it runs.

    The first process alone speaks; what goes wrong is told by whoever it happened to.

    Args:
      coordinator: HOST:PORT that the first process is to listen at.
      process_id: which of the processes this is, from 0.
      num_processes: how many there are.

    Raises:
      UserError: some arguments are missing, the others cannot be reached, or one of them ended.
    """
    found = _who(coordinator, process_id, num_processes)
    if found is None:
        yield
        return
    with own_lines():
        _connect(found)
        end_without_a_core()
        stopping.abruptly()  # the runtime would wait for those that still run, or complain
        try:
            with _silent() if not is_first() else contextlib.nullcontext():
                yield
            _client().wait_at_barrier("crysgnn/done", _FOREVER)
        except BaseException as error:
            _leave(error)
            raise


def _who(
    coordinator: str | None, process_id: int | None, num_processes: int | None
) -> dict[str, Any] | None:
    """What JAX is to be told of the processes; None where this one is by itself.

    Raises:
      UserError: some arguments are missing, or do not go together.
    """
    given = {
        "coordinator_address": coordinator,
        "process_id": process_id,
        "num_processes": num_processes,
    }
    if num_processes == 1:
        return None
    if None not in given.values():
        assert process_id is not None and num_processes is not None and coordinator is not None
        if process_id >= num_processes:
            raise UserError(
                f"`process_id` {process_id}: of {num_processes} processes the last is "
                f"{num_processes - 1}"
            )
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal()):
            raise UserError(f"`coordinator` {coordinator}: give HOST:PORT, such as node1:1234")
        return {**given, "cluster_detection_method": "deactivate"}
    detected = detected_processes() > 1
    if not detected and given != dict.fromkeys(given):
        raise UserError(
            "`coordinator`, `process_id` and `num_processes` go together where no cluster is "
            "detected; give all three, or none"
        )
    return {**given, "local_device_ids": own_gpus()} if detected else None


def detected_processes(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes a launcher has started this one among; 1 where there is none.

    Known from its environment, so that nothing is asked where there is no launcher. The shell of a
    SLURM allocation is a step of one task, whatever the allocation is for.
    """
    found = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
    if "SLURM_STEP_NODELIST" in environment and int(found) > 1:
        return int(found)
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return int(environment["OMPI_COMM_WORLD_SIZE"])
    in_a_job = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    if in_a_job and importlib.util.find_spec("kubernetes"):
        return _asked_of_jax("K8sCluster")
    if importlib.util.find_spec("libtpu"):
        return max(_asked_of_jax("GkeTpuCluster"), _asked_of_jax("GceTpuCluster"))
    return 1


def _asked_of_jax(name: str) -> int:
    from jax._src import clusters

    cluster = getattr(clusters, name)
    return cluster.get_process_count() if cluster.is_env_present() else 1


def own_gpus(environment: Mapping[str, str] = os.environ) -> list[int] | None:
    """Which GPUs of those that a task of SLURM sees are its own; None to leave it to JAX, by which
    each task has the one of its number.

    With one task a node, all that it sees are; and where SLURM shows each its own alone, those.
    """
    seen = [x for x in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if x]
    found = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if not seen or found is None or 1 < int(found[0]) <= len(seen):
        return None
    return list(range(len(seen)))


def _connect(found: Mapping[str, Any]) -> None:
    """
    Raises:
      UserError: the others, or the first, cannot be reached.
    """
    import jax

    # It would take over SIGTERM, which `stopping` has.
    with contextlib.suppress(AttributeError):  # versions that have none
        jax.config.update("jax_enable_preemption_service", False)
    limits = ("heartbeat_timeout_seconds", "shutdown_timeout_seconds")
    understood = inspect.signature(jax.distributed.initialize).parameters  # not by all versions
    known = {name: value for name, value in found.items() if value is not None}
    known |= {name: PATIENCE for name in limits if name in understood}
    try:
        jax.distributed.initialize(**known)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise UserError(
            f"the other processes cannot be reached ({first}); start all of them within 5 minutes, "
            "with the same `coordinator`"
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing is printed within."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def _leave(error: BaseException) -> None:
    """Before this process ends by an error: what all have met is told by one of them, and what the
    end of another has caused is not shown as an error of this one."""
    text = str(error)
    of_jax = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    if of_jax and any(word in text.lower() for word in _OF_OTHERS):
        # Through the filter, which would say so too: the runtime is about to abort.
        os.write(2, f"error: {others_ended()}\n".encode())
        stopping.end(2)
    if isinstance(error, UserError | KeyboardInterrupt):
        alone = _is_told_first(text)
        # Those that end alike do so together, before the runtime complains that one is missing.
        with contextlib.suppress(RuntimeError):
            _client().wait_at_barrier("crysgnn/left", 5000)
        if not alone:
            if is_first():  # with it the others end, of which one has something to say
                time.sleep(1.0)
            stopping.end(2 if isinstance(error, UserError) else 128 + _signal_of(error))
    elif not isinstance(error, OSError | SystemExit):
        traceback.print_exception(error)
        stopping.end(1)


def _signal_of(error: BaseException) -> int:
    return getattr(error, "number", signal.SIGINT)


def _is_told_first(text: str) -> bool:
    """Whether no other process has told the same."""
    try:
        _client().key_value_set("crysgnn/error", text)
    except RuntimeError:
        with contextlib.suppress(RuntimeError):
            return _client().key_value_try_get("crysgnn/error") != text
    return True
