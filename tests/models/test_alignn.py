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
from crysgnn_jax.batches.views import mark_spread
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.interop.torch_names import convert
from crysgnn_jax.models.alignn import ALIGNN, NETWORK, radial_basis
from crysgnn_jax.objectives.property import Standardiser, property_loss
from golden import assert_close, load, under, variables_of, with_statistics
from oracles import counted, padded, triplets_of, with_triplets
from toys import (
    batcher_for_all,
    caesium_chloride,
    collection,
    fcc,
    perovskite,
    random_crystal,
    rocksalt,
)


def stored_graph(arrays, padding=(3, 7, 2)):
    """The stored crystals with their stored bonds, padded by (nodes, edges, graphs), and the order
    in which the stored bonds were put."""
    order = np.argsort(arrays["graph/dst"], kind="stable")
    n_node = arrays["crystals/n_atoms"].astype(np.int32)
    n_edge = arrays["graph/n_edges"].astype(np.int32)
    more_nodes, more_edges, more_graphs = padding
    # In the original a vector leads along its edge; here back along it.
    vectors = -arrays["graph/r"][order]
    senders, receivers = (arrays[f"graph/{x}"][order].astype(np.int32) for x in ("src", "dst"))
    counts = lambda x, more: np.concatenate([x, [more], np.zeros(more_graphs - 1, np.int32)])
    labels = arrays.get("train/target", np.zeros(len(n_node), np.float32))[:, None]
    graph = jraph.GraphsTuple(
        nodes={
            "species": padded(arrays["crystals/numbers"].astype(np.int32), more_nodes),
            "count": counted(n_node.sum(), more_nodes),
        },
        edges={
            "distances": padded(np.linalg.norm(vectors, axis=1), more_edges),
            "count": counted(len(order), more_edges),
        },
        receivers=padded(receivers, more_edges, n_node.sum()),
        senders=padded(senders, more_edges, n_node.sum()),
        globals={
            "labels": padded(labels, more_graphs),
            "label_mask": padded(np.ones_like(labels), more_graphs),
        },
        n_node=counts(n_node, more_nodes),
        n_edge=counts(n_edge, more_edges),
    )
    # Both ways round the original's triplets and these are the same; see `test_triplets`.
    return with_triplets(graph, triplets_of(senders, receivers, vectors), more=11), order


class Golden:
    """A reference file: its arrays, graph, variables and module."""

    def __init__(self, name):
        self.name, self.arrays = name, load(name)
        self.graph, self.order = stored_graph(self.arrays)
        self.parameters = under(self.arrays, "params")
        found = convert("alignn", self.parameters)
        self.variables = found.variables
        self.module = ALIGNN(**found.settings)
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
        assert golden.module == ALIGNN()
        assert count == 4_026_753
    else:
        assert count == 38_753
    shape = lambda tree: jax.tree.map(lambda x: x.shape, tree)
    assert shape(variables) == shape(golden.variables)


def test_triplets(golden):
    """The line graph that the networks are given is that of the original."""
    arrays, order = golden.arrays, golden.order
    found = golden.graph.edges["triplets"]
    total = len(arrays["graph/lg_src"])
    assert found["count"].sum() == total
    first, second = (order[found[x][:total]] for x in ("senders", "receivers"))
    cosines = found["cosines"][:total]
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


@pytest.mark.slow
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
    return jax.jit(lambda key, graph: SMALL.init(key, graph, True))(jax.random.key(0), graph)


evaluate = jax.jit(lambda variables, graph: SMALL.apply(variables, graph, False))


def bonds_of(crystals, directory):
    store = build_store(
        crystal_list(crystals), FeaturiserSettings(**NETWORK.needs.graphs), cache_dir=directory
    )
    assert not store.skipped
    return store


