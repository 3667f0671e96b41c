"""The comparison with pymatgen."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import graphs
from toys import collection, perovskite


@pytest.fixture
def files(tmp_path):
    crystals = [perovskite(), *collection(4)]
    for crystal in crystals:
        (tmp_path / f"{crystal.id}.cif").write_text(graphs.cif_text(crystal))
    return [tmp_path / f"{crystal.id}.cif" for crystal in crystals]


def test_pymatgen_makes_the_same_graphs_of_the_same_files(files):
    pytest.importorskip("pymatgen")
    ours = graphs.Builder(str(files[0].parent), None).graphs(files)
    side = graphs.Pymatgen(files, repeats=2)
    for our, their in zip(ours, side.graphs()):
        np.testing.assert_allclose(their.distances, our.distances, atol=1e-3)
        assert their.space_group == our.space_group
    assert ours[0].space_group == 221  # a cubic perovskite
    builds = [side.build(), side.build()]
    assert [build["crystals"] for build in builds] == [3, 2]
    assert all(build["crystals_per_second"] > 0 for build in builds)


def test_cifs_are_sorted_by_atoms(tmp_path):
    folder = tmp_path / "crystals"
    folder.mkdir()
    for crystal in (perovskite(id="five"), *collection(3)):
        (folder / f"{crystal.id}.cif").write_text(graphs.cif_text(crystal))
    out = tmp_path / "cifs"
    out.mkdir()
    written = graphs.Builder(str(folder), None).write_cifs(out)
    sizes = {crystal.id: len(crystal.species) for crystal in collection(3)} | {"five": 5}
    assert sorted(file.stem for file in written) == sorted(sizes)
    n_atoms = [sizes[file.stem] for file in written]
    assert n_atoms == sorted(n_atoms)


@pytest.mark.parametrize(
    "n, expected", [(0, []), (1, [3]), (3, [1, 3, 5]), (6, range(6)), (9, range(6))]
)
def test_spread_takes_all_sizes(n, expected):
    files = [Path(str(k)) for k in range(6)]
    assert graphs.spread(files, n) == [files[k] for k in expected]
