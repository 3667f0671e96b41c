"""A curated set as a source of crystals."""

import pickle

import numpy as np
import pytest
from toy_sets import write_set

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import select
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from toys import collection, rocksalt


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Crystals, and the folder of a set of them, of 4 crystals a shard."""
    folder = tmp_path_factory.mktemp("made")
    salt = rocksalt()
    tagged = Crystal("salt", salt.species, salt.frac_coords, salt.lattice, {}, {"who": "me"})
    crystals = [*collection(9), tagged]
    store = build_store(read(crystals), FeaturiserSettings(), cache_dir=folder)
    write_set(store, folder / "set", crystals_a_shard=4)
    return crystals, folder / "set"


def test_its_crystals_have_their_labels_and_tags(made):
    crystals, path = made
    source = read(str(path))
    assert (source.name, len(source), source.label_names) == (str(path), 10, ("energy",))
    assert source.ids().tolist() == [crystal.id for crystal in crystals]
    assert source.labelled("energy").tolist() == [True] * 9 + [False]
    items = pickle.loads(pickle.dumps(source.items(2, 10)))
    for one, item in zip(crystals[2:], items, strict=True):
        other = source.decode(item)
        assert (one.id, one.labels, one.tags) == (other.id, other.labels, other.tags)
        for name in ("species", "frac_coords", "lattice"):
            assert getattr(other, name).dtype == getattr(one, name).dtype
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_set_that_is_made_anew_in_its_place_is_read_anew(made, tmp_path):
    found = []
    for crystals in (made[0][:3], made[0][3:6]):
        store = build_store(read(crystals), FeaturiserSettings(), cache_dir=tmp_path)
        write_set(store, tmp_path / "set", crystals_a_shard=4)
        other = FeaturiserSettings(cutoff=6.0)  # so that the crystals are decoded
        found.append(build_store(read(tmp_path / "set"), other, cache_dir=tmp_path))
    assert [store.ids.tolist() for store in found] == [["c0", "c1", "c2"], ["c3", "c4", "c5"]]


def test_some_of_it_and_more_besides(made):
    crystals, path = made
    source = select(read(path), [8, 1])
    assert [source.decode(item).id for item in source.items(0, 2)] == ["c8", "c1"]
    both = read([path, [rocksalt(id="c1")]])
    assert both.decode(both.items(10, 11)[0]).id.endswith("/c1")
    assert both.decode(both.items(9, 10)[0]).tags == {"who": "me"}


def test_damage_is_told_when_it_is_opened(made, tmp_path):
    _, path = made
    copy = tmp_path / "copy"
    (copy / "shards").mkdir(parents=True)
    (copy / "curated.json").write_bytes((path / "curated.json").read_bytes())
    for file in (path / "shards").iterdir():
        (copy / "shards" / file.name).write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="copy is damaged: shards/00000.safetensors has"):
        read(copy)


def test_an_address_without_a_set_is_told():
    with pytest.raises(UserError, match="memory://none: there is no curated set"):
        read("memory://none")
