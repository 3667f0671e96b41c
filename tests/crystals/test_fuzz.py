"""Damaged inputs of every kind: a crystal, a reason, or one line, and never anything else."""

import gzip
import io
import json
import random
import tarfile
import tempfile
import time
import zipfile

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.io import write

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from toys import collection

EXTREMES = [
    *(b"1e308", b"-1e308", b"1e-308", b"nan", b"inf", b"-1", b"0", b"99999999999", b"0x10"),
    *(b"?", b".", b"''", b"", b"1/3", b"\xff\xfe", b"\x00", b"\x1b[2J", b"\xf0\x9f\x99\x82"),
    *(b"loop_", b"data_", b"_atom_site_fract_x", b"{", b"]", b'"', b"\\ud800", b"True", b"null"),
]


def seeds() -> dict[str, bytes]:
    """Name → content of a small good file of each kind."""
    crystals = collection(3)
    atoms = [
        Atoms(c.species, cell=c.lattice, pbc=True, scaled_positions=c.frac_coords) for c in crystals
    ]
    found = {}
    for name, format, what in (
        ("a.cif", "cif", atoms[0]),
        ("POSCAR", "vasp", atoms[0]),
        ("a.extxyz", "extxyz", atoms),
        ("a.xsf", "xsf", atoms[0]),
        ("a.gen", "gen", atoms[0]),
    ):
        text = io.BytesIO() if format == "cif" else io.StringIO()
        write(text, what, format=format)
        content = text.getvalue()
        found[name] = content if isinstance(content, bytes) else content.encode()
    found["sym.cif"] = (
        b"data_x\n_cell_length_a 5.64\n_cell_length_b 5.64\n_cell_length_c 5.64\n"
        b"_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\n"
        b"_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4\n"
        b"_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\n"
        b"loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n"
        b"_atom_site_fract_z\n_atom_site_occupancy\nNa1 Na+ 0 0 0 1\nCl1 Cl- .5 .5 .5 1.0\n"
    )
    records = [
        {
            "jid": c.id,
            "atoms": {
                "lattice_mat": c.lattice.tolist(),
                "coords": c.frac_coords.tolist(),
                "elements": [str(symbol) for symbol in a.symbols],
                "cartesian": False,
            },
            "gap": 1.5,
        }
        for c, a in zip(crystals, atoms)
    ]
    found["a.json"] = json.dumps(records).encode()
    found["a.json.gz"] = gzip.compress(found["a.json"])
    found["a.jsonl"] = b"\n".join(json.dumps(record).encode() for record in records)
    found |= _archives({f"x/{name}": found[name] for name in ("a.cif", "sym.cif", "POSCAR")})
    with tempfile.TemporaryDirectory() as folder:
        with connect(f"{folder}/a.db") as rows:
            for one in atoms:
                rows.write(one, gap=1.5)
        with open(f"{folder}/a.db", "rb") as file:
            found["a.db"] = file.read()
    table = io.BytesIO()
    np.savez(table, **_columns(crystals))
    found["a.npz"] = table.getvalue()
    return found


