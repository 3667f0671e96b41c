"""Sites, bonds, pairs and triplets of crystals whose symmetry is known."""

import numpy as np
import pytest

from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs import reduction
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.equivalence import shells
from crysgnn_jax.graphs.settings import FeaturiserSettings
from toys import caesium_chloride, fcc, perovskite, random_crystal, rocksalt


def store_of(crystals, directory, **settings):
    made = FeaturiserSettings(**settings)
    return build_store(crystal_list(crystals), made, cache_dir=directory, workers=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    crystals = [rocksalt(), fcc(), caesium_chloride(), perovskite(), random_crystal(9)]
    return store_of(crystals, tmp_path_factory.mktemp("toys"))


def rows_of(column, offsets, crystal):
    return np.asarray(column[offsets[crystal] : offsets[crystal + 1]])


def bonds_of(store, crystal):
    """``(receiver, sender, distance, multiplicity)``, in order."""
    graphs = store.reduced
    degree = rows_of(graphs.degree, graphs.node_offsets, crystal)
    receivers = np.repeat(np.arange(len(degree)), degree)
    columns = (graphs.senders, graphs.edges["distances"], graphs.edge_counts)
    senders, distances, counts = (rows_of(x, graphs.edge_offsets, crystal) for x in columns)
    return [
        (int(i), int(k), round(float(d), 3), int(w))
        for i, k, d, w in zip(receivers, senders, distances, counts)
    ]


def test_rocksalt_has_two_sites(store):
    # Of each ion's 18 edges, 6 lead to the other kind at a/2 and 12 to its own at a/√2.
    assert bonds_of(store, 0) == [
        (0, 1, 2.82, 6),
        (0, 0, 3.988, 12),
        (1, 0, 2.82, 6),
        (1, 1, 3.988, 12),
    ]
    assert rows_of(store.multiplicity, store.site_offsets, 0).tolist() == [4, 4]
    assert rows_of(store.site, store.node_offsets, 0).tolist() == [0] * 4 + [1] * 4


def test_perovskite_keeps_its_three_oxygens_together(store):
    assert rows_of(store.site_species, store.site_offsets, 3).tolist() == [38, 22, 8]
    assert rows_of(store.multiplicity, store.site_offsets, 3).tolist() == [1, 1, 3]


def test_a_crystal_without_symmetry_stays_as_it_is(store):
    graphs, full = store.reduced, store.full
    assert graphs.n_nodes[4] == full.n_nodes[4] == 9
    assert (rows_of(graphs.node_counts, graphs.node_offsets, 4) == 1).all()
    assert graphs.n_edges[4] == full.n_edges[4]
    ours, theirs = (rows_of(x.edges["distances"], x.edge_offsets, 4) for x in (graphs, full))
    np.testing.assert_allclose(np.sort(ours), np.sort(theirs), atol=1e-6)


def test_nothing_is_lost(store):
    graphs = store.reduced
    for crystal in range(len(store)):
        m = rows_of(graphs.node_counts, graphs.node_offsets, crystal)
        w = rows_of(graphs.edge_counts, graphs.edge_offsets, crystal)
        degree = rows_of(graphs.degree, graphs.node_offsets, crystal)
        assert m.sum() == store.n_nodes[crystal]
        assert (np.repeat(m, degree) * w).sum() == store.n_edges[crystal]
        pairs = graphs.list("pairs")
        edges, counts = (
            rows_of(pairs.columns[name], pairs.offsets, crystal) for name in ("n_edges", "count")
        )
        assert counts.sum() <= store.n_nodes[crystal] ** 2
        if edges.max() < 5:
            assert (edges * counts).sum() == store.n_edges[crystal]


def test_angles_of_the_face_centred_lattice(tmp_path):
    store = store_of([fcc()], tmp_path, rule="bonds")
    found = store.reduced.list("triplets").columns
    # 12 edges to images of itself, each with 11 others: at 60°, 90°, 120°, and the way back, as
    # seen along the first and against the second; straight on would be the edge itself.
    cosines = found["cosines"].round(5).tolist()
    counts = found["count"].tolist()
    assert dict(zip(cosines, counts)) == {-0.5: 4, 0.0: 2, 0.5: 4, 1.0: 1}
    assert store.reduced.n_edges.tolist() == [1]


def test_values_of_atoms_and_nodes(store):
    graphs = store.reduced
    rows = np.array([3, 0])
    nodes = graphs.nodes_of_atoms(rows)
    assert nodes.tolist() == [0, 1, 2, 2, 2] + [3] * 4 + [4] * 4
    assert store.full.nodes_of_atoms(rows).tolist() == list(range(13))
    values = np.arange(13, dtype=np.float32)[:, None] * [[1.0, -2.0]]
    means = graphs.of_nodes(rows, values)
    assert means[:, 0].tolist() == [0.0, 1.0, 3.0, 6.5, 10.5]
    assert means[:, 1].tolist() == [0.0, -2.0, -6.0, -13.0, -21.0]
    np.testing.assert_array_equal(store.full.of_nodes(rows, values), values)
    nothing = np.empty(0, np.int64)
    assert graphs.of_nodes(nothing, np.empty((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("noise", [0.0, 3e-5])
def test_noise_does_not_part_equal_values(noise):
    generator = np.random.default_rng(0)
    true = np.sort(generator.choice(1000, 50, replace=False)) * 0.01
    crystal = np.repeat([0, 1], 600)
    which = generator.integers(0, 50, 1200)
    values = true[which] + noise * generator.uniform(-1, 1, 1200)
    found = shells(values, crystal, 1e-4)
    for k in (0, 1):
        expected = np.unique(which[crystal == k], return_inverse=True)[1]
        np.testing.assert_array_equal(found[crystal == k], expected)


def test_a_continuum_is_cut():
    values = np.arange(0.0, 1.0, 5e-5)
    found = shells(values, np.zeros(len(values), int), 1e-4)
    widths = [np.ptp(values[found == k]) for k in range(found.max() + 1)]
    assert max(widths) <= 1e-3 + 1e-9


def test_keys_too_large_for_one_number():
    keys = [np.array([2**40, 1, 2**40, 0]), np.array([5, 2**40, 5, 7]), np.array([3, 1, 2, 9])]
    groups = reduction._Groups.of(*keys)
    assert groups.rows.tolist() == [3, 1, 2, 0] and len(groups.starts) == 4


def test_triplets_are_reduced_in_parts(tmp_path, monkeypatch):
    crystals = [rocksalt(), random_crystal(4), perovskite(), random_crystal(6, seed=2)]
    whole = store_of(crystals, tmp_path / "whole", rule="bonds")
    monkeypatch.setattr(reduction, "_MAX_TRIPLETS", 1)
    parts = store_of(crystals, tmp_path / "parts", rule="bonds")
    found, expected = (store.reduced.list("triplets") for store in (parts, whole))
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert len(expected.columns) == 4 and found.columns.keys() == expected.columns.keys()
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)
    for name in ("site", "bond_senders"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_graphs_of_many_crystals_are_reduced_as_those_of_one(store, tmp_path):
    crystals = [rocksalt(), fcc(), caesium_chloride(), perovskite(), random_crystal(9)]
    for k, crystal in enumerate(crystals):
        alone = store_of([crystal], tmp_path)
        assert bonds_of(alone, 0) == bonds_of(store, k)
