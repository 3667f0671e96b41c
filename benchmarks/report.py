"""What every benchmark writes down: where it ran, with what, and its results."""

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from crysgnn_jax.commands import cli

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"

BUSY = 0.1
"""Cores used by others from which on results are doubtful."""

PACKAGES = (
    "jax", "jaxlib", "flax", "numpy", "gemmi", "moyopy",
    "torch", "torch_geometric", "alignn", "pymatgen", "spglib",
)  # fmt: skip


class OtherWork:
    """How busy others keep the machine from now on; Linux only.

    Timings with two threads a side mean little where it is more than a few per cent of a core:
    what waits for its slowest thread at every operation, as PyTorch does, suffers most.
    """

    def __init__(self):
        self._start = self._clocks()

    def cores(self) -> float | None:
        """Cores that other processes have used on average, once all own ones have ended."""
        if self._start is None:
            return None
        elapsed, busy, own = (now - then for now, then in zip(self._clocks(), self._start))
        return round(max(busy - own, 0.0) / elapsed, 2)

    @staticmethod
    def _clocks() -> tuple[float, float, float] | None:
        """Seconds: on the clock, of CPU time of all processes, and of this one and its children."""
        try:
            fields = Path("/proc/stat").read_text().split()
        except OSError:
            return None
        user, nice, system = map(int, fields[1:4])
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return times.elapsed, (user + nice + system) / os.sysconf("SC_CLK_TCK"), own


def machine() -> dict[str, Any]:
    """Model of the CPU, cores that may be used, memory in GB, operating system."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
    }


def versions() -> dict[str, str]:
    """Python's and the packages' versions, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(path: Path, results: dict[str, Any], others: OtherWork) -> None:
    """Write results as JSON, with the date, the command, the machine, what else it did, and the
    versions; a machine that was busy with other work is also reported on stderr."""
    busy = others.cores()
    if busy is not None and busy > BUSY:
        print(
            f"others used {busy} of {os.cpu_count()} cores meanwhile: measure again on a quiet "
            "machine",
            file=sys.stderr,
        )
    report = {
        "date": datetime.date.today().isoformat(),
        "command": cli.command_line(),
        "machine": machine(),
        "cores_used_by_others": busy,
        "versions": versions(),
        **results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
