"""Curation on a Ray cluster of several nodes, of which one dies half-way."""

import os
import sys
import threading
import time

import pytest
from listed import listed
from test_pipeline import digests, made, plan

from crysgnn_jax.curation.engine import LOST, engine_of

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """A head without cores, and three nodes of one each."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    # Its workers import what the tests do.
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    nodes = [found.add_node(num_cpus=1, **small) for _ in range(3)]
    found.wait_for_nodes()
    ray.init(address=found.address, log_to_driver=False)
    found.others = nodes
    yield found
    ray.shutdown()
    found.shutdown()
    patch.undo()


def _double(x):
    if x == "kill":
        os._exit(1)
    if x == "raise":
        raise OSError(28, "No space left on device", "there")
    return 2 * x


def test_calls_are_answered_lost_or_raise(cluster):
    with engine_of("ray", 1) as engine:
        calls = [(k, (k,)) for k in range(5)]
        assert sorted(engine.run(_double, calls)) == [(k, 2 * k) for k in range(5)]
        assert list(engine.run(_double, [("a", ("kill",))])) == [("a", LOST)]
        with pytest.raises(OSError, match="No space left on device") as caught:
            list(engine.run(_double, [("a", ("raise",))]))
        assert caught.value.errno == 28
    assert ray.is_initialized()  # it was there before


def test_a_node_that_dies_half_way_changes_nothing(cluster, tmp_path):
    made(plan(listed(40), crystals_a_shard=2), tmp_path / "one")
    log = tmp_path / "log"

    def kill() -> None:
        while not log.exists() or len(log.read_text().split()) < 16:
            time.sleep(0.05)
        cluster.remove_node(cluster.others.pop(), allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with engine_of("ray", 1) as engine:
        source = listed(40, delay=0.1, log=log)
        _, facts = made(plan(source, crystals_a_shard=2), tmp_path / "set", engine)
    killer.join()
    assert facts.kept == [40]
    assert digests(tmp_path / "set") == digests(tmp_path / "one")


def test_a_crystal_that_ends_every_worker_is_skipped(cluster, tmp_path):
    with engine_of("ray", 1) as engine:
        source = listed(6, {1: "deadly"})
        _, facts = made(plan(source, crystals_a_shard=4), tmp_path / "set", engine)
    assert [id for id, *_ in facts.skipped] == ["c-1"] and facts.kept == [5]
