"""What must be set before JAX starts: four host devices, and a cache of compiled steps."""

import os
import tempfile

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
# Tests and the commands they start compile the same steps over and over.
_CACHE = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Two processes share the machine, and its GPU if there is one.
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
