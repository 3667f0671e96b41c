"""Splits of compounds, the straight line, and what a predictor that goes on begins with."""

import dataclasses

import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.training.debias import Correction, dft_split, measured_split
from toys import collection


def test_the_straight_line_is_exact_where_there_is_one():
    dft = np.array([-2.0, -1.0, 0.5])
    assert Correction.fit(dft, 1.1 * dft + 0.3) == pytest.approx((1.1, 0.3))
    assert Correction.fit(dft, dft + 0.3).apply(np.array([4.0])) == pytest.approx([4.3])


def test_equal_dft_values_give_the_mean_difference():
    line = Correction.fit(np.array([1.0, 1.0]), np.array([1.2, 1.4]))
    assert line == pytest.approx((1.0, 0.3))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """60 crystals, of which the first 30 are measured; the last 5 are polymorphs of the first 5."""
    some = collection(55, "dft")
    some += [
        dataclasses.replace(one, id=f"{one.id}b", lattice=1.1 * one.lattice) for one in some[:5]
    ]
    for k in range(30):
        labels = {**some[k].labels, "measured": some[k].labels["dft"] + 0.3}
        some[k] = dataclasses.replace(some[k], labels=labels)
    return cg.build_store(cg.crystal_list(some), cache=tmp_path_factory.mktemp("cache"))


def formulas(store, rows):
    return set(store.reduced_formula[rows].tolist())


def test_no_formula_of_a_measured_compound_is_trained_on(store):
    measured = np.arange(30)
    split = dft_split(store, np.arange(60), measured, 0, shared=False)
    np.testing.assert_array_equal(split.test, measured)
    for rows in (split.train, split.validation):
        assert len(rows) and not formulas(store, rows) & formulas(store, measured)
    assert not np.isin(np.arange(55, 60), np.concatenate([split.train, split.validation])).any()
    assert not formulas(store, split.train) & formulas(store, split.validation)


def test_shared_formulas_are_trained_on_where_that_is_asked_for(store):
    split = dft_split(store, np.arange(60), np.arange(30), 0, shared=True)
    assert formulas(store, split.train) & formulas(store, np.arange(30))
    assert sum(len(rows) for _, rows in split.items()) == 60


def test_where_all_formulas_are_measured_the_way_out_is_told(store):
    with pytest.raises(cg.UserError, match="0 crystals with a DFT label .* another `data`"):
        dft_split(store, np.arange(30), np.arange(30), 0, shared=False)


def test_a_smaller_share_lies_within_a_larger(store):
    rows = np.arange(30)
    less, more = (measured_split(store, rows, share, 0) for share in (0.4, 0.6))
    used = lambda split: set(split.train.tolist()) | set(split.validation.tolist())
    assert used(less) < used(more)
    assert len(less.test) > len(more.test) and not used(more) & set(more.test.tolist())
    assert not formulas(store, more.train) & formulas(store, more.test)


def test_a_share_that_leaves_too_few_is_refused(store):
    with pytest.raises(cg.UserError, match="`fractions` 0.9 of 30 compounds leaves 3 on one side"):
        measured_split(store, np.arange(30), 0.9, 0)
