"""Worker processes: how many, and what each does first."""

import multiprocessing
import os
import signal
import threading

MAX_DEFAULT_WORKERS = 16
"""More processes than this take longer to start than they save, and 60 MB each."""


def default_workers() -> int:
    """One for each core that may be used, up to `MAX_DEFAULT_WORKERS`."""
    return min(_available_cores(), MAX_DEFAULT_WORKERS)


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def settle_worker() -> None:
    """Settle a fresh worker process: deaf to Ctrl-C, and gone when its parent is."""
    # The parent decides what an interrupt means; the worker finishes its chunk.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Workers of a killed parent would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
