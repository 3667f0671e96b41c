"""The notebooks run from clean, and are kept with their outputs."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_what_it_prints_and_draws(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in cells)
    assert not any(output["output_type"] == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_clean(path, tmp_path, monkeypatch):
    pytest.importorskip("nbclient", reason="notebooks are an extra")
    sys.path.append(str(ROOT / "scripts"))
    from run_notebooks import executed

    monkeypatch.setenv("CRYSGNN_CACHE", str(tmp_path / "cache"))
    executed(path, tmp_path)
