"""Folders, structure files, JARVIS JSON, objects in memory, and which reader takes what."""

import gzip
import json
import re
import shutil
import sqlite3
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.io import write

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list, open_source
from crysgnn_jax.crystals.readers.limits import TooSlow, time_limit
from crysgnn_jax.crystals.sources import Combined, Source, places_of, select, without_labels
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import InvalidCrystal, UserError
from toys import collection, perovskite, rocksalt


def atoms_of(crystal):
    return Atoms(
        crystal.species, cell=crystal.lattice, pbc=True, scaled_positions=crystal.frac_coords
    )


def crystals_of(source: Source):
    return [source.decode(item) for item in source.items(0, len(source))]


def reasons_of(source: Source):
    out = {}
    for item in source.items(0, len(source)):
        try:
            source.decode(item)
        except InvalidCrystal as error:
            out[error.crystal_id] = error.reason
    return out


def assert_same(ours, expected):
    assert ours.species.tolist() == expected.species.tolist()
    np.testing.assert_allclose(
        ours.lattice @ ours.lattice.T, expected.lattice @ expected.lattice.T, atol=1e-4
    )
    difference = ours.frac_coords - expected.frac_coords
    np.testing.assert_allclose(difference - np.round(difference), 0, atol=1e-6)


@pytest.fixture
def folder(tmp_path):
    for crystal in collection(4):
        write(tmp_path / f"{crystal.id}.cif", atoms_of(crystal))
    (tmp_path / "atom_init.json").write_text("{}")
    return tmp_path


# CGCNN folders


def test_cgcnn_folder(folder):
    (folder / "id_prop.csv").write_text("c1,-0.5\nc0,1.25\n\nc3, 2\n")
    source = open_source(folder)
    crystals = crystals_of(source)
    assert [crystal.id for crystal in crystals] == ["c1", "c0", "c3"]
    assert [crystal.labels for crystal in crystals] == [
        {"target": -0.5},
        {"target": 1.25},
        {"target": 2.0},
    ]
    assert_same(crystals[1], collection(4)[0])
    assert source.labelled("target").all() and source.label_names == ["target"]


def test_cgcnn_header_and_several_properties(folder):
    (folder / "id_prop.csv").write_text("ID,gap,bulk\nc1,0.1,50\n")
    assert crystals_of(open_source(folder))[0].labels == {"gap": 0.1, "bulk": 50.0}
    (folder / "id_prop.csv").write_text("c1,0.1,50\n")
    assert crystals_of(open_source(folder))[0].labels == {"target_1": 0.1, "target_2": 50.0}


def test_cgcnn_bad_rows_name_the_row(folder):
    (folder / "id_prop.csv").write_text(
        "c0,1\nc1,much\nmissing,2\nc0,3\nc2,nan\nc3,1,2\nlast,inf\n"
    )
    assert reasons_of(open_source(folder)) == {
        "c1": "id_prop.csv row 2: target='much' is not a number",
        "missing": "id_prop.csv row 3: the file missing.cif is missing",
        "c0": "id_prop.csv row 4: the id 'c0' occurs before",
        "c2": "id_prop.csv row 5: target is nan",
        "c3": "id_prop.csv row 6 has 2 values, not 1",
        "last": "id_prop.csv row 7: target is inf",
    }


@pytest.mark.parametrize("content", ["", "\n", "id,target\n", "a\nb\n"])
def test_cgcnn_empty_table(folder, content):
    (folder / "id_prop.csv").write_text(content)
    with pytest.raises(UserError, match="id_prop.csv: the (table|rows) ha"):
        open_source(folder)


