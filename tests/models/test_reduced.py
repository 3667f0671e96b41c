"""Reduced graphs, in which equivalent atoms stand once, give the numbers of full graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher, stack
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.crystals.sources import select
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models import alignn, layers
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.models.crysae import CrysAE
from crysgnn_jax.models.crysxpp import CrysXPP
from crysgnn_jax.models.gatgnn import GATGNN
from crysgnn_jax.models.line_graph import count_triplets
from crysgnn_jax.models.pairs import count_blocks
from crysgnn_jax.models.protocol import Student
from crysgnn_jax.models.teacher import Teacher
from crysgnn_jax.objectives.autoencoder import autoencoder_loss
from crysgnn_jax.objectives.distillation import distil
from crysgnn_jax.objectives.pretraining import pretraining_loss
from crysgnn_jax.objectives.property import Standardiser, property_loss
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.inference import layout
from crysgnn_jax.training.pretraining import pair_sizes
from crysgnn_jax.training.state import create_state, make_train_step

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

    def batch(graphs, **extra):
        room = {"blocks": int(count_blocks(graphs.n_nodes).sum()) + 3, **extra}
        budget = Budget(graphs.n_nodes.sum() + 9, graphs.n_edges.sum() + 50, N + 3, room)
        made = Batcher(store, budget, graphs=graphs, **columns)
        return made(np.arange(len(store))), room["blocks"]

    return (
        store,
        batch(store.full),
        batch(store.reduced, n_pair=int(store.reduced.lists["n_pair"].lengths.sum()) + 7),
    )


def _per_site(store):
    site = np.asarray(store.site) + np.repeat(store.site_offsets[:-1], store.n_nodes)
    return np.random.default_rng(2).normal(size=(len(store.species), 64)).astype(np.float32)[site]


def _found(module, variables, loss, graph, **call):
    """Value, parts, statistics of batch norms, gradients, embeddings."""

    def value(params):
        state = {**variables, "params": params}
        outputs, changed = module.apply(state, graph, True, mutable=["batch_stats"], **call)
        total, parts = loss(outputs, graph)
        return total, (parts, changed, outputs.embeddings)

    step = jax.jit(jax.value_and_grad(value, has_aux=True))
    (total, (parts, changed, embeddings)), gradients = step(variables["params"])
    return [total, parts, changed, gradients, embeddings]


def _require_equal(batches, modules, loss, with_pairs):
    store, *kinds = batches
    calls = [{"n_block": n_block} if with_pairs else {} for _, n_block in kinds]
    (full, _), (reduced, _) = kinds
    variables = modules[0].init(jax.random.key(0), full, True, **calls[0])
    whole = _found(modules[0], variables, loss, full, **calls[0])
    few = _found(modules[1], variables, loss, reduced, **calls[1])
    for found, graphs in ((whole, store.full), (few, store.reduced)):
        found[-1] = found[-1][graphs.nodes_of_atoms(np.arange(len(store)))]
    # float32 alone moves GATGNN's gradients by 6e-4 of their largest.
    relative = 1e-3 if isinstance(modules[0], GATGNN) else 1e-4
    # A bias in front of a batch norm has a gradient of 0, and nothing but noise for a scale.
    noise = 1e-4 * max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(whole[3]))
    for k, (ours, theirs) in enumerate(zip(few, whole)):
        least = noise if k == 3 else 0.0
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
            atol = max(relative * float(jnp.max(jnp.abs(y))), least)
            np.testing.assert_allclose(x, y, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("module", "loss"),
    [(Teacher(), pretraining_loss()), (CrysAE(), autoencoder_loss())],
    ids=["crysgnn", "crysae"],
)
def test_pretraining_is_the_same(batches, module, loss):
    _require_equal(batches, [module, module], loss, with_pairs=True)


@pytest.mark.parametrize(
    "module", [CGCNN(), CrysXPP(), GATGNN()], ids=["cgcnn", "crysxpp", "gatgnn"]
)
def test_distillation_is_the_same(batches, module):
    loss = distil(property_loss(Standardiser(0.0, 1.0)), 0.5)
    _require_equal(batches, [module, module], loss, with_pairs=False)


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
    triplets = {"full": count_triplets(store), "reduced": alignn.extra_sizes(store)["n_triplet"]}
    assert triplets["full"].sum() > 4 * triplets["reduced"].sum()
    batches, modules = [], []
    for graphs, counts in zip((store.full, store.reduced), triplets.values()):
        n_triplet = int(counts.sum()) + 5
        sizes = graphs.n_nodes.sum() + 9, graphs.n_edges.sum() + 50, len(store) + 3
        budget = Budget(*map(int, sizes), {"n_triplet": n_triplet})
        columns = tuple(graphs.edges)
        batcher = Batcher(store, budget, graphs=graphs, label=label, edge_columns=columns)
        batches.append((batcher(np.arange(len(store))), None))
        modules.append(alignn.ALIGNN(width=32, n_alignn=2, n_gcn=2, n_triplet=n_triplet))
    loss = property_loss(Standardiser(0.0, 1.0))
    _require_equal((store, *batches), modules, loss, with_pairs=False)


def test_statistics_of_sums_without_the_sums(batches):
    """The edge batch norm's mean and variance, against those of the tensor it never forms."""
    store, _, (graph, _) = batches
    keys = jax.random.split(jax.random.key(3), 3)
    n_node = len(graph.nodes["species"])
    centres, neighbours = (jax.random.normal(key, (n_node, 8)) + 5.0 for key in keys[:2])
    kernel = jax.random.normal(keys[2], (41, 8))
    edges = layers.Edges.of(layers.gaussian_basis(graph.edges["distances"]), graph).with_moments()
    mean, variance = layers.sum_statistics(centres, neighbours, kernel, edges)
    sums = np.asarray(
        centres[graph.receivers] + neighbours[graph.senders] + edges.features @ kernel, np.float64
    )
    weights = np.asarray(edges.weights, np.float64)
    assert weights.max() > 1 and weights.sum() == store.n_edges.sum()
    expected = np.average(sums, axis=0, weights=weights)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    spread = np.average((sums - expected) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(variance, spread, rtol=1e-4)


def test_own_students_get_full_graphs_unless_they_ask(batches):
    store, *_ = batches
    rows = np.arange(len(store))
    assert layout(Student(CGCNN), CGCNN(), store, rows, 8).graphs is store.full
    assert layout(Student(CGCNN, reduced=True), CGCNN(), store, rows, 8).graphs is store.reduced
    with pytest.raises(UserError, match="reduced graphs have no vectors"):
        Student(CGCNN, reduced=True, edge_columns=("distances", "vectors"))


def test_alignn_needs_bonds(batches):
    store, *_ = batches
    with pytest.raises(UserError, match="--rule nearest"):
        alignn.extra_sizes(store)


def test_devices_share_reduced_graphs(batches):
    """One step of the teacher on one device and on several, the last one without any crystal."""
    store, *_ = batches
    n_devices = 3
    sizes = pair_sizes(store)
    rows = np.arange(len(store))
    found = {}
    for count in (1, n_devices):
        parts = [rows] if count == 1 else [*np.array_split(rows, count - 1), rows[:0]]
        whole = sizes.table.sum(axis=0)
        extra = dict(zip(sizes.extra, map(int, whole[3:])))
        budget = Budget(int(whole[0]) + 1, int(whole[1]), len(rows) + 1, extra)
        batcher = Batcher(store, budget, graphs=store.reduced)
        module = Teacher(axis_name=AXIS)
        optimiser = optax.sgd(1.0)
        call = {"n_block": extra["blocks"]}
        state = create_state(module, optimiser, jax.random.key(0), batcher(rows[:1]), **call)
        loss = pretraining_loss(axis_name=AXIS)
        step = make_train_step(module, loss, optimiser, axis_name=AXIS, **call)
        devices = Devices(count)
        graph = devices.put(stack([batcher(part) for part in parts]))
        after, metrics = devices.compile(step)(devices.replicate(state), graph)
        found[count] = Devices.first((after.params, after.batch_stats, metrics))
    for x, y in zip(jax.tree.leaves(found[1]), jax.tree.leaves(found[n_devices])):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
