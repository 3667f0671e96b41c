"""The tables of gains in the texts are those of the records in ``results/``."""

import pytest

from experiments.studies import report


@pytest.mark.parametrize(
    "path, name, table", [pytest.param(*found, id=found[1]) for found in report.tables()]
)
def test_a_table_is_what_its_record_says(path, name, table):
    text = path.read_text()
    assert report.with_table(text, name, table) == text


def test_a_row_says_by_which_start_it_was_made():
    """A dagger where the package has another start by now, and a minus sign as wide as a digit."""
    start = {"from": "crysgnn-mp-cgcnn", "validation_loss": 9.0}
    cell = {
        "n_train": 300, "vanilla": [0.2, 0.3], "distilled": [0.3, 0.3], "gain": -20.0,
        "gain_interval": [-30.0, 1.0], "start": start,
    }  # fmt: skip
    row = report.every_cell({"cgcnn mp band_gap 300": cell}).splitlines()[-1]
    assert row == (
        "| CGCNN† | Materials Project | band gap, eV | 300 | 0.25 ± 0.071 | 0.3 ± 0 | "
        "−20.0 | −30.0 … 1.0 |"
    )
    (row,) = report.by_student({"cgcnn mp band_gap 300": cell}).splitlines()[2:]
    assert row == "| CGCNN | 1 | 0 | 0 | 0 | -20.0 | 16 |".replace("-", "−")
