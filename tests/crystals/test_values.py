"""Labels in a CSV beside the crystals."""

import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.crystals.values import WithValues, read_values
from toys import fcc, rocksalt


def table(tmp_path, text):
    path = tmp_path / "values.csv"
    path.write_text(text)
    return path


def test_values_of_one_id_are_averaged_and_empty_ones_are_missing(tmp_path):
    path = table(tmp_path, "id,formula,measured\na,X,1.0\na,X,2.0,\nb,Y,\nc,Z,nan\nd,Z,-3\n")
    assert read_values(path, "measured") == {"a": 1.5, "d": -3.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,other\na,1\n", "no column 'measured'; there is id, other"),
        ("name,measured\na,1\n", "no column 'id'"),
        ("", "no column 'id'; there is none"),
        ("id,measured\na,1\nb,high\n", "line 3: measured='high' is not a number"),
        ("measured,id\n1.0\n", "line 2: measured=1.0 has no id"),
        ("id,measured\na,inf\n", "line 2: measured='inf' is not a number"),
        ("id,measured\na,1\nb,-0,53\n", "line 3: it has 3 cells and the first line 2, .* '53'"),
    ],
)
def test_what_is_no_table_is_told_in_a_line(tmp_path, text, said):
    with pytest.raises(cg.UserError, match=said):
        read_values(table(tmp_path, text), "measured")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(cg.UserError, match=r"none\.csv: cannot be read .No such file"):
        read_values(tmp_path / "none.csv", "measured")


def source():
    return crystal_list([fcc(id="a"), rocksalt(id="b")], labels=[{"dft": 1.0}, {"dft": 2.0}])


def test_values_become_a_label_of_their_crystals(tmp_path):
    joined = WithValues(source(), "measured", {"b": 2.5, "elsewhere": 9.0})
    assert joined.labelled("measured").tolist() == [False, True]
    assert joined.labelled("dft").tolist() == [True, True]
    assert joined.fingerprint() != WithValues(source(), "measured", {"b": 2.6}).fingerprint()
    store = cg.build_store(joined, cache=tmp_path)
    np.testing.assert_array_equal(store.labels("measured"), [np.nan, 2.5])
    np.testing.assert_array_equal(store.labels("dft"), [1.0, 2.0])


def test_values_that_fit_nothing_are_refused():
    with pytest.raises(cg.UserError, match="none of the 1 ids with a value of measured, such as"):
        WithValues(source(), "measured", {"x": 1.0})
    with pytest.raises(cg.UserError, match="has the label 'dft' already"):
        WithValues(source(), "dft", {"a": 1.0})
