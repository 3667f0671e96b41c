"""CIF files that other packages ship, read as pymatgen reads them, or with a reason why not."""

import importlib.util
import signal
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from crysgnn_jax.crystals.readers.cif import block_names, read_cif
from crysgnn_jax.errors import InvalidCrystal

PACKAGES = ("ase", "cif2cell", "crystals", "Dans_Diffraction", "matminer", "pyxtal")

REASONS = {
    # name of a file → why it is read otherwise, or not
    "bvparm2016.cif": "a table of bond valences, without atoms",
    "bvparm2020.cif": "a table of bond valences, without atoms",
}


def files() -> list[Path]:
    """CIF files of the packages that are installed."""
    specs = (importlib.util.find_spec(name) for name in PACKAGES)
    folders = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin]
    found = (path for folder in folders for path in folder.rglob("*"))
    return sorted(path for path in found if path.suffix.lower() in (".cif", ".mcif"))


def contents(species, volume) -> tuple:
    return tuple(sorted(Counter(species).items())), pytest.approx(volume, abs=0.3)


def ours(path: Path) -> list:
    """What is in each crystal, or why it is refused."""
    found = []
    for block in block_names(path.read_bytes(), path.name):
        try:
            crystal = read_cif(path, path.stem, block=block or None)
        except InvalidCrystal as error:
            found.append(error.reason)
        else:
            volume = abs(np.linalg.det(crystal.lattice))
            found.append(contents(crystal.species.tolist(), volume))
    return found


def theirs(path: Path, parser) -> list | None:
    """The same of pymatgen; None where it fails or takes over half a minute."""
    signal.alarm(30)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structures = parser(str(path), occupancy_tolerance=1.0, site_tolerance=1e-3)
            structures = structures.parse_structures(primitive=False)
        return [
            contents([site.specie.Z for site in x], x.volume) if x.is_ordered else "disordered"
            for x in structures
        ]
    except Exception:
        return None
    finally:
        signal.alarm(0)


@pytest.mark.slow
def test_real_files_are_read_as_by_pymatgen():
    parser = pytest.importorskip("pymatgen.io.cif", reason="install the extra structures").CifParser
    paths = files()
    if len(paths) < 100:
        pytest.skip(f"{len(paths)} CIF files are installed; install the extra structures")
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    try:
        differing, same = {}, 0
        for path in paths:
            mine, other = ours(path), theirs(path, parser)
            disordered = all(
                isinstance(x, str) and ("occupied to" in x or "disorder" in x) for x in mine
            )
            if disordered and other is not None:
                disordered = all(x == "disordered" or isinstance(x, tuple) for x in other)
            if mine == other:
                same += 1
            elif not disordered and path.name not in REASONS:
                differing[str(path)] = (mine, other)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not differing
    assert same >= 0.9 * len(paths)
