"""Crystals of the benchmark of curation."""

import numpy as np

from benchmarks import curation
from toys import collection, perovskite


def test_known_copies_are_found_and_others_stay(tmp_path):
    real = [perovskite(), *collection(5, seed=3)]
    made = list(curation.crystals_like(real, 30, copies=0.3, seed=1))
    copies = [crystal for crystal in made if "=" in crystal.id]
    assert len(made) == 30 and 3 <= len(copies) <= 15
    by_id = {crystal.id: crystal for crystal in made}
    for copy in copies:
        other = by_id[copy.id.partition("=")[2]]
        assert copy.reduced_formula == other.reduced_formula
        volumes = [abs(np.linalg.det(c.lattice)) / len(c.species) for c in (copy, other)]
        np.testing.assert_allclose(*volumes)
    curation.Maker._write(tmp_path, 0, made)
    path = str(tmp_path / "part-000.npz")
    found = curation.Curator().curate([path], str(tmp_path / "set"), 1)
    assert (found["crystals"], found["skipped"]) == (30, 0)
    assert found["copies_found"] == len(copies) and found["others_joined"] == 0
    assert found["peak_memory_gb"]["driver"] > 0
