"""Golden numbers of the original implementations: graphs and parameters in this project's terms."""

from pathlib import Path

import jax
import jraph
import numpy as np
import pytest

import golden_files
from crysgnn_jax.batches.pairs import TILE
from crysgnn_jax.interop.torch_names import convert
from oracles import counted, padded, with_pairs

REFERENCE, WEIGHTS = golden_files.SHARED / "reference", golden_files.SHARED / "weights"

TWO_ATOMS = {
    "crystals/n_atoms": np.array([2]),
    "crystals/numbers": np.array([11, 17]),
    "graph/nbr_idx": np.array([[1, 0], [0, 1]]),
    "graph/distance": np.array([[2.8, 4.0], [2.8, 4.0]]),
}
"""A crystal in the form of the golden ones."""


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of ``reference/<name>.npz``; where it is absent, those of the small file in
    ``golden/``, which skips the test when it is asked for others."""
    path = REFERENCE / f"{name}.npz"
    if path.exists():
        with np.load(path) as arrays:
            return dict(arrays)
    if (golden_files.SMALL / path.name).exists():
        return golden_files.SmallFile(name, golden_files.read(name), pytest.skip)
    pytest.skip(f"the golden numbers {path.name} are not here")


def published(name: str) -> Path:
    """The file of the published weights ``name``; skips the test where it is absent."""
    path = WEIGHTS / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the published weights {path.name} are not here")
    return path


def graph_of(arrays, *, padding=(3, 5, 2), globals_=None) -> jraph.GraphsTuple:
    """The stored crystals with their stored neighbours, padded by (nodes, edges, graphs), and with
    pairs of atoms. There are more blocks of pairs than needed: spare ones must not count."""
    n_node = arrays["crystals/n_atoms"].astype(np.int32)
    neighbours = arrays["graph/nbr_idx"].astype(np.int32)
    n_atoms, degree = neighbours.shape
    n_edge = n_node * np.int32(degree)
    more_nodes, more_edges, more_graphs = padding
    receivers = np.repeat(np.arange(n_atoms, dtype=np.int32), degree)
    of_graphs = lambda n, more: padded(np.append(n, np.int32(more)), more_graphs - 1)
    graph = jraph.GraphsTuple(
        nodes={
            "species": padded(arrays["crystals/numbers"].astype(np.int32), more_nodes),
            "count": counted(n_atoms, more_nodes),
        },
        edges={
            "distances": padded(arrays["graph/distance"].astype(np.float32).ravel(), more_edges),
            "count": counted(len(receivers), more_edges),
        },
        receivers=padded(receivers, more_edges, n_atoms),
        senders=padded(neighbours.ravel(), more_edges, n_atoms),
        globals={k: padded(v, more_graphs) for k, v in (globals_ or {}).items()},
        n_node=of_graphs(n_node, more_nodes),
        n_edge=of_graphs(n_edge, more_edges),
    )
    return with_pairs(graph)


def under(arrays, prefix):
    """The arrays below ``prefix/``, without it."""
    found = {k[len(prefix) + 1 :]: v for k, v in arrays.items() if k.startswith(prefix + "/")}
    if not found and isinstance(arrays, golden_files.SmallFile):
        arrays.lacks(f"{prefix}/…")
    return found


def variables_of(kind, parameters):
    """Flax variables of a network from arrays under torch names."""
    return convert(kind, parameters).variables


def teacher_variables(parameters):
    return variables_of("crysgnn", parameters)


def cgcnn_variables(parameters):
    return variables_of("cgcnn", parameters)


def with_statistics(gradients, parameters):
    """Gradient arrays completed by the running statistics, so that they convert like parameters."""
    return {**{k: v for k, v in parameters.items() if "running" in k}, **gradients}


def double_precision():
    """Context in which JAX computes in float64; its name moved."""
    where = jax if hasattr(jax, "enable_x64") else jax.experimental
    return where.enable_x64(True)


def pairs_in_order(blocks_values, graph):
    """``[n_block, …, TILE, TILE]`` values → ``[n_pair, …]`` crystal by crystal, row-major."""
    values = np.moveaxis(np.asarray(blocks_values), (-2, -1), (1, 2))
    out, block = [], 0
    for n in np.asarray(graph.n_node)[:-2]:
        tiles = -(-n // TILE)
        square = values[block : block + tiles**2].reshape(tiles, tiles, *values.shape[1:])
        square = np.moveaxis(square, 2, 1).reshape(tiles * TILE, tiles * TILE, *values.shape[3:])
        out.append(square[:n, :n].reshape(n * n, *values.shape[3:]))
        block += tiles**2
    return np.concatenate(out)


def assert_close(actual, expected, tolerance=1e-4):
    """Largest difference relative to the largest expected magnitude.

    Of large arrays, small golden files know only some numbers; the others are NaN.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    known = ~np.isnan(expected)
    scale = max(np.abs(expected[known]).max(), 1e-6)
    assert np.abs(actual - expected)[known].max() / scale < tolerance


def assert_gradients_close(actual, expected, tolerance=1e-4):
    """Every gradient within ``tolerance`` of its largest entry.

    The biases in front of a batch norm have no gradient but rounding, on both sides.
    """

    def compare(path, ours, theirs):
        if path[-1].key in ("gate_bias", "core_bias"):
            assert np.abs(ours).max() < 1e-5 and np.abs(theirs).max() < 1e-5
        else:
            assert_close(ours, theirs, tolerance)

    jax.tree_util.tree_map_with_path(compare, actual, expected)
