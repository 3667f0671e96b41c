"""One turn of `benchmarks.versions`, in a process of its own: the file runs in either checkout.

    python -P benchmarks/version_turn.py JOB CACHE

It times what the package and the benchmarks that Python finds make of a job, and prints JSON.
``-P`` keeps this file's own folder off the path.
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import crysgnn_jax
from benchmarks import steps

# Not by what can be imported: an editable installation finds what this checkout lacks in its own.
if Path(crysgnn_jax.__file__).with_name("data").joinpath("store.py").exists():  # version 0.1
    from crysgnn_jax.data.batches import pack, stack
    from crysgnn_jax.data.settings import FeaturiserSettings
    from crysgnn_jax.data.store import build_store
else:
    from crysgnn_jax.batches.budget import pack
    from crysgnn_jax.batches.loader import stack
    from crysgnn_jax.graphs.build import build_store
    from crysgnn_jax.graphs.settings import FeaturiserSettings

CRYSTALS = 1500
"""Drawn at random, always the same ones."""

N_BATCHES = 6

PASSES = {
    "pretrain": 10,
    "embed": 30,
    "cgcnn": 20,
    "distilled": 20,
    "crysxpp": 20,
    "gatgnn": 8,
    "alignn": 1,
}
"""Job → how often a turn takes the batches, so that it takes a second or two of steps."""


def time_steps(job: str, cache: Path) -> dict[str, Any]:
    """Compiled steps over the same batches, which are in memory.

    Returns:
      ``seconds`` of each step; ``numbers`` of the first one; and the ``batch``'s static shape and
      mean number of ``crystals``.
    """
    from benchmarks.project import work
    from crysgnn_jax.training.devices import Devices

    about = steps.JOBS[job]
    graphs = FeaturiserSettings(ties="keep") if about.cut else FeaturiserSettings(**about.graphs)
    source = steps.crystals("bundled", CRYSTALS)
    store = build_store(source, graphs, cache_dir=cache, workers=1)
    rows = np.arange(len(store))
    targets = np.random.default_rng(0).normal(size=len(store))
    devices = Devices(1)
    found = work(job, store, rows, targets, about.batch_size, devices)
    order = np.random.default_rng(0).permutation(rows)
    plan = pack(found.sizes, found.batcher.budget.limits, order)[:N_BATCHES]
    batches = [devices.put(stack([found.batcher(chosen)])) for chosen in plan]
    step = devices.compile(found.step, donate=(0,))
    state, outputs = step(devices.replicate(found.state), batches[0])
    first = Devices.first(outputs)
    if isinstance(first, dict):
        numbers = {name: float(first[name]) for name in ("loss", "gradient_norm")}
    else:
        nodes = found.batcher.graphs.nodes_of_atoms(plan[0])
        numbers = {"embedding_norm": float(np.linalg.norm(first[nodes].mean(axis=0)))}
    seconds = []
    for _ in range(1 + PASSES[job]):  # the first pass is not counted
        for batch in batches:
            start = time.perf_counter()
            state, outputs = step(state, batch)
            jax.block_until_ready((state, outputs))
            seconds.append(time.perf_counter() - start)
    crystals = round(float(np.mean(list(map(len, plan)))), 1)
    shape = dataclasses.asdict(found.batcher.budget)
    return {
        "seconds": seconds[N_BATCHES:],
        "numbers": numbers,
        "batch": {**shape, "crystals": crystals},
    }


def time_graphs() -> dict[str, Any]:
    """The store of the bundled crystals in an empty cache, by one worker.

    Returns:
      ``seconds``, one number; and ``numbers`` of crystals, atoms and edges.
    """
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        source = steps.crystals("bundled", sys.maxsize)
        store = build_store(source, FeaturiserSettings(), cache_dir=cache, workers=1)
        seconds = time.perf_counter() - start
        numbers = {
            "crystals": len(store),
            "atoms": int(store.n_nodes.sum()),
            "edges": int(store.n_edges.sum()),
        }
        return {"seconds": [seconds], "numbers": numbers}


if __name__ == "__main__":
    job, cache = sys.argv[1:]
    found = time_graphs() if job == "graphs" else time_steps(job, Path(cache))
    print(json.dumps(found))
