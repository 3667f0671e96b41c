"""The layout of atom pairs: complete, countable, and small."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from crysgnn_jax.batches.pairs import TILE, connection_counts, count_blocks, pair_blocks
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.pretraining.objective import pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED
from crysgnn_jax.pretraining.teacher import Teacher
from oracles import counted, edges_between, padded, with_pairs

N_NODE = np.array([3, 40, 16, 1])
"""Less than a tile, several, exactly one, and a single atom."""


def _graph(n_node, n_edge_per_node=2, more_blocks=2):
    """Random edges inside each crystal, two padding nodes with one edge."""
    generator = np.random.default_rng(0)
    start = np.cumsum(n_node) - n_node
    receivers = np.repeat(np.arange(n_node.sum()), n_edge_per_node)
    owner = np.repeat(np.arange(len(n_node)), n_node * n_edge_per_node)
    senders = start[owner] + generator.integers(0, n_node[owner])
    pad = n_node.sum()
    graph = jraph.GraphsTuple(
        nodes={"species": np.ones(pad + 2, np.int32), "count": counted(pad, 2)},
        edges={
            "distances": np.ones(len(receivers) + 1, np.float32),
            "count": counted(len(receivers), 1),
        },
        receivers=padded(receivers, 1, pad).astype(np.int32),
        senders=padded(senders, 1, pad).astype(np.int32),
        globals={
            "space_group": np.ones(len(n_node) + 1, np.int32),
            "crystal_system": np.zeros(len(n_node) + 1, np.int32),
        },
        n_node=np.append(n_node, 2).astype(np.int32),
        n_edge=np.append(n_node * n_edge_per_node, 1).astype(np.int32),
    )
    return with_pairs(graph, more_blocks=more_blocks)


def test_every_pair_is_there_once():
    blocks = pair_blocks(Batch(_graph(N_NODE)))
    assert len(blocks.crystals) == int(count_blocks(N_NODE).sum()) + 2
    block, i, j = np.nonzero(np.asarray(blocks.pairs.weights))
    found = list(zip(np.asarray(blocks.rows)[block, i], np.asarray(blocks.columns)[block, j]))
    start = np.cumsum(N_NODE) - N_NODE
    expected = {
        (a, b) for s, n in zip(start, N_NODE) for a in range(s, s + n) for b in range(s, s + n)
    }
    assert len(found) == len(expected) and set(found) == expected
    assert np.asarray(blocks.pairs.weights).max() == 1


def test_edges_are_counted_at_their_pair():
    graph = _graph(N_NODE, n_edge_per_node=9, more_blocks=0)
    blocks = pair_blocks(Batch(graph))
    counts = np.asarray(connection_counts(Batch(graph), blocks))
    expected = edges_between(graph)
    assert expected.max() > 5
    for block in range(len(blocks.crystals)):
        rows, columns = np.asarray(blocks.rows[block]), np.asarray(blocks.columns[block])
        is_pair = np.asarray(blocks.pairs.weights[block])
        between = np.minimum(expected[np.ix_(rows, columns)], 5)
        one_of_six = between == np.arange(6)[:, None, None]
        np.testing.assert_array_equal(counts[block], one_of_six * is_pair)
    # Five or more edges between two atoms are one class.
    lost = np.maximum(expected - 5, 0).sum()
    assert (counts.sum(axis=(0, 2, 3)) * np.arange(6)).sum() == 9 * N_NODE.sum() - lost


def _sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _sizes(inner)


def test_nothing_of_the_size_pairs_times_width_is_made():
    graph = _graph(np.array([200]), more_blocks=0)
    objectives = RELEASED["crysgnn"]
    module = Teacher(n_convolutions=1, objectives=tuple(x for x, _ in objectives))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), graph, True))

    def loss(params, batch_stats):
        outputs, _ = module.apply(
            {"params": params, "batch_stats": batch_stats}, graph, True, mutable=["batch_stats"]
        )
        return pretraining_loss(objectives)(outputs, graph)[0]

    jaxpr = jax.make_jaxpr(jax.grad(loss))(variables["params"], variables["batch_stats"])
    n_pairs, width = 200**2, 64
    assert n_pairs < max(_sizes(jaxpr.jaxpr)) < n_pairs * width / 2


@pytest.mark.parametrize("n", [1, TILE, TILE + 1, 5 * TILE])
def test_block_count(n):
    assert count_blocks(n) == (1 if n <= TILE else 4 if n == TILE + 1 else 25)
    assert jnp.asarray(count_blocks(np.array([n])))[0] == count_blocks(n)
