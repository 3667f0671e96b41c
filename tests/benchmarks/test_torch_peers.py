"""The peers compute what this project computes: otherwise their speeds could not be compared."""

import numpy as np
import pytest

from toys import collection

pytest.importorskip("torch", reason="the benchmarks need PyTorch")

from benchmarks import steps
from benchmarks.project import ProjectSide
from benchmarks.torch_peers import PEERS, table_batch
from crysgnn_jax.data.settings import FeaturiserSettings
from crysgnn_jax.data.store import build_store


class Crystals:
    """Crystals in memory as a source."""

    name = "toys"
    label_names = ()
    decode = staticmethod(lambda crystal: crystal)

    def __init__(self, crystals):
        self._crystals = crystals

    def __len__(self):
        return len(self._crystals)

    def fingerprint(self):
        return "toys"

    def items(self, start, stop):
        return self._crystals[start:stop]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    store = build_store(
        Crystals(collection(20)),
        FeaturiserSettings(ties="cut"),
        cache_dir=tmp_path_factory.mktemp("graphs"),
        workers=1,
    )
    return steps.Case.of(store, np.arange(len(store)))


def test_the_commands_know_every_peer():
    assert {job: tuple(peers) for job, peers in PEERS.items()} == steps.PEERS


@pytest.mark.parametrize("job", PEERS)
def test_peers_compute_the_same_loss_and_gradient(case, job):
    project = ProjectSide(job, case.path, case.rows, case.targets, batch_size=8)
    numbers = project.check()
    assert all(value > 1e-3 for value in numbers.values())
    for peer in PEERS[job]:
        side = steps.TorchSide(job, peer, case, project.plan(), project.parameters())
        assert side.check() == pytest.approx(numbers, rel=1e-4), peer


def test_different_numbers_are_refused():
    from crysgnn_jax.errors import UserError

    with pytest.raises(UserError, match="cgcnn: loss of the first batch is 1, but 1.01"):
        steps.require_equal("cgcnn", "as released", {"loss": 1.0}, {"loss": 1.01})


def test_a_batch_in_the_manner_of_the_published_codes(case):
    from crysgnn_jax.data.store import open_store

    store = open_store(case.path)
    rows = np.array([3, 0, 7])
    batch = table_batch(store, rows, case.targets)
    n = store.n_nodes[rows]
    assert batch.neighbours.shape == (n.sum(), 12)
    assert batch.n_atoms == n.tolist()
    # Each atom's twelve neighbours are spread over the atoms of its own crystal.
    assert len(batch.connections) == (n**2).sum()
    start = np.cumsum(n) - n
    for first, size in zip(start, n):
        inside = batch.neighbours[first : first + size]
        assert inside.min() >= first and inside.max() < first + size
    pair = 5
    i, j = batch.first[pair], batch.second[pair]
    assert batch.connections[pair] == min(int((batch.neighbours[i] == j).sum()), 5)


def test_a_varying_number_of_neighbours_is_refused(tmp_path):
    store = build_store(
        Crystals(collection(3)), FeaturiserSettings(cutoff=3.0), cache_dir=tmp_path, workers=1
    )
    with pytest.raises(ValueError, match="has not 12 neighbours"):
        table_batch(store, np.arange(3), np.zeros(3))
