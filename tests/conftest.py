"""What must be set before JAX starts: four host devices, and a cache of compiled steps."""

import gc
import os
import signal
import sys
import tempfile

import pytest

# Tests compile far longer than they compute: code that is made quickly is best for them.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0 "
    + os.environ.get("XLA_FLAGS", "")
)
# Tests and the commands they start compile the same steps over and over; processes that share the
# tests share the folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Two processes share the machine, and its GPU if there is one.
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


@pytest.fixture(autouse=True, scope="module")
def _compiled_steps_are_let_go():
    """Each compiled step is a few memory maps, of which Linux gives a process 65,530: a worker that
    keeps those of all files comes to that limit, and XLA ends in a segmentation fault."""
    yield
    import jax

    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _signals_are_given_back():
    """A command takes the signals of its process over for good; here the process goes on."""
    yield
    stopping = sys.modules.get("crysgnn_jax.stopping")
    if stopping is not None and stopping._wish.watching:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stopping._wish = stopping._Wish()


def pytest_configure(config):
    """Where pytest-xdist shares out the tests (``-n 2``), a file's tests stay together, for they
    share what takes long to make."""
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "loadfile"
