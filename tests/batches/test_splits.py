"""Splits: shares, reproducibility, leakage, files and columns."""

import json

import numpy as np
import pytest

from crysgnn_jax.batches.splits import make_split
from crysgnn_jax.errors import UserError


class Store:
    """The columns that a split reads."""

    def __init__(self, formulas, **tags):
        self.ids = np.array([f"id{i}" for i in range(len(formulas))])
        self.reduced_formula = np.array(formulas)
        self._tags = {name: np.array(values) for name, values in tags.items()}

    def tags(self, name):
        return self._tags[name]


def _together(split):
    return np.concatenate([rows for _, rows in split.items()])


def test_random_is_80_10_10_by_seed():
    store, rows = Store(["A"] * 1000), np.arange(0, 1000, 2)
    split = make_split(store, rows, "random", seed=3)
    assert [len(part) for _, part in split.items()] == [400, 50, 50]
    assert sorted(_together(split)) == rows.tolist()
    again, other = make_split(store, rows, "random", 3), make_split(store, rows, "random", 4)
    assert again.test.tolist() == split.test.tolist() != other.test.tolist()


def test_no_formula_on_two_sides():
    formulas = [f"F{i % 90}" for i in range(600)]
    split = make_split(Store(formulas), np.arange(600), "formula", seed=0)
    sides = [{formulas[row] for row in part} for _, part in split.items()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert abs(len(split.train) / 600 - 0.8) < 0.03


def test_column():
    store = Store(["A"] * 5, mp2018_split=["test", "train", "val", "", "train"])
    split = make_split(store, np.arange(5), "column:mp2018_split", seed=0)
    assert [part.tolist() for _, part in split.items()] == [[1, 4], [2], [0]]


def test_file_of_an_earlier_run(tmp_path):
    store = Store(["A"] * 30)
    split = make_split(store, np.arange(30), "random", seed=1)
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(split.ids(store)))
    again = make_split(store, np.arange(30), str(path), seed=99)
    assert again.ids(store) == split.ids(store)


def test_crystals_of_a_file_that_are_gone_are_told(tmp_path, caplog):
    path = tmp_path / "splits.json"
    split = make_split(Store(["A"] * 30), np.arange(30), "random", seed=1)
    path.write_text(json.dumps(split.ids(Store(["A"] * 30))))
    known = np.arange(25)
    again = make_split(Store(["A"] * 30), known, str(path), seed=0)
    assert again.test.tolist() == [row for row in split.test if row < 25]
    assert "5 of its 30 crystals are not among those with the label" in caplog.text


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "neither a rule"),
        ("{", "not a splits.json"),
        ('{"train": []}', "not a splits.json"),
        ('{"train": ["x"], "validation": ["y"], "test": ["z"]}', "none of its ids"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "splits.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        make_split(Store(["A"] * 9), np.arange(9), str(path), seed=0)


def test_too_few_crystals():
    with pytest.raises(UserError, match="no crystal for test out of 3"):
        make_split(Store(["A"] * 3), np.arange(3), "random", seed=0)
