"""Sources of any size: archives, databases, frames and records that are read when asked for."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
import textwrap
import zipfile

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.db import connect
from ase.io import write

from crysgnn_jax.crystals.readers import json_scan, open_source
from crysgnn_jax.crystals.sources import require_tag, select
from crysgnn_jax.errors import InvalidCrystal, UserError
from toys import collection


def atoms_of(crystal, **info):
    atoms = Atoms(
        crystal.species, cell=crystal.lattice, pbc=True, scaled_positions=crystal.frac_coords
    )
    atoms.info = info
    return atoms


def read_all(source):
    """The crystals of a source by id, and the reasons of those that cannot be used."""
    crystals, reasons = {}, {}
    source = pickle.loads(pickle.dumps(source))  # sources and items go to other processes
    for item in source.items(0, len(source)):
        try:
            crystal = source.decode(pickle.loads(pickle.dumps(item)))
            crystals[crystal.id] = crystal
        except InvalidCrystal as error:
            reasons[error.crystal_id] = error.reason
    return crystals, reasons


def assert_collection(crystals, ids):
    """The toys in order, under these ids."""
    assert list(crystals) == list(ids)
    for found, expected in zip(crystals.values(), collection(len(crystals))):
        assert found.reduced_formula == expected.reduced_formula
        assert len(found.species) == len(expected.species)
        # Of one cell, by its metric: formats may turn it.
        metric = found.lattice @ found.lattice.T
        np.testing.assert_allclose(metric, expected.lattice @ expected.lattice.T, atol=1e-3)


def record_of(crystal, **properties):
    atoms = {
        "lattice_mat": crystal.lattice.tolist(),
        "coords": crystal.frac_coords.tolist(),
        "elements": [chemical_symbols[z] for z in crystal.species],
        "cartesian": False,
    }
    return {"jid": crystal.id, "atoms": atoms, **properties}


# Records


def test_records_are_found_wherever_the_pieces_of_a_file_end(tmp_path, monkeypatch):
    records = [record_of(crystal, energie_é=float(k)) for k, crystal in enumerate(collection(4))]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(json_scan, "CHUNK", size)
        source = open_source(path)
        crystals, _ = read_all(source)
        assert_collection(crystals, ["c0", "c1", "c2", "c3"])
        assert [crystal.labels for crystal in crystals.values()] == [
            {"energie_é": float(k)} for k in range(4)
        ]


@pytest.mark.parametrize("kind", ["json.gz", "json.bz2", "json.xz", "jsonl", "jsonl.gz", "zip"])
def test_packed_records_are_unpacked_once(tmp_path, cache, kind):
    records = [record_of(crystal, gap=1.0) for crystal in collection(3)]
    text = json.dumps(records)
    if "jsonl" in kind:
        text = "\n".join(map(json.dumps, [{"type": "info", "id": "head"}, *records])) + "\n"
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.json", text)
    else:
        packed = {"gz": gzip, "z2": bz2, "xz": lzma}.get(kind[-2:])
        path.write_bytes(packed.compress(text.encode()) if packed else text.encode())
    for _ in range(2):
        source = open_source(path)
        assert_collection(read_all(source)[0], ["c0", "c1", "c2"])
        assert source.labelled("gap").all()
    if kind != "jsonl":
        assert len(list(cache.glob("*.json"))) == 1


def test_objects_of_records_and_records_of_utf16(tmp_path):
    records = {f"x{k}": record_of(crystal) for k, crystal in enumerate(collection(3))}
    for record in records.values():
        del record["jid"]
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(records).encode("utf-16"))
    assert_collection(read_all(open_source(path))[0], ["x0", "x1", "x2"])
    path.write_text(json.dumps({"meta": {}, "data": list(map(record_of, collection(2)))}))
    assert_collection(read_all(open_source(path))[0], ["c0", "c1"])


def test_a_damaged_line_of_records_costs_only_itself(tmp_path):
    lines = [json.dumps(record_of(crystal)) for crystal in collection(3)]
    lines[1] = lines[1][:-10]
    (tmp_path / "a.jsonl").write_text("\n\n".join(lines))
    crystals, reasons = read_all(open_source(tmp_path / "a.jsonl"))
    assert list(crystals) == ["c0", "c2"]
    assert reasons["record 1"].startswith("record 1 is damaged: ")


@pytest.mark.parametrize(
    "text",
    ["[1, 2", "[1 2]", "[1] 2", '{"a" 1}', '{"a": {}', "{1: 2}", "", "[nul]", "[" * 100_000, "[]"],
)
def test_damaged_records_are_one_line(tmp_path, text):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(UserError, match="a.json.gz: (damaged or incomplete|not a list)") as error:
        open_source(path)
    assert "\n" not in str(error.value)
    path.write_bytes(gzip.compress(json.dumps([record_of(collection(1)[0])]).encode()))
    assert len(open_source(path)) == 1


def test_what_makes_a_thing_of_a_file_that_changed_is_told(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(list(map(record_of, collection(2)))))
    source = open_source(path)
    path.write_text("[]")
    assert set(read_all(source)[1]) == {"c0", "c1"}
    path.unlink()
    with pytest.raises(UserError, match="cannot be read any more"):
        source.items(0, 1)


def test_a_folder_is_read_file_by_file(tmp_path):
    crystals = collection(6)
    write(tmp_path / "a.cif", atoms_of(crystals[0]))
    write(tmp_path / "b.extxyz", [atoms_of(crystal) for crystal in crystals[1:3]])
    write(tmp_path / "c.vasp", atoms_of(crystals[3]), format="vasp")
    with connect(tmp_path / "d.db") as database:
        database.write(atoms_of(crystals[4]), gap=2.0)
    write(tmp_path / "e.traj", [atoms_of(crystals[5], gap=np.nan)])
    (tmp_path / "f.txt").write_text("")
    source = open_source(tmp_path)
    ids = ["a", "b-0", "b-1", "c", "d", "e"]
    assert_collection(read_all(source)[0], ids)
    assert source.ids().tolist() == ids and source.label_names == ["gap"]
    assert source.labelled("gap").tolist() == [False] * 4 + [True, False]
    assert [source.decode(item).id for item in source.items(2, 5)] == ids[2:5]
    assert source.notes == [
        "not read: 1 other file (1 .txt)",
        "1 label is no number (gap is NaN or infinite): taken as missing",
    ]


def test_names_of_files_may_be_no_text(tmp_path):
    name = os.fsdecode(b"\xff\xe9.cif")
    write(tmp_path / "a.cif", atoms_of(collection(1)[0]))
    os.rename(tmp_path / "a.cif", tmp_path / name)
    assert_collection(read_all(open_source(tmp_path))[0], ["\\udcff\\udce9"])


def test_a_tag_that_files_do_not_have_is_told_before_anything_is_read(tmp_path):
    write(tmp_path / "a.extxyz", [atoms_of(crystal) for crystal in collection(2)])
    with pytest.raises(UserError, match="has no 'set' among its tags: it has none"):
        require_tag(open_source(tmp_path / "a.extxyz"), "column:set")


# Frames


def test_frames_are_read_where_they_stand(tmp_path):
    frames = [atoms_of(crystal, gap=0.5 * k, name="x 1") for k, crystal in enumerate(collection(5))]
    frames[3].calc = SinglePointCalculator(frames[3], energy=-3.5, forces=frames[3].positions)
    write(tmp_path / "a.extxyz", frames)
    text = (tmp_path / "a.extxyz").read_bytes()
    (tmp_path / "b.xyz").write_bytes(text.replace(b"\n", b"\r\n"))
    (tmp_path / "c.extxyz.xz").write_bytes(lzma.compress(text))
    for name in ("a.extxyz", "b.xyz", "c.extxyz.xz"):
        source = open_source(tmp_path / name)
        assert_collection(read_all(source)[0], [f"{name[0]}-{k}" for k in range(5)])
        assert source.label_names == ["gap", "energy"]
        assert source.labelled("energy").tolist() == [k == 3 for k in range(5)]
        one = select(source, [3])
        assert read_all(one)[0][f"{name[0]}-3"].labels == {"gap": 1.5, "energy": -3.5}


def test_a_damaged_frame_costs_only_itself(tmp_path):
    write(tmp_path / "a.extxyz", [atoms_of(crystal) for crystal in collection(4)])
    lines = (tmp_path / "a.extxyz").read_text().splitlines(keepends=True)
    starts = [k for k, line in enumerate(lines) if line.strip().isdigit()]
    lines[starts[1] + 2] = "Xx what is this\n"
    lines[starts[2] - 1] += "\n"  # an empty line between frames
    (tmp_path / "b.extxyz").write_text("".join(lines[:-1]))
    crystals, reasons = read_all(open_source(tmp_path / "b.extxyz"))
    assert list(crystals) == ["b-0", "b-2"]
    assert "b.extxyz cannot be read by ASE" in reasons["b-1"]
    assert "it is cut short or damaged" in reasons["b-3"]
    (tmp_path / "b.extxyz").write_text(
        "".join([*lines[: starts[1]], "many\n", *lines[starts[1] :]])
    )
    crystals, reasons = read_all(open_source(tmp_path / "b.extxyz"))
    assert list(crystals) == ["b-0"]
    line = starts[1] + 1
    assert reasons["b-1"] == (
        f"b.extxyz line {line} should be a number of atoms, and is 'many'; what follows it is not "
        "read"
    )


# Databases


def test_rows_of_a_database_by_their_numbers(tmp_path):
    path = tmp_path / "a.db"
    with connect(path) as database:
        for k, crystal in enumerate(collection(6)):
            database.write(atoms_of(crystal), gap=float(k), stable=True, note="x")
        database.delete([1])
        frame = atoms_of(collection(7)[6])
        frame.calc = SinglePointCalculator(frame, energy=-1.0)
        database.write(frame)
    source = open_source(path)
    assert source.ids().tolist() == [f"a-{k}" for k in range(6)]
    assert source.label_names == ["gap", "energy"]
    assert source.labelled("energy").tolist() == [False] * 5 + [True]
    crystals = [source.decode(item) for item in source.items(4, 6)]
    assert [crystal.labels for crystal in crystals] == [{"gap": 5.0}, {"energy": -1.0}]
    assert crystals[0].reduced_formula == collection(6)[5].reduced_formula


def test_a_damaged_row_costs_only_itself(tmp_path):
    import sqlite3

    path = tmp_path / "a.db"
    with connect(path) as database:
        for crystal in collection(3):
            database.write(atoms_of(crystal))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE systems SET positions = x'00' WHERE id = 2")
    crystals, reasons = read_all(open_source(path))
    assert list(crystals) == ["a-0", "a-2"]
    assert "row 2 cannot be read by ASE" in reasons["a-1"]


@pytest.fixture
def lmdb_files(tmp_path):
    pytest.importorskip("ase_db_backends", reason="ase-db-backends is not installed")
    folder = tmp_path / "omat"
    folder.mkdir()
    crystals = collection(5)
    for name, part in (("data.0000", crystals[:3]), ("data.0001", crystals[3:])):
        with connect(str(folder / f"{name}.aselmdb"), type="aselmdb", use_lock_file=False) as rows:
            for crystal in part:
                atoms = atoms_of(crystal)
                atoms.calc = SinglePointCalculator(atoms, energy=-2.0, forces=atoms.positions)
                rows.write(atoms, data={"sid": "x"}, origin="rattled")
    for path in folder.glob("*lock*"):
        path.unlink()
    return folder


def test_a_folder_of_lmdb_databases_is_one_source(lmdb_files):
    source = open_source(lmdb_files)
    ids = ["data.0000-0", "data.0000-1", "data.0000-2", "data.0001-0", "data.0001-1"]
    crystals, _ = read_all(source)
    assert_collection(crystals, ids)
    assert source.ids().tolist() == ids and source.label_names == ["energy"]
    assert all(crystal.labels == {"energy": -2.0} for crystal in crystals.values())
    assert source.labelled("energy").all() and not source.labelled("gap").any()
    assert len(source.items(2, 4)) == 2
    assert sorted(path.name for path in lmdb_files.iterdir()) == [
        "data.0000.aselmdb",
        "data.0001.aselmdb",
    ]


def test_the_package_for_lmdb_is_named(lmdb_files, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"aselmdb: needs lmdb; .*'crysgnn-jax\[lmdb\]'"):
        open_source(lmdb_files)


def test_damage_to_an_lmdb_database(lmdb_files):
    import lmdb

    path = lmdb_files / "data.0000.aselmdb"
    with lmdb.open(str(path), subdir=False, lock=False) as database:
        with database.begin(write=True) as rows:
            rows.put(b"2", b"no zlib")
            rows.delete(b"3")
    crystals, reasons = read_all(open_source(path))
    assert list(crystals) == ["data.0000-0"]
    assert "its row is damaged" in reasons["data.0000-1"]
    assert reasons["data.0000-2"] == "row 3 is missing"
    content = path.read_bytes()
    for cut in (len(content) // 2, 5000, 100, 0):
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match="data.0000.aselmdb: damaged or incomplete"):
            open_source(path)


# Archives


@pytest.fixture
def cifs(tmp_path):
    """Names and contents of files as the published untagged set has them."""
    found = {}
    for crystal in collection(4):
        write(tmp_path / "x.cif", atoms_of(crystal))
        found[f"crystals/{crystal.id}.cif"] = (tmp_path / "x.cif").read_bytes()
    return found


def pack(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "zip"])
def test_archives_are_read_without_unpacking(tmp_path, cache, cifs, kind):
    poscar = io.StringIO()
    write(poscar, atoms_of(collection(5)[4]), format="vasp")
    path = tmp_path / f"a.{kind}"
    more = {"crystals/more/POSCAR_1": poscar.getvalue().encode(), "crystals/README": b"hello"}
    pack(path, {**cifs, **more})
    source = open_source(path)
    assert_collection(read_all(source)[0], ["c0", "c1", "c2", "c3", "more/POSCAR_1"])
    assert source.notes == ["not read: 1 other file (1 README)"]
    assert [source.decode(item).id for item in source.items(1, 3)] == ["c1", "c2"]
    in_cache = sorted(path.suffix for path in cache.glob("*.tar")) if cache.exists() else []
    assert in_cache == ([] if kind in ("tar", "zip") else [".tar"])


def test_what_an_archive_holds_decides_its_fingerprint(tmp_path, cifs):
    found = set()
    for kind in ("tar", "tgz", "zip"):
        pack(tmp_path / f"a.{kind}", cifs)
        found.add(open_source(tmp_path / f"a.{kind}").fingerprint())
    assert len(found) == 1
    changed = {name: content.replace(b"data_", b"data_x") for name, content in cifs.items()}
    pack(tmp_path / "a.tar", changed)
    assert open_source(tmp_path / "a.tar").fingerprint() not in found


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_an_archive_with_a_table_has_labels(tmp_path, cifs, kind):
    path = tmp_path / f"a.{kind}"
    pack(path, {**cifs, "crystals/id_prop.csv": b"c1,-0.5\nc0,1.25\nc9,2\nc3,much\n"})
    source = open_source(path)
    crystals, reasons = read_all(source)
    assert {id: dict(crystal.labels) for id, crystal in crystals.items()} == {
        "c1": {"target": -0.5},
        "c0": {"target": 1.25},
    }
    assert reasons["c9"] == "id_prop.csv row 3: the file c9.cif is missing"
    assert "is not a number" in reasons["c3"]
    assert source.notes == ["2 files have no row in id_prop.csv and are not read"]
    assert source.label_names == ["target"]


def test_names_in_an_archive_that_are_the_same(tmp_path, cifs):
    one, two = list(cifs.values())[:2]
    both = one + b"\n" + two.replace(b"data_image0", b"data_second")
    pack(tmp_path / "a.tar", {"a/x.cif": one, "b/x.cif": two, "b/x.cif.gz": gzip.compress(one)})
    assert open_source(tmp_path / "a.tar").ids().tolist() == ["a/x", "b/x.cif", "b/x.cif.gz"]
    pack(tmp_path / "a.tar", {"both.cif": both})
    crystals, _ = read_all(open_source(tmp_path / "a.tar"))
    assert_collection(crystals, ["both#image0", "both#second"])


def test_damage_in_archives(tmp_path, cifs):
    path = tmp_path / "a.zip"
    pack(path, cifs)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("crystals/c1.cif").header_offset
    content[at + 100 : at + 110] = bytes(10)
    path.write_bytes(content)
    crystals, reasons = read_all(open_source(path))
    assert list(crystals) == ["c0", "c2", "c3"] and "damaged in the archive" in reasons["c1"]
    for kind in ("zip", "tar", "tar.gz", "tar.xz"):
        path = tmp_path / f"b.{kind}"
        pack(path, cifs)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 300])
        with pytest.raises(UserError, match=f"b.{kind}: damaged or incomplete") as error:
            open_source(path)
        assert "\n" not in str(error.value)
    pack(tmp_path / "c.tar", {"a.txt": b"x"})
    with pytest.raises(UserError, match="no structure files .* but 1 other file"):
        open_source(tmp_path / "c.tar")


# Memory


def big_json(path, size):
    """Records as JARVIS has them, of a few kilobytes each."""
    records = [record_of(crystal, gap=1.0, note="x" * 5000) for crystal in collection(24)]
    texts = [json.dumps(record) for record in records]
    with open(path, "w") as file:
        file.write("[" + texts[0])
        while file.tell() < size:
            file.writelines(f", {text}" for text in texts)
        file.write("]")


def big_extxyz(path, size):
    frames = [atoms_of(crystal, gap=1.0).repeat((3, 3, 2)) for crystal in collection(24)]
    write(path, frames)
    text = path.read_bytes()
    with open(path, "wb") as file:
        while file.tell() < size:
            file.write(text)


MEASURED = """
import sys
from crysgnn_jax.crystals.readers import open_source

source, atoms = open_source(sys.argv[1]), 0
for start in range(0, len(source), 100):
    atoms += sum(len(source.decode(item).species) for item in source.items(start, start + 100)[:5])
with open("/proc/self/status") as file:
    (peak,) = (int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))
print(len(source), atoms, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["big.json", "big.extxyz"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    path = tmp_path / name
    (big_json if name == "big.json" else big_extxyz)(path, 200_000_000)
    assert path.stat().st_size >= 200_000_000
    command = [sys.executable, "-c", textwrap.dedent(MEASURED), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    n, atoms, megabytes = map(int, done.stdout.split())
    assert n > 10_000 and atoms > 0
    assert megabytes < 300
