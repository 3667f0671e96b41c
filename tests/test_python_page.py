"""The blocks of ``docs/python.md``, as one script."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    shutil.copytree(DOCS / "examples" / "crystals", tmp_path / "crystals")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSGNN_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    script = "\n".join(blocks)
    # Each but for the length of the trainings, and with fewer crystals.
    assert script.count("epochs=60") == 2
    script = script.replace("epochs=60", "epochs=1").replace('"dielectric", "band_gap"', "few")
    names: dict = {"few": tmp_path / "few.npz"}
    _few_crystals(tmp_path / "few.npz")
    exec(script, names)
    said = capsys.readouterr().out
    assert re.search(r"^NaCl -\d\.\d+ eV/atom$", said, re.MULTILINE)
    assert "eV relative to the elements in their standard states" in said
    assert np.isfinite(names["features"]).all() and len(names["features"]) == 40
    assert (tmp_path / "gaps.safetensors").exists()


def _few_crystals(path):
    import crysgnn_jax as cg
    from crysgnn_jax.crystals.table import write_table

    source = cg.read("dielectric")
    crystals = [source.decode(item) for item in source.items(0, 40)]
    only = [cg.Crystal(x.id, x.species, x.frac_coords, x.lattice,
                       {"band_gap": x.labels["band_gap"]}) for x in crystals]  # fmt: skip
    write_table(path, only)
