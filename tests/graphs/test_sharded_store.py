"""A curated set as a graph store: the same crystals, batches and graphs as those of a store."""

import jax
import numpy as np
import pytest
from toy_sets import write_set

from crysgnn_jax.batches.budget import Sizes, choose_budget
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs import scattered
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.duplicates import look_alikes, same_structures
from crysgnn_jax.graphs.scattered import Shards, Table, Texts
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.sharded_store import ShardedStore
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.shards import Shard, write_shard
from toys import caesium_chloride, collection, fcc, perovskite, rocksalt

SETTINGS = FeaturiserSettings()


def crystals():
    """Symmetric and other ones, with labels and tags that some have."""
    labelled = collection(20)
    known = [rocksalt(), fcc(), caesium_chloride(), perovskite(), rocksalt(5.6, id="again")]
    tagged = [
        Crystal(f"t{k}", c.species, c.frac_coords, c.lattice, {}, {"split": f"part {k}"})
        for k, c in enumerate(known)
    ]
    return [*known, *labelled, *tagged]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, and the folder of the same as a curated set, of 7 crystals a shard."""
    folder = tmp_path_factory.mktemp("made")
    store = build_store(read(crystals()), SETTINGS, cache_dir=folder / "cache")
    write_set(store, folder / "set", crystals_a_shard=7)
    return store, folder / "set"


@pytest.fixture
def pair(made, tmp_path):
    """The store, and the set as one."""
    store, path = made
    return store, build_store(read(path), SETTINGS, cache_dir=tmp_path / "cache")


def test_a_set_is_its_own_store_where_the_settings_agree(made, tmp_path):
    _, path = made
    source = read(str(path))
    cache = tmp_path / "cache"
    assert isinstance(build_store(source, SETTINGS, cache_dir=cache), ShardedStore)
    assert not list(cache.rglob("*.npy"))
    others = build_store(source, FeaturiserSettings(cutoff=6.0), cache_dir=cache)
    assert type(others) is GraphStore and others.settings.cutoff == 6.0
    fewer = build_store(source, SETTINGS, cache_dir=cache, max_atoms=10)
    assert type(fewer) is GraphStore and 0 < len(fewer.skipped)


def test_it_has_the_crystals_of_the_store(pair):
    store, found = pair
    assert len(found) == len(store) == 30 and found.settings == store.settings
    for name in ("ids", "reduced_formula", "space_group", "lattice", "n_nodes", "n_edges"):
        np.testing.assert_array_equal(getattr(found, name), getattr(store, name))
    assert found.label_names == store.label_names and found.tag_names == store.tag_names
    np.testing.assert_array_equal(found.labels("energy"), store.labels("energy"))
    np.testing.assert_array_equal(found.tags("split"), store.tags("split"))
    with pytest.raises(UserError, match="'gap' among its labels: energy"):
        found.labels("gap")
    one, other = store.crystal(12), found.crystal(12)
    assert one.id == other.id and one.reduced_formula == other.reduced_formula
    np.testing.assert_array_equal(one.frac_coords, other.frac_coords)


def test_ids_are_had_one_by_one_or_all(pair):
    _, found = pair
    assert found.ids[0] == "NaCl" and found.ids[-1] == "t4"
    assert found.ids[[5, 0]].tolist() == ["c0", "NaCl"]
    assert found.ids.tolist() == list(found.ids) == np.asarray(found.ids).tolist()
    assert found.ids[np.array([], int)].tolist() == []


def test_texts_of_many_crystals_are_decoded_in_turns(made, monkeypatch):
    store, path = made
    shards = Shards([Shard(file) for file in sorted((path / "shards").iterdir())])
    monkeypatch.setattr(scattered, "_AT_A_TIME", 4)
    assert Texts(shards, "ids")[:].tolist() == store.ids.tolist()
    assert Texts(shards, "ids").tolist() == store.ids.tolist()


@pytest.mark.parametrize("rows", [[29, 0, 13], [6, 7, 8], [3], [], range(30)])
def test_batches_are_those_of_the_store(pair, rows):
    batches = []
    for store in pair:
        graphs = store.reduced
        budget = choose_budget(Sizes.of_graphs(graphs, ("blocks", "pairs")), 30)
        columns = {"place": np.arange(store.node_offsets[-1], dtype=np.float32)[:, None]}
        batcher = Batcher(
            store, budget, graphs=graphs, label=store.labels("energy"), node_columns=columns
        )
        batches.append(batcher(np.array(rows, np.int64)))
    paths = [jax.tree_util.tree_leaves_with_path(batch) for batch in batches]
    assert len(paths[0]) == len(paths[1]) > 15
    for (name, one), (_, other) in zip(*paths):
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=str(name))


def test_whole_graphs_are_made_when_they_are_asked_for(pair):
    store, found = pair
    for name in ("degree", "senders", "distances", "vectors", "edge_offsets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(store, name))
    np.testing.assert_array_equal(found.full.list("pairs").columns["n_edges"],
                                  store.full.list("pairs").columns["n_edges"])  # fmt: skip


def test_look_alikes_are_found_in_it(pair):
    store, found = pair
    alike = look_alikes(found)
    assert (alike != np.arange(30)).sum() >= 5
    np.testing.assert_array_equal(alike, look_alikes(store))
    np.testing.assert_array_equal(same_structures(found, alike), same_structures(store, alike))


def test_a_set_at_an_address_is_the_same(made, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSGNN_CACHE", str(tmp_path / "cache"))
    store, path = made
    address = f"memory://{tmp_path.name}/set"
    written = write_set(store, address, crystals_a_shard=7)
    source = read(address)
    assert source.fingerprint() == written.fingerprint == read(path).fingerprint()
    found = build_store(source, SETTINGS)
    np.testing.assert_array_equal(found.bond_distances, store.bond_distances)


def test_a_shard_that_is_gone_by_then_is_told(made, tmp_path):
    store, _ = made
    write_set(store, tmp_path / "set", crystals_a_shard=7)
    source = read(tmp_path / "set")
    (tmp_path / "set" / "shards" / "00003.safetensors").unlink()
    with pytest.raises(UserError, match="00003.safetensors is missing"):
        build_store(source, SETTINGS, cache_dir=tmp_path)


@pytest.fixture(scope="module")
def column(tmp_path_factory):
    """An array of several shards, of several types, one of them empty; and the same as one."""
    folder = tmp_path_factory.mktemp("column")
    whole = np.arange(3, 402).reshape(-1, 3)
    parts = np.split(whole, [20, 20, 85])
    for k, part in enumerate(parts):
        small = part.astype(np.uint8 if part.max(initial=0) < 256 else np.uint16)
        write_shard(folder / str(k), {"x": small}, {"ids": ["a"] * len(part)}, {})
    shards = Shards([Shard(folder / str(k)) for k in range(len(parts))])
    return whole.astype(np.int32), Table(shards).column("x", np.int32)


@pytest.mark.parametrize(
    "index",
    [
        *(slice(None), slice(0, 0), slice(15, 90), slice(-5, None), slice(100, 2, -7)),
        *(0, 19, 20, -1, np.int64(132)),
        *([5], [19, 20], [84, 85, 0, 0, 132, 1, 2], list(range(10, 100))),
        *(np.arange(133) % 3 == 0, np.zeros(133, bool), np.array([], int)),
    ],
)
def test_it_is_indexed_as_an_array(column, index):
    whole, scattered_one = column
    found = scattered_one[index]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, whole[index])


def test_all_of_it_is_an_array(column):
    whole, scattered_one = column
    assert scattered_one.shape == whole.shape and len(scattered_one) == len(whole)
    np.testing.assert_array_equal(scattered_one, whole)


@pytest.mark.parametrize("index", [133, -134, [133], [-1], [[0]], np.ones(7, bool)])
def test_what_is_not_there_is_an_error(column, index):
    _, scattered_one = column
    with pytest.raises(IndexError):
        scattered_one[index]


def test_what_was_read_is_given_back_before_it_is_much(pair, monkeypatch):
    _, found = pair
    released = []
    monkeypatch.setattr(Shard, "release", lambda shard: released.append(shard))
    for _ in range(3):
        found.species[np.arange(10)]
    assert not released
    monkeypatch.setattr(scattered, "_MAPPED", 1 << 17)
    for _ in range(2):
        found.species[np.arange(10)]
    assert released == list(found.shards)