def _archives(files: dict[str, bytes]) -> dict[str, bytes]:
    found = {name: io.BytesIO() for name in ("a.tar", "a.tgz", "a.zip")}
    for name, mode in (("a.tar", "w"), ("a.tgz", "w:gz")):
        with tarfile.open(fileobj=found[name], mode=mode) as archive:
            for inside, content in files.items():
                member = tarfile.TarInfo(inside)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    with zipfile.ZipFile(found["a.zip"], "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, content in files.items():
            archive.writestr(inside, content)
    return {name: file.getvalue() for name, file in found.items()}


def _columns(crystals: list[Crystal]) -> dict[str, np.ndarray]:
    return {
        "ids": np.array([c.id for c in crystals]),
        "n_atoms": np.array([len(c.species) for c in crystals]),
        "numbers": np.concatenate([c.species for c in crystals]),
        "frac_coords": np.concatenate([c.frac_coords for c in crystals]),
        "lattice": np.stack([c.lattice for c in crystals]),
        "gap": np.ones(len(crystals)),
    }


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with a few things wrong."""
    for _ in range(chance.choice([1, 1, 2, 4])):
        kind, at = chance.randrange(9), chance.randrange(len(content) + 1)
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        elif kind == 2:
            content = content[:at] + chance.choice(EXTREMES) + content[at:]
        elif kind == 3:
            lines = content.split(b"\n")
            k = chance.randrange(len(lines))
            lines[k : k + 1] = chance.choice([[], [lines[k]] * 2, [chance.choice(lines)]])
            content = b"\n".join(lines)
        elif kind == 4:
            words = content.split(b" ")
            words[chance.randrange(len(words))] = chance.choice(EXTREMES)
            content = b" ".join(words)
        elif kind == 5:
            end = at + chance.randrange(20)
            content = content[:at] + content[end:]
        elif kind > 6:
            digits = [k for k, byte in enumerate(content) if 48 <= byte <= 57]
            at = chance.choice(digits or [0])
            content = content[:at] + bytes([chance.randrange(48, 58)]) + content[at + 1 :]
        else:
            end = at + chance.randrange(40)
            content = content[:end] + content[at:end] * chance.choice([1, 50]) + content[end:]
    return content


def read_all(path, cache) -> str:
    """What came of a file: "read", or "refused"."""
    try:
        store = build_store(open_source(path), FeaturiserSettings(), cache_dir=cache)
    except UserError as error:
        assert "\n" not in str(error) and "\x1b" not in str(error)
        return "refused"
    assert np.isfinite(store.distances).all() and np.isfinite(store.frac_coords).all()
    for id, reason in (*store.skipped, *store.notes):
        assert reason and not {"\n", "\x1b", "\0"} & {*id, *reason}
    return "read"


def fuzz(folder, n: int, seed: int) -> dict[str, int]:
    found, files, chance = {"read": 0, "refused": 0}, seeds(), random.Random(seed)
    for k in range(n):
        name = chance.choice(sorted(files))
        path = folder / str(k) / name
        path.parent.mkdir()
        path.write_bytes(mutated(files[name], chance))
        started = time.monotonic()
        found[read_all(path, folder / "cache")] += 1
        assert time.monotonic() - started < 20, path
    return found


def test_seeds_are_good(tmp_path):
    for name, content in seeds().items():
        (tmp_path / name).write_bytes(content)
        assert read_all(tmp_path / name, tmp_path / "cache") == "read", name


def test_damaged_inputs(tmp_path):
    found = fuzz(tmp_path, 150, seed=0)
    assert min(found.values()) > 15  # the damage is neither nothing nor everything


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_damaged_inputs(tmp_path, seed):
    fuzz(tmp_path, 1000, seed)


def test_damaged_columns_of_a_table(tmp_path):
    """Arrays that are whole, with values and shapes that are not those of crystals."""
    crystals, chance = collection(3), np.random.default_rng(0)
    write_table(tmp_path / "good.npz", crystals)
    kinds = [np.uint64, np.int8, np.float16, np.float64, bool, "U3", "S3", complex]
    for k in range(60):
        columns = _columns(crystals)
        name = chance.choice(sorted(columns))
        column = columns[name]
        change = chance.integers(4)
        if change == 0:
            with np.errstate(all="ignore"):
                kind = kinds[chance.integers(len(kinds))]
                column = column.astype(kind) if column.dtype.kind != "U" else column.astype("S2")
        elif change == 1:
            column = column.reshape(-1)[: chance.integers(column.size + 1)]
        elif change == 2 and column.dtype.kind != "U":
            column = column.astype(float)
            column.flat[chance.integers(column.size)] = chance.choice([np.nan, np.inf, 1e300, -1])
        else:
            column = column[None]
        path = tmp_path / f"{k}.npz"
        np.savez(path, **{**columns, name: column})
        read_all(path, tmp_path / "cache")
