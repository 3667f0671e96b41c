"""Reduced graphs, in which equivalent atoms stand once, give the numbers of full graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crysgnn_jax.batches.loader import lay_out, stack
from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.crystals.sources import select
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models import alignn, layers, norms
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.models.crysxpp import CrysXPP
from crysgnn_jax.models.gatgnn import GATGNN
from crysgnn_jax.models.network import Network
from crysgnn_jax.objectives.distillation import distil
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.pretraining.teacher import CrysAE, Teacher
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.step import create_state, make_train_step
from toys import batcher_for_all, one_batch

N = 40


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """The store, and real crystals as one batch of full and of reduced graphs."""
    source = open_source("bundled")
    rows = np.sort(np.random.default_rng(0).choice(len(source), N, replace=False))
    cache = tmp_path_factory.mktemp("stores")
    store = build_store(select(source, rows), FeaturiserSettings(), cache_dir=cache, workers=1)
    columns = {
        "label": np.random.default_rng(1).normal(size=len(store)),
        # Embeddings of the teacher: the same for equivalent atoms.
        "node_columns": {"teacher_embeddings": _per_site(store)},
    }

    how = {"lists": ("pairs",), "more": 8, **columns}
    return store, one_batch(store, **how), one_batch(store, graphs=store.reduced, **how)


def _per_site(store):
    site = np.asarray(store.site) + np.repeat(store.site_offsets[:-1], store.n_nodes)
    return np.random.default_rng(2).normal(size=(len(store.species), 64)).astype(np.float32)[site]


def _found(module, variables, loss, graph):
    """Value, parts, statistics of batch norms, gradients, embeddings."""

    def value(params, graph):
        state = {**variables, "params": params}
        outputs, changed = module.apply(state, graph, True, mutable=["batch_stats"])
        total, parts = loss(outputs, graph)
        return total, (parts, changed, outputs.embeddings)

    step = jax.jit(jax.value_and_grad(value, has_aux=True))
    (total, (parts, changed, embeddings)), gradients = step(variables["params"], graph)
    return [total, parts, changed, gradients, embeddings]


def _require_equal(batches, module, loss):
    store, full, reduced = batches
    variables = jax.jit(lambda key, graph: module.init(key, graph, True))(jax.random.key(0), full)
    whole = _found(module, variables, loss, full)
    few = _found(module, variables, loss, reduced)
    for found, graphs in ((whole, store.full), (few, store.reduced)):
        found[-1] = found[-1][graphs.nodes_of_atoms(np.arange(len(store)))]
    # float32 alone moves GATGNN's gradients by 6e-4 of their largest.
    relative = 1e-3 if isinstance(module, GATGNN) else 1e-4
    # A bias in front of a batch norm has a gradient of 0, and nothing but noise for a scale.
    noise = 1e-4 * max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(whole[3]))
    for k, (ours, theirs) in enumerate(zip(few, whole)):
        least = noise if k == 3 else 0.0
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
            atol = max(relative * float(jnp.max(jnp.abs(y))), least)
            np.testing.assert_allclose(x, y, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("crysgnn", Teacher),
        # The auto-encoder's objectives are some of the teacher's.
        pytest.param("crysae", CrysAE, marks=pytest.mark.slow),
    ],
)
def test_pretraining_is_the_same(batches, name, network):
    objectives = tuple(objective for objective, _ in RELEASED[name])
    module = network(n_convolutions=2, objectives=objectives)
    _require_equal(batches, module, pretraining_loss(RELEASED[name]))


@pytest.mark.parametrize(
    "module",
    [
        CGCNN(n_convolutions=2),
        CrysXPP(n_convolutions=2),
        pytest.param(GATGNN(), marks=pytest.mark.slow),
    ],
    ids=["cgcnn", "crysxpp", "gatgnn"],
)
def test_distillation_is_the_same(batches, module):
    loss = distil(property_loss(Standardiser(0.0, 1.0)), weight=0.5)
    _require_equal(batches, module, loss)


def test_most_of_the_work_is_saved(batches):
    store, *_ = batches
    assert store.full.n_nodes.sum() > 2 * store.reduced.n_nodes.sum()
    assert store.full.n_edges.sum() > 3 * store.reduced.n_edges.sum()


def test_alignn_is_the_same(tmp_path):
    source = open_source("bundled")
    rows = np.sort(np.random.default_rng(0).choice(len(source), 16, replace=False))
    settings = FeaturiserSettings(rule="bonds")
    store = build_store(select(source, rows), settings, cache_dir=tmp_path, workers=1)
    label = np.random.default_rng(1).normal(size=len(store))
    whole, few = (graphs.list("triplets").lengths for graphs in (store.full, store.reduced))
    assert whole.sum() > 4 * few.sum()
    batches = [
        one_batch(store, graphs=graphs, lists=("triplets",), more=5, label=label)
        for graphs in (store.full, store.reduced)
    ]
    module = alignn.ALIGNN(width=16, n_alignn=1, n_gcn=1)
    _require_equal((store, *batches), module, property_loss(Standardiser(0.0, 1.0)))


def test_statistics_of_sums_without_the_sums(batches):
    """The edge batch norm's mean and variance, against those of the tensor it never forms."""
    store, _, graph = batches
    keys = jax.random.split(jax.random.key(3), 3)
    n_node = len(graph.nodes["species"])
    centres, neighbours = (jax.random.normal(key, (n_node, 8)) + 5.0 for key in keys[:2])
    kernel = jax.random.normal(keys[2], (41, 8))
    batch = Batch(graph)
    edges = norms.EdgeTerms.of(batch.edges, layers.gaussian_basis(batch.distances), train=True)
    mean, variance = norms.sum_statistics(centres, neighbours, kernel, edges)
    sums = np.asarray(
        centres[graph.receivers] + neighbours[graph.senders] + edges.features @ kernel, np.float64
    )
    weights = np.asarray(batch.edges.rows.weights, np.float64)
    assert weights.max() > 1 and weights.sum() == store.n_edges.sum()
    expected = np.average(sums, axis=0, weights=weights)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    spread = np.average((sums - expected) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(variance, spread, rtol=1e-4)


def test_own_students_get_full_graphs_unless_they_ask(batches):
    store, *_ = batches
    rows = np.arange(len(store))
    graphs_of = lambda network: lay_out(store, rows, network.needs, 8)[0].graphs
    assert graphs_of(Network(CGCNN)) is store.full
    assert graphs_of(Network(CGCNN, Needs(reduced=True))) is store.reduced
    with pytest.raises(UserError, match="reduced graphs have no vectors"):
        Needs(reduced=True, edges=("distances", "vectors"))


def test_alignn_needs_bonds(batches):
    store, *_ = batches
    with pytest.raises(UserError, match="`rule` nearest"):
        lay_out(store, np.arange(len(store)), alignn.NETWORK.needs, 8)


@pytest.mark.slow
def test_devices_share_reduced_graphs(batches):
    """One step of the teacher on one device and on several, the last one without any crystal."""
    store, *_ = batches
    n_devices = 3
    rows = np.arange(len(store))
    batcher = batcher_for_all(store, graphs=store.reduced, lists=("pairs",))
    module = Teacher(objectives=tuple(objective for objective, _ in RELEASED["crysgnn"]))
    optimiser = optax.sgd(1.0)
    state = create_state(module, optimiser, jax.random.key(0), batcher(rows[:1]))
    step = make_train_step(module, pretraining_loss(RELEASED["crysgnn"]), optimiser)
    found = {}
    for count in (1, n_devices):
        parts = [rows] if count == 1 else [*np.array_split(rows, count - 1), rows[:0]]
        devices = Devices(count)
        graph = devices.put(stack([batcher(part) for part in parts]))
        after, metrics = devices.compile(step)(devices.replicate(state), graph)
        found[count] = Devices.first((after.params, after.batch_stats, metrics))
    for x, y in zip(jax.tree.leaves(found[1]), jax.tree.leaves(found[n_devices])):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
