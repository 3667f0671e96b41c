"""Predictions do not depend on how a crystal is written down, nor on what surrounds it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.budget import Budget, Sizes
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.pretraining.teacher import Teacher
from toys import caesium_chloride, collection, fcc, perovskite, random_crystal, rocksalt


def batch_of(crystals, directory, budget, label=None):
    store = build_store(crystal_list(crystals), FeaturiserSettings(), cache_dir=directory)
    assert not store.skipped
    return Batcher(store, budget, label=label)(np.arange(len(crystals)))


def permuted(crystal, generator):
    order = generator.permutation(len(crystal.species))
    return crystal.species[order], crystal.frac_coords[order], crystal.lattice


def moved(crystal, generator):
    return crystal.species, crystal.frac_coords + generator.random(3), crystal.lattice


def rotated(crystal, generator):
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    return crystal.species, crystal.frac_coords, crystal.lattice @ rotation.T


def other_cell(crystal, generator):
    """Another basis of the same lattice, as a reduction would give: unimodular, det 1."""
    basis = np.array([[1, 1, 0], [0, 1, -1], [1, 2, 0]])
    return crystal.species, crystal.frac_coords @ np.linalg.inv(basis), basis @ crystal.lattice


def supercell(crystal, generator):
    repeats = np.array([2, 1, 3])
    shifts = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), -1).reshape(-1, 3)
    coords = (crystal.frac_coords[None] + shifts[:, None]).reshape(-1, 3) / repeats
    species = np.tile(crystal.species, len(shifts))
    order = generator.permutation(len(species))
    return species[order], coords[order], repeats[:, None] * crystal.lattice


@pytest.mark.parametrize("change", [permuted, moved, rotated, other_cell, supercell])
def test_predictions_do_not_depend_on_the_description(change, tmp_path):
    crystals = [rocksalt(), fcc(), caesium_chloride(), perovskite(), random_crystal(9)]
    generator = np.random.default_rng(1)
    changed = [Crystal(crystal.id, *change(crystal, generator)) for crystal in crystals]
    budget = Budget(nodes=200, edges=4096, graphs=8)
    graphs = [batch_of(x, tmp_path, budget) for x in (crystals, changed)]
    model = CGCNN()
    variables = model.init(jax.random.key(0), graphs[0], True)
    # The output of a fresh network hardly depends on its input: make it do so.
    variables["params"]["output"]["kernel"] *= 20
    before, after = (model.apply(variables, graph, False).prediction[:5] for graph in graphs)
    assert np.std(before) > 0.1
    np.testing.assert_allclose(after, before, atol=1e-4)
    teacher = Teacher()
    variables = teacher.init(jax.random.key(1), graphs[0], True)
    before, after = (teacher.apply(variables, graph, False).crystals[:5] for graph in graphs)
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_padding_adds_nothing(tmp_path):
    crystals = collection(6)
    store = build_store(crystal_list(crystals), FeaturiserSettings(), cache_dir=tmp_path)
    n_node, n_edge = int(store.n_nodes.sum()), int(store.n_edges.sum())
    lists = ("blocks", "pairs")
    needed = Sizes.of_graphs(store.full, lists).table.sum(axis=0)[3:].tolist()
    extra = dict(zip(lists, needed))
    budgets = [
        Budget(n_node + 1, n_edge, 7, extra),
        Budget(n_node + 150, n_edge + 700, 30, {name: n + 40 for name, n in extra.items()}),
        # A last batch that is nearly empty: all its padding edges end at one padding atom.
        Budget(n_node + 9, n_edge + 60_000, 7, extra),
    ]
    objectives, results = RELEASED["crysgnn"], []
    module = Teacher(objectives=tuple(objective for objective, _ in objectives))
    variables = None
    for budget in budgets:
        graph = Batcher(store, budget)(np.arange(6))
        if variables is None:
            variables = module.init(jax.random.key(0), graph, True)

        def loss(params, graph, variables=variables):
            outputs, updated = module.apply(
                {**variables, "params": params}, graph, True, mutable=["batch_stats"]
            )
            value, parts = pretraining_loss(objectives)(outputs, graph)
            return value, (parts, updated, outputs.embeddings[:n_node], outputs.crystals[:6])

        step = jax.jit(jax.value_and_grad(loss, has_aux=True))
        results.append(step(variables["params"], graph))
    # Equal but for the order in which sums of other lengths are taken.
    for other in results[1:]:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), results[0], other
        )


def test_isolated_atom_and_padding_values_are_finite(tmp_path):
    lonely = Crystal("He", [2], np.zeros((1, 3)), 30 * np.eye(3))
    graph = batch_of([lonely, rocksalt()], tmp_path, Budget(nodes=16, edges=256, graphs=4))
    assert graph.n_edge[0] == 0
    model = CGCNN()
    variables = model.init(jax.random.key(0), graph, True)

    def loss(params):
        outputs, _ = model.apply(
            {**variables, "params": params}, graph, True, mutable=["batch_stats"]
        )
        return jnp.sum(outputs.prediction[:2])

    assert np.isfinite(loss(variables["params"]))
    for leaf in jax.tree.leaves(jax.grad(loss)(variables["params"])):
        assert np.isfinite(leaf).all()
