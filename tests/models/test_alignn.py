"""ALIGNN against the numbers of the original implementation, and what its predictions may not
depend on."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from test_invariance import moved, other_cell, permuted, rotated, supercell

from crysgnn_jax.batches.budget import Budget
from crysgnn_jax.batches.loader import Batcher, stack
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.interop.torch_names import convert
from crysgnn_jax.models.alignn import ALIGNN, STUDENT, radial_basis
from crysgnn_jax.models.line_graph import angle_cosines, count_triplets, line_graph
from crysgnn_jax.objectives.property import Standardiser, property_loss
from golden import assert_close, load, under, variables_of, with_statistics
from toys import caesium_chloride, collection, fcc, perovskite, random_crystal, rocksalt


def stored_graph(arrays, padding=(3, 7, 2)):
    """The stored crystals with their stored bonds, padded by (nodes, edges, graphs), and the order
    in which the stored bonds were put."""
    order = np.argsort(arrays["graph/dst"], kind="stable")
    n_node = arrays["crystals/n_atoms"].astype(np.int32)
    n_edge = arrays["graph/n_edges"].astype(np.int32)
    more_nodes, more_edges, more_graphs = padding
    # In the original a vector leads along its edge; here back along it.
    vectors = -arrays["graph/r"][order]
    pad = lambda x, n, fill=0: np.concatenate([x, np.full((n, *x.shape[1:]), fill, x.dtype)])
    counts = lambda x, more: np.concatenate([x, [more], np.zeros(more_graphs - 1, np.int32)])
    labels = arrays.get("train/target", np.zeros(len(n_node), np.float32))[:, None]
    graph = jraph.GraphsTuple(
        nodes={"species": pad(arrays["crystals/numbers"].astype(np.int32), more_nodes)},
        edges={
            "distances": pad(np.linalg.norm(vectors, axis=1), more_edges),
            "vectors": pad(vectors, more_edges),
        },
        receivers=pad(arrays["graph/dst"][order].astype(np.int32), more_edges, n_node.sum()),
        senders=pad(arrays["graph/src"][order].astype(np.int32), more_edges, n_node.sum()),
        globals={
            "labels": pad(labels, more_graphs),
            "label_mask": pad(np.ones_like(labels), more_graphs),
        },
        n_node=counts(n_node, more_nodes),
        n_edge=counts(n_edge, more_edges),
    )
    return graph, order


class Golden:
    """A reference file: its arrays, graph, variables and module."""

    def __init__(self, name):
        self.name, self.arrays = name, load(name)
        self.graph, self.order = stored_graph(self.arrays)
        self.parameters = under(self.arrays, "params")
        found = convert("alignn", self.parameters)
        self.variables = found.variables
        self.module = ALIGNN(**found.settings, n_triplet=len(self.arrays["graph/lg_src"]) + 11)
        self.n_node = len(self.arrays["crystals/numbers"])
        self.n_graph = len(self.arrays["crystals/n_atoms"])

    def gradients(self, kind):
        """``(loss, (prediction, new statistics)), gradients`` in training mode."""
        loss_of = property_loss(Standardiser(0.0, 1.0), kind=kind)

        def loss(params):
            outputs, updated = self.module.apply(
                {**self.variables, "params": params}, self.graph, True, mutable=["batch_stats"]
            )
            return loss_of(outputs, self.graph)[0], (outputs.prediction, updated["batch_stats"])

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(self.variables["params"])


@pytest.fixture(scope="module", params=["alignn_small", "alignn"])
def golden(request):
    return Golden(request.param)


def test_parameter_count(golden):
    variables = jax.eval_shape(lambda: golden.module.init(jax.random.key(0), golden.graph, True))
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    if golden.name == "alignn":
        assert golden.module == ALIGNN(n_triplet=golden.module.n_triplet)
        assert count == 4_026_753
    else:
        assert count == 38_753
    shape = lambda tree: jax.tree.map(lambda x: x.shape, tree)
    assert shape(variables) == shape(golden.variables)


def test_line_graph(golden):
    graph, arrays, order = golden.graph, golden.arrays, golden.order
    line = line_graph(graph, golden.module.n_triplet)
    total = int(line.total)
    assert total == len(arrays["graph/lg_src"])
    first, second = (order[np.asarray(x)[:total]] for x in line[:2])
    cosines = np.asarray(angle_cosines(line, graph.edges["vectors"]))[:total]
    mine, theirs = (
        np.lexsort((first, second)),
        np.lexsort((arrays["graph/lg_src"], arrays["graph/lg_dst"])),
    )
    np.testing.assert_array_equal(first[mine], arrays["graph/lg_src"][theirs])
    np.testing.assert_array_equal(second[mine], arrays["graph/lg_dst"][theirs])
    np.testing.assert_allclose(cosines[mine], arrays["graph/bond_cosine"][theirs], atol=1e-6)


def test_evaluation_and_every_layer(golden):
    # nn.remat hides what is inside.
    module = golden.module.clone(remat=False)
    outputs, captured = module.apply(
        golden.variables, golden.graph, False, capture_intermediates=True, mutable="intermediates"
    )
    n = golden.n_node
    n_alignn = module.n_alignn
    for k in range(n_alignn + module.n_gcn):
        name = f"alignn{k + 1}_x" if k < n_alignn else f"gcn{k - n_alignn + 1}_x"
        nodes, _ = captured["intermediates"][f"crystal_{k}"]["__call__"][0]
        assert_close(nodes[:n], golden.arrays[f"eval/{name}"])
    atoms = captured["intermediates"]["atom_embedding"]["__call__"][0]
    assert_close(atoms[:n], golden.arrays["eval/atom_embedding"])
    assert_close(outputs.embeddings[:n], golden.arrays[f"eval/gcn{module.n_gcn}_x"])
    assert not np.asarray(outputs.embeddings[n:]).any()
    assert_close(outputs.prediction[: golden.n_graph], golden.arrays["eval/prediction"])


def assert_gradients_close(actual, expected):
    """Every gradient within 1e-4 of its largest entry; those of the biases that a batch norm
    centres away, mere rounding, within 1e-5 of the largest of all. A message's bias is centred
    away as far as the gates of an atom sum to much more than 1e-6."""
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))

    def compare(path, ours, theirs):
        layer, name = path[-2].key, path[-1].key
        if name == "bias" and layer in ("linear", "update", "message"):
            assert np.abs(ours - theirs).max() < 1e-5 * largest
        else:
            assert_close(ours, theirs)

    jax.tree_util.tree_map_with_path(compare, actual, expected)


def _check_training(golden, kind, gradients):
    """Predictions, loss, statistics after the step, and gradients."""
    (value, (prediction, statistics)), actual = golden.gradients(kind)
    assert_close(prediction[: golden.n_graph], golden.arrays["train/prediction"])
    assert_close(value, golden.arrays[f"train/loss_{kind}"])
    expected = variables_of("alignn", with_statistics(gradients, golden.parameters))
    assert_gradients_close(actual, expected["params"])
    after = variables_of(
        "alignn", {**golden.parameters, **under(golden.arrays, "train/stats_after")}
    )
    jax.tree.map(assert_close, statistics, after["batch_stats"])


@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_training_step(kind):
    golden = Golden("alignn_small")
    _check_training(golden, kind, under(golden.arrays, f"train/grad_{kind}"))


def test_training_step_of_the_released_size():
    golden = Golden("alignn")
    gradients = under(golden.arrays, "train/grad_mse")
    for part in range(3):
        gradients |= under(load(f"alignn_grads_{part}"), "train/grad_mse")
    _check_training(golden, "mse", gradients)


def test_weights_of_something_else_are_refused():
    weights = dict(Golden("alignn_small").parameters)
    name = "alignn_layers.0.node_update.src_gate.weight"
    array = weights.pop(name)
    with pytest.raises(UserError, match=f"{name} is missing"):
        variables_of("alignn", weights)
    with pytest.raises(UserError, match=rf"{name} is \(32, 31\) and should be \(32, 32\)"):
        variables_of("alignn", {**weights, name: array[:, :31]})
    with pytest.raises(UserError, match="no use for fc2.weight"):
        variables_of("alignn", {**weights, name: array, "fc2.weight": array})
    with pytest.raises(UserError, match="atom_embedding.layer.0.weight is missing"):
        variables_of("alignn", {"embedding.weight": array})


def test_radial_basis():
    # Centres 0, 2 and 4: exp(−d²/2), the spacing not squared.
    values = radial_basis(jnp.array([0.0, 3.0]), 0.0, 4.0, 3)
    expected = np.exp([[0, -2, -8], [-4.5, -0.5, -0.5]])
    np.testing.assert_allclose(values, expected, rtol=1e-6)


SMALL = ALIGNN(width=16, embedding_width=8, n_alignn=2, n_gcn=1, n_radial=20, n_angular=10)


def fresh(graph):
    """Variables of `SMALL`."""
    return jax.jit(SMALL.init, static_argnums=2)(jax.random.key(0), graph, True)


def bonds_of(crystals, directory):
    store = build_store(
        crystal_list(crystals), FeaturiserSettings(**STUDENT.graphs), cache_dir=directory
    )
    assert not store.skipped
    return store


def batch_of(store, budget=None):
    """All crystals of a store as one batch, and the number of their triplets."""
    sizes = (int(store.n_nodes.sum()) + 1, int(store.n_edges.sum()), len(store) + 1)
    label = np.linspace(-1.0, 1.0, len(store))
    batcher = Batcher(
        store, budget or Budget(*sizes), label=label, edge_columns=("distances", "vectors")
    )
    n_triplet = int(count_triplets(store).sum())
    return batcher(np.arange(len(store))), n_triplet


@pytest.mark.parametrize("change", [permuted, moved, rotated, other_cell, supercell])
def test_predictions_do_not_depend_on_the_description(change, tmp_path):
    lonely = Crystal("He", [2], np.full((1, 3), 0.3), 30 * np.eye(3))
    crystals = [rocksalt(), fcc(), caesium_chloride(), perovskite(), random_crystal(9), lonely]
    generator = np.random.default_rng(1)
    changed = [Crystal(crystal.id, *change(crystal, generator)) for crystal in crystals]
    variables, results = None, []
    for described in (crystals, changed):
        graph, n_triplet = batch_of(bonds_of(described, tmp_path))
        module = SMALL.clone(n_triplet=n_triplet)
        if variables is None:
            variables = fresh(graph)
            # The output of a fresh network hardly depends on its input: make it do so.
            variables["params"]["output"]["kernel"] *= 20
        results.append(jax.jit(module.apply, static_argnums=2)(variables, graph, False).prediction)
    before, after = (np.asarray(x)[: len(crystals)] for x in results)
    assert np.std(before) > 0.1
    np.testing.assert_allclose(after, before, atol=1e-4)


def _step(module, variables, graph, axis_name=None):
    """Loss, predictions, statistics and gradients of a step in training mode."""
    loss_of = property_loss(Standardiser(0.0, 1.0), axis_name=axis_name)

    def loss(params):
        outputs, updated = module.apply(
            {**variables, "params": params}, graph, True, mutable=["batch_stats"]
        )
        return loss_of(outputs, graph)[0], (outputs, updated["batch_stats"])

    (value, (outputs, statistics)), gradients = jax.value_and_grad(loss, has_aux=True)(
        variables["params"]
    )
    return value, outputs, statistics, gradients


def test_padding_adds_nothing(tmp_path):
    store = bonds_of([*collection(5), fcc()], tmp_path)
    n_node, n_edge = int(store.n_nodes.sum()), int(store.n_edges.sum())
    graph, n_triplet = batch_of(store)
    variables = fresh(graph)
    results = []
    for budget, more in [
        (Budget(n_node + 1, n_edge, 7), 0),
        (Budget(n_node + 70, n_edge + 300, 30), 500),
        # A last batch that is nearly empty: all its padding edges end at one padding atom.
        (Budget(n_node + 9, n_edge + 20_000, 7), 9000),
    ]:
        graph, _ = batch_of(store, budget)
        module = SMALL.clone(n_triplet=n_triplet + more)
        value, outputs, *rest = jax.jit(lambda g, m=module: _step(m, variables, g))(graph)
        assert np.isfinite(outputs.prediction).all() and np.isfinite(outputs.embeddings).all()
        results.append((value, outputs.prediction[:6], outputs.embeddings[:n_node], *rest))
    # Equal but for the order in which sums of other lengths are taken.
    for other in results[1:]:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=5e-6), results[0], other
        )


def test_a_batch_with_too_many_triplets_is_not_predicted(tmp_path):
    graph, n_triplet = batch_of(bonds_of([fcc(), rocksalt()], tmp_path))
    variables = fresh(graph)
    for n, is_complete in ((n_triplet, True), (n_triplet - 1, False)):
        apply = jax.jit(SMALL.clone(n_triplet=n).apply, static_argnums=2)
        assert (np.isfinite(apply(variables, graph, False).prediction) == is_complete).all()


def test_recomputing_changes_nothing(tmp_path):
    graph, n_triplet = batch_of(bonds_of(collection(3), tmp_path))
    variables = fresh(graph)
    kept, recomputed = (
        jax.jit(lambda g, r=remat: _step(SMALL.clone(n_triplet=n_triplet, remat=r), variables, g))(
            graph
        )
        for remat in (False, True)
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), kept, recomputed
    )


def test_two_devices_are_one(tmp_path):
    store = bonds_of([*collection(3), fcc()], tmp_path)
    whole, n_triplet = batch_of(store)
    module = SMALL.clone(n_triplet=n_triplet)
    variables = fresh(whole)
    budget = Budget(int(store.n_nodes.sum()) + 1, int(store.n_edges.sum()), 5)
    batcher = Batcher(
        store, budget, label=np.linspace(-1.0, 1.0, 4), edge_columns=("distances", "vectors")
    )
    parts = stack([batcher(np.arange(3)), batcher(np.array([3]))])

    def step(graph):
        value, outputs, statistics, gradients = _step(
            module.clone(axis_name="devices"), variables, graph, "devices"
        )
        sum_of = lambda x: jax.lax.psum(x, "devices")
        return sum_of(value), outputs.prediction, statistics, jax.tree.map(sum_of, gradients)

    value, prediction, statistics, gradients = jax.jit(jax.vmap(step, axis_name="devices"))(parts)
    expected = jax.jit(lambda g: _step(module, variables, g))(whole)
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=5e-6)
    close(value[0], expected[0])
    close(np.append(prediction[0, :3], prediction[1, :1]), expected[1].prediction[:4])
    jax.tree.map(close, first(statistics), expected[2])
    jax.tree.map(close, first(gradients), expected[3])