def batch_of(store, more=(0, 0, 0, 0)):
    """All crystals of a store as one batch, with ``more`` nodes, edges, graphs and triplets."""
    n_triplet = int(store.full.list("triplets").lengths.sum())
    needed = (int(store.n_nodes.sum()) + 1, int(store.n_edges.sum()), len(store) + 1, n_triplet)
    nodes, edges, graphs, triplets = (size + extra for size, extra in zip(needed, more))
    budget = Budget(nodes, edges, graphs, {"triplets": triplets})
    batcher = Batcher(store, budget, label=np.linspace(-1.0, 1.0, len(store)))
    return batcher(np.arange(len(store)))


@pytest.mark.parametrize("change", [permuted, moved, rotated, other_cell, supercell])
def test_predictions_do_not_depend_on_the_description(change, tmp_path):
    lonely = Crystal("He", [2], np.full((1, 3), 0.3), 30 * np.eye(3))
    crystals = [rocksalt(), fcc(), caesium_chloride(), perovskite(), random_crystal(9), lonely]
    generator = np.random.default_rng(1)
    changed = [Crystal(crystal.id, *change(crystal, generator)) for crystal in crystals]
    variables, results = None, []
    for described in (crystals, changed):
        graph = batch_of(bonds_of(described, tmp_path))
        if variables is None:
            variables = fresh(graph)
            # The output of a fresh network hardly depends on its input: make it do so.
            variables["params"]["output"]["kernel"] *= 20
        results.append(evaluate(variables, graph).prediction)
    before, after = (np.asarray(x)[: len(crystals)] for x in results)
    assert np.std(before) > 0.1
    np.testing.assert_allclose(after, before, atol=1e-4)


def _step(module, variables, graph):
    """Loss, predictions, statistics and gradients of a step in training mode."""
    loss_of = property_loss(Standardiser(0.0, 1.0))

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
    n_node = int(store.n_nodes.sum())
    variables = fresh(batch_of(store))
    step = jax.jit(lambda graph: _step(SMALL, variables, graph))
    results = []
    for more in [
        (0, 0, 0, 0),
        (69, 300, 23, 500),
        # A last batch that is nearly empty: all its padding edges end at one padding atom.
        (8, 20_000, 0, 9000),
    ]:
        value, outputs, *rest = step(batch_of(store, more))
        assert np.isfinite(outputs.prediction).all() and np.isfinite(outputs.embeddings).all()
        results.append((value, outputs.prediction[:6], outputs.embeddings[:n_node], *rest))
    # Equal but for the order in which sums of other lengths are taken.
    for other in results[1:]:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=5e-6), results[0], other
        )


def test_a_batch_with_too_many_triplets_is_not_made(tmp_path):
    store = bonds_of([fcc(), rocksalt()], tmp_path)
    with pytest.raises(ValueError):
        batch_of(store, more=(0, 0, 0, -1))


def test_recomputing_changes_nothing(tmp_path):
    graph = batch_of(bonds_of(collection(3), tmp_path))
    variables = fresh(graph)
    kept, recomputed = (
        jax.jit(lambda g, r=remat: _step(SMALL.clone(remat=r), variables, g))(graph)
        for remat in (False, True)
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), kept, recomputed
    )


@pytest.mark.slow
def test_two_devices_are_one(tmp_path):
    store = bonds_of([*collection(3), fcc()], tmp_path)
    batcher = batcher_for_all(store, lists=("triplets",), label=np.linspace(-1.0, 1.0, 4))
    whole = batcher(np.arange(4))
    variables = fresh(whole)
    parts = stack([batcher(np.arange(3)), batcher(np.array([3]))])

    def step(graph):
        value, outputs, statistics, gradients = _step(
            SMALL, variables, mark_spread(graph, "devices")
        )
        mean = jax.lax.pmean(gradients, "devices")
        return value, outputs.prediction, statistics, mean

    value, prediction, statistics, gradients = jax.jit(jax.vmap(step, axis_name="devices"))(parts)
    expected = jax.jit(lambda g: _step(SMALL, variables, g))(whole)
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=5e-6)
    close(value, np.full(2, expected[0]))
    close(np.append(prediction[0, :3], prediction[1, :1]), expected[1].prediction[:4])
    jax.tree.map(close, first(statistics), expected[2])
    jax.tree.map(close, first(gradients), expected[3])