@pytest.mark.parametrize(
    "id, reason",
    [
        ("../outside", "leads out of the folder"),
        ("/etc/passwd", "leads out of the folder"),
        ("x" * 300, "no file can have this id|is missing"),
        ("c1.cif", "c1.cif.cif is missing; ids go without .cif"),
    ],
)
def test_cgcnn_ids_are_names_of_files_in_the_folder(folder, id, reason):
    (folder / "id_prop.csv").write_text(f"c0,1\n{id},2\n")
    source = open_source(folder)
    (found,) = reasons_of(source).values()
    assert re.search(reason, found)
    assert source.notes == ["3 CIF files have no row in id_prop.csv and are not read"]


def test_cgcnn_table_of_any_encoding(folder):
    for encoding in ("utf-8-sig", "utf-16", "latin-1"):
        (folder / "id_prop.csv").write_bytes("id,größe\r\nc0,1\r\n\r\n".encode(encoding))
        assert open_source(folder).label_names == ["größe"]


def test_cgcnn_property_named_twice(folder):
    (folder / "id_prop.csv").write_text("id,gap,gap\nc0,1,2\n")
    with pytest.raises(UserError, match="names the property 'gap' twice"):
        open_source(folder)


def test_cgcnn_properties_are_known_where_no_row_is_good(folder):
    (folder / "id_prop.csv").write_text("c0,hard\nc1,soft\n")
    source = open_source(folder)
    assert source.label_names == ["target"]
    assert reasons_of(source)["c0"] == "id_prop.csv row 1: target='hard' is not a number"
    with pytest.raises(UserError, match="give the folder"):
        open_source(folder / "id_prop.csv")


# Structure files


def test_folder_of_files(folder):
    write(folder / "POSCAR", atoms_of(rocksalt()), format="vasp")
    write(folder / "sto.vasp", atoms_of(perovskite()), format="vasp")
    source = open_source(folder)
    crystals = {crystal.id: crystal for crystal in crystals_of(source)}
    assert set(crystals) == {"POSCAR", "sto", "c0", "c1", "c2", "c3"}
    assert_same(crystals["sto"], perovskite())


def test_many_frames_with_labels(tmp_path):
    frames = [atoms_of(crystal) for crystal in collection(3)]
    for i, frame in enumerate(frames):
        frame.info = {"gap": 0.5 * i, "name": "x"}
    write(tmp_path / "set.extxyz", frames)
    crystals = crystals_of(open_source(tmp_path / "set.extxyz"))
    assert [crystal.id for crystal in crystals] == ["set-0", "set-1", "set-2"]
    assert [crystal.labels for crystal in crystals] == [{"gap": 0.0}, {"gap": 0.5}, {"gap": 1.0}]
    assert_same(crystals[2], collection(3)[2])


def test_labels_whose_names_differ_in_a_number_are_told_apart(tmp_path):
    frames = [atoms_of(crystal) for crystal in collection(3)]
    for frame, kelvin in zip(frames, (300, 400, 300)):
        frame.info = {f"gap_{kelvin}": kelvin / 200}
    write(tmp_path / "set.extxyz", frames)
    source = open_source(tmp_path / "set.extxyz")
    assert sorted(source.label_names) == ["gap_300", "gap_400"]
    assert source.labelled("gap_300").tolist() == [True, False, True]
    assert source.labelled("gap_400").tolist() == [False, True, False]


