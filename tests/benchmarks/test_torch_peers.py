"""The peers compute what this project computes: otherwise their speeds could not be compared."""

import functools
import importlib
import importlib.util

import numpy as np
import pytest

from benchmarks import steps
from benchmarks.joined import join
from benchmarks.project import ProjectSide
from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import open_store
from crysgnn_jax.models.registry import STUDENTS


@pytest.fixture(scope="module")
def case(case_for):
    return case_for("cgcnn")


PEERS = [(job, peer) for job, about in steps.JOBS.items() for peer in about.peers]


def needed(peer):
    """The module of a peer; skips where it cannot be imported."""
    for name in peer.needs:
        pytest.importorskip(name)
    return importlib.import_module(f"benchmarks.{peer.module}")


@pytest.mark.parametrize("module", sorted({peer.module for _, peer in PEERS}))
def test_the_commands_know_every_peer(module):
    own = [(job, peer) for job, peer in PEERS if peer.module == module]
    found = needed(own[0][1]).PEERS
    listed = {(job, name) for job, peers in found.items() for name in peers}
    assert listed == {(job, peer.name) for job, peer in own}


def test_students_have_their_own_graphs():
    for name, student in STUDENTS.items():
        assert steps.JOBS[name].graphs == (dict(student.needs.graphs) or {"ties": "cut"})


@pytest.fixture(scope="module")
def project(case_for):
    """job → this project's batches, initial parameters, and numbers of the first step."""

    @functools.cache
    def first_step(job):
        side = ProjectSide(job, *vars(case_for(job)).values(), batch_size=8)
        return side.plan(), side.parameters(), side.check()

    return first_step


@pytest.mark.parametrize("job, peer", PEERS, ids=lambda value: getattr(value, "name", value))
def test_peers_compute_the_same_loss_and_gradient(case_for, project, job, peer):
    needed(peer)
    plan, parameters, numbers = project(job)
    theirs = steps.PeerSide(job, peer, case_for(job), plan, parameters).check()
    assert all(value > 1e-3 for value in numbers.values())
    if peer.same_numbers:
        assert theirs == pytest.approx(numbers, rel=1e-4)
    else:
        assert theirs.keys() == numbers.keys() and np.isfinite(list(theirs.values())).all()


def test_cgconv_is_the_published_layer_without_the_batch_norm_of_edges(case, project):
    pytest.importorskip("torch_geometric")
    from torch import nn

    from benchmarks import geometric_peers, torch_peers

    plan, (parameters, _), _ = project("cgcnn")
    published = torch_peers.cgcnn_from(parameters)
    for convolution in published.encoder.convolutions:
        convolution.edge_norm = nn.Identity()
    geometric = geometric_peers.cgcnn_from(parameters)
    sizes = [sum(x.numel() for x in model.parameters()) for model in (published, geometric)]
    assert sizes == [80_833 - 3 * 2 * 128] * 2
    store = open_store(case.path)
    ours = published(torch_peers.make_batch(store, plan[0], case.targets))[0]
    theirs = geometric(geometric_peers.make_batch(store, plan[0], case.targets))
    np.testing.assert_allclose(theirs.detach(), ours.detach(), rtol=1e-5, atol=1e-5)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="gatgnn: its peer, in PyTorch Geometric, needs torch"):
        steps.require_installed(["gatgnn"])


def test_different_numbers_are_refused():
    with pytest.raises(UserError, match="cgcnn: loss of the first batch is 1, but 1.01"):
        steps.require_equal("cgcnn", "as released", {"loss": 1.0}, {"loss": 1.01})


def test_a_batch_in_the_manner_of_the_published_codes(case):
    table_batch = needed(steps.Peer("")).make_batch
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


def test_a_varying_number_of_neighbours_is_refused(tmp_path, source):
    store = build_store(source(3), FeaturiserSettings(cutoff=3.0), cache_dir=tmp_path, workers=1)
    with pytest.raises(ValueError, match="has not 12 neighbours"):
        needed(steps.Peer("")).make_batch(store, np.arange(3), np.zeros(3))


def test_joined_crystals_are_a_batch_without_padding(case):
    store = open_store(case.path)
    rows = np.array([4, 1])
    joined = join(store, rows)
    budget = Budget(int(store.n_nodes[rows].sum()) + 1, int(store.n_edges[rows].sum()), 3)
    batch = Batcher(store, budget)(rows)
    assert joined.edge_index.tolist() == [batch.senders.tolist(), batch.receivers.tolist()]
    assert store.species[joined.atoms].tolist() == batch.nodes["species"][:-1].tolist()
    assert store.distances[joined.edges].tolist() == batch.edges["distances"].tolist()
    assert joined.crystal.tolist() == [0] * store.n_nodes[4] + [1] * store.n_nodes[1]


def test_triplets_of_two_atoms_and_an_image():
    pytest.importorskip("alignn")
    from benchmarks.alignn_peers import triplets

    # 0 → 0 (an image), 1 → 0, 0 → 1: each follows those that arrive where it leaves, but not
    # itself.
    first, second = triplets(np.array([0, 1, 0]), np.array([0, 0, 1]), 2)
    assert list(zip(first.tolist(), second.tolist())) == [(1, 0), (2, 1), (0, 2), (1, 2)]
