"""Crystal embeddings as features."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import crysgnn_jax as cg


@pytest.fixture(scope="module")
def featurizer(tmp_path_factory):
    return cg.CrystalFeaturizer(cache=tmp_path_factory.mktemp("features"), devices=1)


@pytest.fixture(scope="module")
def structures():
    molecule = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])
    return [bulk("Cu"), molecule, bulk("NaCl", "rocksalt", a=5.64)]


def test_features_are_the_crystal_embeddings(featurizer, structures):
    labels = featurizer.feature_labels()
    assert labels[0] == "crysgnn-mp 0" and len(labels) == 64
    found = featurizer.featurize_many([structures[0], structures[2]])
    expected = cg.load().embed([structures[0], structures[2]], cache=featurizer.cache, devices=1)
    np.testing.assert_allclose(found, expected.crystals, rtol=1e-6)
    np.testing.assert_allclose(featurizer.featurize(structures[2]), found[1], rtol=1e-3, atol=1e-5)


def test_what_cannot_be_used_is_nan_and_told(featurizer, structures):
    with pytest.warns(UserWarning, match="1 structure not featurized .number 1: it is not"):
        found = featurizer.transform(structures)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]
    assert [place for place, _ in featurizer.skipped_] == [1]


def test_a_data_frame_has_a_column_for_each(featurizer, structures):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"cell": structures, "name": list("abc")}, index=[7, 7, 9])
    with pytest.warns(UserWarning):
        found = featurizer.featurize_dataframe(table, "cell")
    assert found.shape == (3, 66) and table.shape == (3, 2)
    assert found.index.tolist() == [7, 7, 9] and found["name"].tolist() == list("abc")
    assert found["crysgnn-mp 3"].isna().tolist() == [False, True, False]


def test_it_stands_in_a_pipeline(featurizer, structures):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.base import clone
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(clone(featurizer), Ridge())
    usable = [structures[0], structures[2]]
    assert pipeline.fit(usable, [0.0, -2.0]).predict(usable).shape == (2,)
    assert len(pipeline[0].get_feature_names_out()) == 64