AIRSS = """TITL Fe-1 0.0 22.0 -100.0 0.0 0.0 2 (P1) n - 1
CELL 1.54180 2.8 2.8 2.8 90 90 90
LATT -1
SFAC Fe Ni
Fe 1 0.0 0.0 0.0 1.0
Ni 2 0.5 0.5 0.5 1.0
END
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("LATT -1", "LATT 4", r"has symmetry \(LATT 4\), which is not read"),
        ("LATT -1", "LATT -1\nSYMM -X, -Y, -Z", r"has symmetry \(SYMM -X, -Y, -Z\)"),
        ("0.5 1.0", "0.5 10.5", "has the occupancy 10.5 at Ni"),
        ("0.5 1.0", "0.5 0.25", "has the occupancy 0.25 at Ni"),
        ("0.5 1.0", "0.5 11.0", None),
    ],
)
def test_refinements_are_not_taken_for_all_atoms_of_a_cell(tmp_path, old, new, said):
    (tmp_path / "a.res").write_text(AIRSS)
    assert crystals_of(open_source(tmp_path))[0].reduced_formula == "Fe1Ni1"
    (tmp_path / "a.res").write_text(AIRSS.replace(old, new))
    if said is None:
        assert len(crystals_of(open_source(tmp_path))[0].species) == 2
        return
    with pytest.raises(InvalidCrystal, match=said):
        crystals_of(open_source(tmp_path))


def test_labels_that_are_no_numbers_are_counted(tmp_path):
    frames = [atoms_of(crystal) for crystal in collection(3)]
    for frame, gap in zip(frames, (1.0, np.nan, np.inf)):
        frame.info = {"gap": gap}
    write(tmp_path / "set.extxyz", frames)
    source = open_source(tmp_path / "set.extxyz")
    assert source.labelled("gap").tolist() == [True, False, False]
    assert source.notes == ["2 labels are no numbers (gap is NaN or infinite): taken as missing"]


def test_ase_database(tmp_path):
    with connect(tmp_path / "set.db") as database:
        for crystal in collection(2):
            database.write(atoms_of(crystal), gap=1.5)
    source = open_source(tmp_path / "set.db")
    assert source.labelled("gap").all()
    assert_same(crystals_of(source)[1], collection(2)[1])


def test_molecules_and_garbage_are_named(tmp_path):
    write(tmp_path / "water.xyz", Atoms("H2O", positions=[[0, 0, 0], [0, 0, 1], [0, 1, 0]]))
    (tmp_path / "POSCAR_bad").write_text("not a structure\n")
    reasons = reasons_of(open_source(tmp_path))
    assert "not periodic" in reasons["water"]
    assert "cannot be read by ASE" in reasons["POSCAR_bad"]
    assert all("\n" not in reason for reason in reasons.values())


@pytest.mark.parametrize("text", ['{"a": 1}', '{"a": {}}', '{"1": {"x": 1}, "2": {"x": 2}}'])
def test_another_json_is_answered_by_what_a_json_may_be(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    source = open_source(tmp_path / "x.json")
    reason = r"a .json may hold JARVIS records .*OPTIMADE.*pymatgen.*ASE's$"
    with pytest.raises(InvalidCrystal, match=reason):
        source.decode(source.items(0, 1)[0])


def test_same_name_twice(tmp_path):
    write(tmp_path / "a.cif", atoms_of(rocksalt()))
    write(tmp_path / "a.vasp", atoms_of(rocksalt()), format="vasp")
    assert sorted(open_source(tmp_path).ids()) == ["a.cif", "a.vasp"]


def test_fingerprint_follows_the_content(folder):
    before = open_source(folder).fingerprint()
    assert open_source(folder).fingerprint() == before
    write(folder / "c0.cif", atoms_of(rocksalt()))
    assert open_source(folder).fingerprint() != before


# JARVIS


def _record(crystal, **properties):
    return {
        "jid": crystal.id,
        "atoms": {
            "lattice_mat": crystal.lattice.tolist(),
            "coords": crystal.frac_coords.tolist(),
            "elements": [str(s) for s in atoms_of(crystal).symbols],
            "cartesian": False,
        },
        **properties,
    }


@pytest.mark.parametrize("kind", ["json", "json.gz", "json.zip"])
def test_jarvis(tmp_path, kind):
    cartesian = _record(rocksalt(), gap="na", formation_energy=-1.5, spg_number=225)
    cartesian["atoms"]["coords"] = (rocksalt().frac_coords @ rocksalt().lattice).tolist()
    cartesian["atoms"]["cartesian"] = True
    text = json.dumps([cartesian, _record(perovskite(), gap=1.8, formation_energy=None)])
    path = tmp_path / f"set.{kind}"
    if kind == "json":
        path.write_text(text)
    elif kind == "json.gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("set.json", text)
    source = open_source(path)
    salt, oxide = crystals_of(source)
    assert_same(salt, rocksalt())
    assert_same(oxide, perovskite())
    assert "gap" not in salt.labels and oxide.labels == {"gap": 1.8}
    assert source.labelled("gap").tolist() == [False, True]


def test_jarvis_bad_records(tmp_path):
    broken = _record(perovskite(id="b"))
    broken["atoms"]["elements"][0] = "Xx"
    no_cell = _record(perovskite(id="n"))
    del no_cell["atoms"]["lattice_mat"]
    null = _record(perovskite(id="z"), huge=10**400)
    null["atoms"]["elements"] = None
    path = tmp_path / "set.json"
    path.write_text(json.dumps([_record(rocksalt()), null, broken, no_cell, {"jid": "e"}, {}, 3]))
    reasons = reasons_of(open_source(path))
    assert reasons["b"] == "unknown element 'Xx'"
    assert "lattice_mat" in reasons["n"] and "no atoms" in reasons["e"]
    assert reasons["z"] == "its elements are no list"
    assert "record 5" in reasons and "record 6" in reasons


@pytest.mark.parametrize("name", ["cut.json", "cut.zip", "cut.json.gz"])
def test_truncated_download(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b'[{"jid": "a", "atoms"')
    with pytest.raises(UserError, match=f"{name}.*damaged"):
        open_source(path)


def test_a_cif_file_with_several_blocks_is_several_crystals(folder):
    one, two = ((folder / f"c{k}.cif").read_text() for k in (0, 1))
    two = two.replace("data_image0", "data_second")
    for path in folder.glob("*.cif"):
        path.unlink()
    (folder / "both.cif").write_text(one + "\n" + two)
    source = open_source(folder)
    assert source.ids().tolist() == ["both#image0", "both#second"]
    for found, expected in zip(crystals_of(source), collection(2)):
        assert_same(found, expected)


def test_what_is_not_read_is_counted(folder):
    (folder / "more").mkdir()
    (folder / "notes.txt").write_text("")
    source = open_source(folder)
    assert source.notes == ["not read: 1 folder (more) and 2 other files (1 .json, 1 .txt)"]
    for path in folder.glob("*.cif"):
        path.unlink()
    with pytest.raises(UserError, match=r"no structure files .* but 1 folder \(more\)"):
        open_source(folder)


def test_compressed_cif_beside_others(folder):
    path = folder / "c0.cif"
    (folder / "z.cif.gz").write_bytes(gzip.compress(path.read_bytes()))
    source = open_source(folder)
    assert "z" in source.ids()
    assert len(crystals_of(source)) == 5


def test_a_database_of_another_program_is_not_touched(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    for content in (path.read_bytes(), b"", b"text"):
        path.write_bytes(content)
        (reason,) = reasons_of(open_source(path)).values()
        assert "no database of ASE's" in reason or "no SQLite database" in reason
        assert path.read_bytes() == content
        assert [file.name for file in tmp_path.iterdir()] == ["other.db"]


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("a.xyz", "1000000000\n\nHe 0 0 0\n", "claims 1000000000 atoms, and 1 lines follow"),
        (
            "a.extxyz",
            '1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:x:R:900000000\n'
            "He 0 0 0 1\n",
            "claims 900000004 columns",
        ),
        ("POSCAR", "x\n1\n9 0 0\n0 9 0\n0 0 9\nHe\n1000000000\nDirect\n0 0 0\n", "claims"),
        ("POSCAR", "two kinds\n1\n9 0 0\n0 9 0\n0 0 9\n1 1\nDirect\n0 0 0\n.5 .5 .5\n", "symbols"),
        ("a.vasp", "x\n1\n1e999 0 0\n0 9 0\n0 0 9\nHe\n1\nDirect\n0 0 0\n", "not a finite|ASE"),
    ],
)
def test_claims_are_checked_before_memory_is_taken(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    (found,) = reasons_of(open_source(tmp_path / name)).values()
    assert re.search(reason, found)


def test_reading_has_an_end():
    with pytest.raises(TooSlow, match="over 0 s"), time_limit(0.05):
        time.sleep(2)
    with time_limit(0.05):
        pass
    time.sleep(0.1)  # the alarm is off


# JARVIS, as others write it


def test_jarvis_cartesian_as_text(tmp_path):
    record = _record(rocksalt())
    for text, meant in (("False", False), ("0", False), ("True", True)):
        record["atoms"]["cartesian"] = text
        coords = rocksalt().frac_coords
        record["atoms"]["coords"] = (coords @ rocksalt().lattice if meant else coords).tolist()
        (tmp_path / "set.json").write_text(json.dumps([record]))
        (crystal,) = crystals_of(open_source(tmp_path / "set.json"))
        assert_same(crystal, rocksalt())
    record["atoms"]["cartesian"] = "perhaps"
    (tmp_path / "set.json").write_text(json.dumps([record]))
    (reason,) = reasons_of(open_source(tmp_path / "set.json")).values()
    assert reason == "its cartesian is 'perhaps', neither true nor false"


def test_jarvis_coordinates_of_another_shape_are_not_reshaped(tmp_path):
    record = _record(perovskite())
    record["atoms"]["coords"] = np.array(record["atoms"]["coords"]).T.tolist()
    (tmp_path / "set.json").write_text(json.dumps([record]))
    (reason,) = reasons_of(open_source(tmp_path / "set.json")).values()
    assert "need coordinates [5, 3]" in reason


@pytest.mark.parametrize("form", ["object", "single", "text"])
def test_jarvis_objects_of_records_and_numbers_as_text(tmp_path, form):
    record = _record(rocksalt(), gap="1.5", formula="NaCl", missing="na", code="nan")
    id = record["jid"]
    content = {"object": {id: record}, "single": record, "text": [record]}[form]
    (tmp_path / "set.json").write_text(json.dumps(content))
    source = open_source(tmp_path / "set.json")
    (crystal,) = crystals_of(source)
    assert crystal.labels == {"gap": 1.5} and crystal.id == id
    if form == "object":
        del record["jid"]
        (tmp_path / "set.json").write_text(json.dumps({"key": record}))
        assert open_source(tmp_path / "set.json").ids().tolist() == ["key"]


def test_control_characters_are_written_out(tmp_path):
    record = _record(rocksalt(id="a\x1b[31mb\ud800"), **{"gap\ud800": 1.0})
    (tmp_path / "set.json").write_text(json.dumps([record, {"jid": "\x07"}]))
    source = open_source(tmp_path / "set.json")
    assert source.ids().tolist() == ["a\\x1b[31mb\\ud800", "\\x07"]
    assert source.label_names == ["gap\\ud800"]
    first, second = source.items(0, 2)
    assert source.decode(first).id == source.ids()[0]
    with pytest.raises(InvalidCrystal) as caught:
        source.decode(second)
    assert caught.value.crystal_id == source.ids()[1]
    assert "\x1b" not in str(UserError("the file \x1b[2J"))


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_what_unpacks_to_far_more_is_refused(tmp_path, kind):
    path, blank = tmp_path / f"bomb.json.{kind}", b" " * 30_000_000
    if kind == "gz":
        path.write_bytes(gzip.compress(blank))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb.json", blank)
    with pytest.raises(UserError, match="over 200 times"):
        open_source(path)


# Which reader, and none


def test_names_and_tables(tmp_path):
    write_table(tmp_path / "t.npz", collection(3))
    assert len(open_source(tmp_path / "t.npz")) == 3
    assert len(open_source("elastic")) == 1181


@pytest.mark.parametrize(
    "name",
    ["files", "table", "one.cif", "t.npz", "set.json", "set.json.gz", "set.zip", "set.tar.gz"],
)
def test_a_source_knows_its_place(tmp_path, name):
    for folder in ("files", "table"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "c.cif", atoms_of(rocksalt()))
    (tmp_path / "table/id_prop.csv").write_text("c,1.0\n")
    write(tmp_path / "one.cif", atoms_of(rocksalt()))
    write_table(tmp_path / "t.npz", collection(2))
    text = json.dumps([_record(rocksalt()), _record(perovskite())])
    (tmp_path / "set.json").write_text(text)
    (tmp_path / "set.json.gz").write_bytes(gzip.compress(text.encode()))
    for kind in ("zip", "gztar"):
        shutil.make_archive(str(tmp_path / "set"), kind, tmp_path / "files")
    path = str(tmp_path / name)
    source = open_source(path)
    assert places_of(source) == places_of(select(source, [0], "other")) == (path,)
    others = Combined([without_labels(source), crystal_list([rocksalt()])])
    assert places_of(others) == (path,)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no such file.*bundled, |no such file.*elastic"):
        open_source(tmp_path / "foo")
    with pytest.raises(UserError, match="no structure files"):
        open_source(tmp_path)


# Objects in memory


class PymatgenStructure(list):
    """The part of pymatgen's Structure that is read: a sequence of sites."""

    is_ordered = True

    def __init__(self, sites, crystal=None, properties=None):
        super().__init__(sites)
        self.properties = properties or {}
        crystal = crystal or rocksalt()
        self.frac_coords = crystal.frac_coords
        self.lattice = SimpleNamespace(matrix=crystal.lattice, pbc=(True, True, True))


