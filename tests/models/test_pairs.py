"""The layout of atom pairs: complete, countable, and small."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from crysgnn_jax.models.pairs import TILE, count_blocks, count_edges, pair_blocks
from crysgnn_jax.models.teacher import Teacher
from crysgnn_jax.objectives.pretraining import pretraining_loss

N_NODE = np.array([3, 40, 16, 1])
"""Less than a tile, several, exactly one, and a single atom."""


def _graph(n_node, n_edge_per_node=2, seed=0):
    """Random edges inside each crystal, two padding nodes with one edge."""
    generator = np.random.default_rng(seed)
    start = np.cumsum(n_node) - n_node
    receivers = np.repeat(np.arange(n_node.sum()), n_edge_per_node)
    owner = np.repeat(np.arange(len(n_node)), n_node * n_edge_per_node)
    senders = start[owner] + generator.integers(0, n_node[owner])
    pad = n_node.sum()
    return jraph.GraphsTuple(
        nodes={"species": np.ones(pad + 2, np.int32)},
        edges={"distances": np.ones(len(receivers) + 1, np.float32)},
        receivers=np.append(receivers, pad).astype(np.int32),
        senders=np.append(senders, pad).astype(np.int32),
        globals={
            "space_group": np.ones(len(n_node) + 1, np.int32),
            "crystal_system": np.zeros(len(n_node) + 1, np.int32),
        },
        n_node=np.append(n_node, 2).astype(np.int32),
        n_edge=np.append(n_node * n_edge_per_node, 1).astype(np.int32),
    )


def test_every_pair_is_there_once():
    graph = _graph(N_NODE)
    n_block = int(count_blocks(N_NODE).sum()) + 2
    blocks = pair_blocks(graph, n_block)
    block, i, j = np.nonzero(np.asarray(blocks.mask))
    found = list(zip(np.asarray(blocks.rows)[block, i], np.asarray(blocks.columns)[block, j]))
    start = np.cumsum(N_NODE) - N_NODE
    expected = {
        (a, b) for s, n in zip(start, N_NODE) for a in range(s, s + n) for b in range(s, s + n)
    }
    assert len(found) == len(expected) and set(found) == expected


def test_edges_are_counted_at_their_pair():
    graph = _graph(N_NODE, n_edge_per_node=5)
    n_block = int(count_blocks(N_NODE).sum())
    blocks, counts = pair_blocks(graph, n_block), np.asarray(count_edges(graph, n_block))
    expected = np.zeros((N_NODE.sum() + 2,) * 2)
    np.add.at(expected, (graph.receivers[:-1], graph.senders[:-1]), 1)
    for block in range(n_block):
        rows, columns = np.asarray(blocks.rows[block]), np.asarray(blocks.columns[block])
        mask = np.asarray(blocks.mask[block])
        np.testing.assert_array_equal(counts[block] * mask, expected[np.ix_(rows, columns)] * mask)
    assert counts.sum() == 5 * N_NODE.sum()


def _sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _sizes(inner)


def test_nothing_of_the_size_pairs_times_width_is_made():
    n_node = np.array([200])
    graph = _graph(n_node)
    n_block = int(count_blocks(n_node).sum())
    module = Teacher(n_convolutions=1)
    variables = module.init(jax.random.key(0), graph, True, n_block=n_block)

    def loss(params):
        outputs, _ = module.apply(
            {**variables, "params": params}, graph, True, n_block=n_block, mutable=["batch_stats"]
        )
        return pretraining_loss()(outputs, graph)[0]

    largest = max(_sizes(jax.make_jaxpr(jax.grad(loss))(variables["params"]).jaxpr))
    n_pairs, width = 200**2, 64
    assert n_pairs < largest < n_pairs * width / 2


@pytest.mark.parametrize("n", [1, TILE, TILE + 1, 5 * TILE])
def test_block_count(n):
    assert count_blocks(n) == (1 if n <= TILE else 4 if n == TILE + 1 else 25)
    assert jnp.asarray(count_blocks(np.array([n])))[0] == count_blocks(n)
