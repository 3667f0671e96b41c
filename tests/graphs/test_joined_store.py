"""A curated set among other crystals: the store of all of them, without a copy of the set."""

import numpy as np
import pytest
from toy_sets import write_set

from crysgnn_jax.batches.budget import Sizes, choose_budget
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import Combined, select, without_labels
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.joined_store import Joined, JoinedStore
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from toys import collection, fcc, random_crystal, rocksalt

SETTINGS = FeaturiserSettings()


def without(source):
    return without_labels(source)


def as_it_is(source):
    return source


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Crystals as a table, of which one is no use; others, some with the same ids, as a table and
    as a set of one name."""
    folder = tmp_path_factory.mktemp("made")
    salt = rocksalt()
    tagged = Crystal("c3", salt.species, salt.frac_coords, salt.lattice, {"gap": 5.0}, {"a": "b"})
    write_table(folder / "few.npz", [*collection(6), fcc(), rocksalt(id="huge")])
    others = [*collection(11)[4:], tagged]
    write_table(folder / "table.npz", others)
    store = build_store(read(folder / "table.npz"), SETTINGS, cache_dir=folder / "cache")
    write_set(store, folder / "table", crystals_a_shard=3)
    return folder


@pytest.fixture(params=[as_it_is, without])
def pair(request, made, tmp_path):
    """The store of both as it is built, and as it is read from the set."""
    few = read(made / "few.npz")
    table = read(made / "table.npz")
    same = [select(table, np.arange(len(table)), str(made / "table")), read(made / "table")]
    # The largest of the few is left out.
    return [
        build_store(Combined([few, request.param(one)]), SETTINGS, cache_dir=tmp_path, max_atoms=19)
        for one in same
    ]


def test_it_is_the_store_that_would_be_built(pair):
    built, found = pair
    assert type(built) is GraphStore and isinstance(found, JoinedStore)
    assert built.skipped == found.skipped and built.notes == found.notes
    assert built.label_names == found.label_names and built.tag_names == found.tag_names
    assert found.settings == built.settings and found.source_name == built.source_name
    for name in ("ids", "reduced_formula", "space_group", "lattice", "n_nodes", "n_edges", "site"):
        np.testing.assert_array_equal(getattr(found, name), getattr(built, name), err_msg=name)
    for name in ("node_offsets", "bond_offsets", "bond_senders", "pair_multiplicity", "vectors"):
        np.testing.assert_array_equal(found.column(name), built.column(name), err_msg=name)
    for name in built.label_names:
        np.testing.assert_array_equal(found.labels(name), built.labels(name))
    for name in built.tag_names:
        np.testing.assert_array_equal(found.tags(name), built.tags(name))


def test_batches_are_those_of_the_store_that_would_be_built(pair):
    rows = np.array([9, 2, 0, 12, 5])
    batches = []
    for store in pair:
        graphs = store.reduced
        budget = choose_budget(Sizes.of_graphs(graphs, ("blocks", "pairs")), 8)
        batches.append(Batcher(store, budget, graphs=graphs)(rows))
    for one, other in zip(*(batch.nodes.values() for batch in batches)):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(*(batch.edges["pairs"].values() for batch in batches)):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(batches[0].edges["distances"], batches[1].edges["distances"])


@pytest.mark.parametrize(
    "index",
    [0, 4, -1, slice(2, 9), [8, 0, 4, 3, 8], np.array([], int), np.arange(9) % 2 == 0, np.int64(3)],
)
def test_it_is_indexed_as_an_array(index):
    whole = np.arange(18).reshape(9, 2)
    joined = Joined([whole[:4], whole[4:4], whole[4:]])
    np.testing.assert_array_equal(joined[index], whole[index])
    np.testing.assert_array_equal(joined, whole)
    assert joined.tolist() == whole.tolist() and len(joined) == 9


@pytest.mark.parametrize("index", [9, -10, [0, 9], np.ones(3, bool)])
def test_what_is_not_there_is_an_error(index):
    with pytest.raises(IndexError):
        Joined([np.arange(4), np.arange(5)])[index]


def test_a_part_of_no_use_leaves_the_others(made, tmp_path):
    write_table(tmp_path / "large.npz", [random_crystal(21, id="large")])
    sources = [read(tmp_path / "large.npz"), read(made / "table")]
    store = build_store(Combined(sources), SETTINGS, cache_dir=tmp_path, max_atoms=20)
    assert type(store) is GraphStore and [id for id, _ in store.skipped] == ["large"]
    assert store.ids.tolist() == sources[1].ids().tolist()