def test_objects_in_memory():
    sites = [SimpleNamespace(specie=SimpleNamespace(Z=int(z))) for z in rocksalt().species]
    pymatgen = PymatgenStructure(sites, rocksalt(), {"id": "mine"})
    disordered = PymatgenStructure([SimpleNamespace(is_ordered=False, species="Na0.5 K0.5")])
    disordered.is_ordered = False
    molecule = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])
    source = crystal_list([rocksalt(), atoms_of(perovskite()), pymatgen, disordered, molecule])
    assert source.ids().tolist() == ["NaCl", "1", "mine", "3", "4"]
    good = [source.decode(item) for item in source.items(0, 3)]
    for ours, expected in zip(good, [rocksalt(), perovskite(), rocksalt()]):
        assert_same(ours, expected)
    labelled = crystal_list([rocksalt(), atoms_of(perovskite())], [{"gap": 5.0}, {"gap": 1.9}])
    assert [labelled.decode(item).labels for item in labelled.items(0, 2)] == [
        {"gap": 5.0},
        {"gap": 1.9},
    ]
    reasons = reasons_of(source)
    assert "partially occupied (Na0.5 K0.5)" in reasons["3"] and "not periodic" in reasons["4"]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (([], np.zeros((0, 3)), np.eye(3)), "no atoms"),
        (([101], np.zeros((1, 3)), 5 * np.eye(3)), "atomic number 101"),
        (([0], np.zeros((1, 3)), 5 * np.eye(3)), "atomic number 0"),
        (([1], np.full((1, 3), np.nan), 5 * np.eye(3)), "finite"),
        (([1, 1], np.zeros((1, 3)), 5 * np.eye(3)), r"need coordinates \[2, 3\]"),
        (([1], np.zeros((1, 3)), np.ones((3, 3))), "check the lattice"),
    ],
)
def test_impossible_crystals(arguments, reason):
    with pytest.raises(InvalidCrystal, match=reason):
        Crystal("x", *arguments)


def test_reduced_formula():
    assert rocksalt().reduced_formula == "Cl1Na1"
    assert perovskite().reduced_formula == "O3Sr1Ti1"
