"""A student as a regressor of scikit-learn."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import crysgnn_jax as cg
from toys import collection

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("estimator")
    settings = {"model": {"width": 8, "n_convolutions": 1}, "batch_size": 4}
    return {"teacher": None, "epochs": 2, "settings": settings, "cache": path, "devices": 1}


@pytest.fixture(scope="module")
def crystals():
    return collection(12)


@pytest.fixture(scope="module")
def values(crystals):
    return np.array([crystal.labels["energy"] for crystal in crystals])


def test_it_fits_predicts_and_scores(small, crystals, values):
    before = set(os.listdir(tempfile.gettempdir()))
    regressor = cg.CrystalRegressor(**small, unit="eV").fit(crystals[:10], values[:10])
    assert not {x for x in set(os.listdir(tempfile.gettempdir())) - before if "crysgnn" in x}
    assert regressor.model_.unit == "eV" and regressor.model_.result["n_train"] == 9
    found = regressor.predict(crystals)
    assert found.shape == (12,) and np.isfinite(found).all()
    spread = np.sum((values - values.mean()) ** 2)
    by_hand = 1 - np.sum((values - found) ** 2) / spread
    assert regressor.score(crystals, values) == pytest.approx(by_hand)
    molecule = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])
    with pytest.warns(UserWarning, match="1 structure not predicted .number 1: it is not periodic"):
        found = regressor.predict([crystals[0], molecule, crystals[1]])
    assert np.isnan(found).tolist() == [False, True, False]
    with pytest.warns(UserWarning):
        assert np.isnan(regressor.predict([molecule])).all()


def test_scikit_learn_takes_it_for_a_regressor(small, crystals, values):
    sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.model_selection import cross_val_score

    regressor = cg.CrystalRegressor(**{**small, "epochs": 1})
    copy = sklearn.base.clone(regressor)
    assert copy is not regressor and copy.get_params() == regressor.get_params()
    assert sklearn.base.is_regressor(regressor)
    scores = cross_val_score(regressor, crystals, values, cv=2, error_score="raise")
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_it_is_its_parameters():
    regressor = cg.CrystalRegressor(epochs=3)
    assert repr(regressor) == "CrystalRegressor(epochs=3)"
    assert regressor.set_params(seed=5).get_params()["seed"] == 5
    assert regressor.get_params()["teacher"] == "crysgnn-mp"
    with pytest.raises(cg.UserError, match="`epoch`: there is no such parameter"):
        regressor.set_params(epoch=3)


@pytest.mark.parametrize(
    "y, params, message",
    [
        ([1.0], {}, "give a number each"),
        (["a", "b"], {}, "a value is not a number"),
        ([1.0, np.nan], {}, "a value is not finite"),
        ([1.0, 2.0], {"validation_fraction": 1.0}, "give a number between 0 and 1"),
    ],
)
def test_what_it_cannot_be_fitted_to_is_told(crystals, y, params, message):
    with pytest.raises(cg.UserError, match=message):
        cg.CrystalRegressor(**params).fit(crystals[:2], y)
    with pytest.raises(cg.UserError, match="has not been fitted"):
        cg.CrystalRegressor().predict(crystals)


def test_scikit_learn_and_pandas_are_not_needed():
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['pandas'] = None\n"
        "import crysgnn_jax as cg; print(cg.CrystalRegressor(), cg.CrystalFeaturizer())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "CrystalRegressor() CrystalFeaturizer()", done.stderr
