"""What a CIF file says of its symmetry, its sites and its formula, as people write it."""

import gzip
from collections import Counter

import pytest

from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.readers.cif import block_names, read_cif
from crysgnn_jax.errors import InvalidCrystal

CUBE = (5.64, 5.64, 5.64, 90, 90, 90)
NAMES = (*(f"length_{x}" for x in "abc"), *(f"angle_{x}" for x in ("alpha", "beta", "gamma")))
ROCK_SALT = ["Na1 Na 0 0 0", "Cl1 Cl .5 .5 .5"]


def cif(*lines, cell=CUBE, sites=ROCK_SALT, columns="label type_symbol fract_x fract_y fract_z"):
    """Text of a block: tags, a cell and atoms."""
    texts = ["data_x", *(f"_cell_{name} {value}" for name, value in zip(NAMES, cell)), *lines]
    texts += ["loop_", *(f"_atom_site_{name}" for name in columns.split()), *sites]
    return "\n".join(texts) + "\n"


@pytest.fixture
def read(tmp_path):
    """Text or bytes of a file → (formula of the whole cell, crystal)."""

    def from_text(text, name="x.cif", **kwargs):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        crystal = read_cif(path, "x", **kwargs)
        counts = Counter(SYMBOLS[z] for z in crystal.species.tolist())
        return "".join(f"{symbol}{n}" for symbol, n in sorted(counts.items())), crystal

    return from_text


def name(text):
    return f"_symmetry_space_group_name_H-M '{text}'"


def number(n):
    return f"_symmetry_Int_Tables_number {n}"


def loop(tag, *values):
    return "\n".join(["loop_", tag, *(f"'{value}'" for value in values)])


HALL = "_space_group_name_Hall"
DIAMOND = dict(cell=(3.567, 3.567, 3.567, 90, 90, 90))
ANATASE = dict(
    cell=(3.785, 3.785, 9.514, 90, 90, 90), sites=["Ti1 Ti 0 .75 .125", "O1 O 0 .75 .3336"]
)
BISMUTH = dict(cell=(4.746, 4.746, 4.746, 57.23, 57.23, 57.23), sites=["Bi1 Bi .234 .234 .234"])
BISMUTH_HEXAGONAL = dict(cell=(4.546, 4.546, 11.86, 90, 90, 120), sites=["Bi1 Bi 0 0 .234"])
MONOCLINIC = dict(cell=(5, 6, 7, 90, 90, 100), sites=["Na1 Na .1 .2 .3"])


@pytest.mark.parametrize(
    "text, formula",
    [
        (cif(f"{HALL} '-F 4 2 3'"), "Cl4Na4"),
        (cif("_space_group_name_H-M_ref 'F m -3 m'"), "Cl4Na4"),
        (cif(number(225)), "Cl4Na4"),
        (cif(name("?"), number(225)), "Cl4Na4"),
        (cif(name("F_m_-3_m")), "Cl4Na4"),
        (cif(name("F m 3 m")), "Cl4Na4"),
        (cif(name("F 4/m -3 2/m")), "Cl4Na4"),
        # The operations come before the Hall symbol, and that before the name.
        (cif(name("P 1"), f"{HALL} '-F 4 2 3'"), "Cl4Na4"),
        (cif(f"{HALL} '-F 4 2 3'", loop("_symmetry_equiv_pos_as_xyz", "x,y,z")), "Cl1Na1"),
        (cif(), "Cl1Na1"),
        # Two origins, told by name, by the coordinate system code, or by the atoms.
        (cif(name("F d -3 m S"), **DIAMOND, sites=["C1 C 0 0 0"]), "C8"),
        (cif(name("F d -3 m Z"), **DIAMOND, sites=["C1 C .125 .125 .125"]), "C8"),
        (cif(name("Fd-3mZ"), **DIAMOND, sites=["C1 C .125 .125 .125"]), "C8"),
        (cif(name("F d -3 m O2"), **DIAMOND, sites=["C1 C .125 .125 .125"]), "C8"),
        (cif(name("F d -3 m :2"), **DIAMOND, sites=["C1 C .125 .125 .125"]), "C8"),
        (
            cif(
                *(number(227), "_space_group_IT_coordinate_system_code 2"),
                **DIAMOND,
                sites=["C1 C .125 .125 .125"],
            ),
            "C8",
        ),
        (cif(name("F d -3 m"), **DIAMOND, sites=["C1 C .125 .125 .125"]), "C8"),
        (cif(name("F d -3 m"), **DIAMOND, sites=["C1 C 0 0 0"]), "C8"),
        (cif(number(227), **DIAMOND, sites=["C1 C 0 0 0"]), "C8"),
        (cif(f"{HALL} '-I 4bd 2'", **ANATASE), "O8Ti4"),
        (cif(name("I 41/a m d"), "_chemical_formula_sum 'Ti O2'", **ANATASE), "O8Ti4"),
        (cif(name("P 21/m 21/m 2/n (origin choice 2)"), cell=(5, 6, 7, 90, 90, 90)), "Cl4Na4"),
        # Two cells.
        (cif(number(166), **BISMUTH), "Bi2"),
        (cif(name("R -3 m"), **BISMUTH), "Bi2"),
        (cif(name("R -3 m R"), **BISMUTH), "Bi2"),
        (cif(number(166), **BISMUTH_HEXAGONAL), "Bi6"),
        (cif(name("R -3 m H"), **BISMUTH_HEXAGONAL), "Bi6"),
        # The unique axis of the cell, and not the conventional one.
        (cif(number(14), **MONOCLINIC), "Na4"),
        (cif(name("P 1 1 21/b"), **MONOCLINIC), "Na4"),
        # Magnetic operations, without what they do to moments.
        (
            cif(
                loop("_space_group_symop_magn_operation.xyz", "x,y,z,+1"),
                loop("_space_group_symop_magn_centering.xyz", "x,y,z,+1", "x+1/2,y+1/2,z+1/2,-1"),
                sites=["Cr1 Cr 0 0 0"],
            ),
            "Cr2",
        ),
    ],
)
def test_symmetry_is_read_in_the_order_of_its_authority(read, text, formula):
    assert read(text)[0] == formula


def test_what_atoms_and_cell_have_decided_is_noted(read):
    _, crystal = read(cif(name("F d -3 m"), **DIAMOND, sites=["C1 C .125 .125 .125"]))
    assert "F d -3 m:2 was taken" in crystal.notes[0]
    _, crystal = read(cif(number(166), **BISMUTH))
    assert "R -3 m:R" in crystal.notes[0]
    _, crystal = read(cif(name("F d -3 m :2"), **DIAMOND, sites=["C1 C .125 .125 .125"]))
    assert crystal.notes == ()


@pytest.mark.parametrize(
    "text, reason",
    [
        # Far apart by either origin, so that nothing speaks for one of them.
        (
            cif(
                name("P n -3 n"),
                cell=(60, 60, 60, 90, 90, 90),
                sites=["Na1 Na .1 .2 .3"],
            ),
            "both P n -3 n:1 and P n -3 n:2 fit",
        ),
        (cif(name("F m -3 m"), cell=(4, 5, 6, 80, 90, 90)), "contradicts the space group F m -3 m"),
        (cif(name("R -3 m H"), **BISMUTH), "contradicts the space group"),
        (cif(number(225), name("P 1 21/c 1")), "gives the number 225"),
        (cif(number(231)), "none of 1 to 230"),
        (cif(f"{HALL} 'no such'"), "Hall symbol 'no such'"),
        (cif(name("F m -3 m"), loop("_symmetry_equiv_pos_as_xyz", "x,y,z")), "only operation"),
        (
            cif(loop("_symmetry_equiv_pos_as_xyz", *["x,y,z"] * 2000)),
            "2000 operations of symmetry",
        ),
        (cif(cell=(-5.64, 5.64, 5.64, 90, 90, 90)), "_cell_length_a is -5.64"),
        (cif(cell=(5.64, 5.64, 5.64, 30, 30, 90)), "no volume"),
        (cif(sites=["Na1 Na 0 0 ?"]), "not a finite number"),
        (cif("_cell_length_a 6.1"), "_cell_length_a is given twice: '5.64' and '6.1'"),
        # Of the formula, and of how often it is in the cell.
        (cif("_chemical_formula_sum 'Na Cl2'"), "has the atoms Na1 Cl1"),
        (
            cif("_chemical_formula_sum 'Na Cl'", "_cell_formula_units_Z 4"),
            "4 units of Na Cl .* are not the 2 atoms",
        ),
        # Sites that are no atoms of one element.
        (cif(sites=["C1 CO3 0 0 0"]), "unknown element 'CO3'"),
        (cif(sites=["O1 H2O 0 0 0"]), "unknown element 'H2O'"),
        (cif(sites=["O1 OH 0 0 0"]), "unknown element 'OH'"),
        (cif(sites=["Wat1 ? 0 0 0"]), "unknown element 'Wat1'"),
        (cif(sites=["H1 T 0 0 0"]), "unknown element 'T'"),
        (
            cif(
                sites=["O1 O 0 0 0 A 1", "O2 O .5 .5 .5 A 2"],
                columns="label type_symbol fract_x fract_y fract_z "
                "disorder_assembly disorder_group",
            ),
            "disorder groups 1, 2",
        ),
        (
            cif(
                sites=["O1 O 0 0 0 dum"],
                columns="label type_symbol fract_x fract_y fract_z calc_flag",
            ),
            "no atoms but dummy sites",
        ),
    ],
)
def test_contradictions_are_refused_by_name(read, text, reason):
    with pytest.raises(InvalidCrystal, match=reason):
        read(text)


@pytest.mark.parametrize(
    "sites, formula",
    [
        (["Na1 Na1+ 0 0 0", "Cl1 Cl1- .5 .5 .5"], "Cl1Na1"),
        (["Fe1 FE3+ 0 0 0", "O1 O2- .5 .5 .5"], "Fe1O1"),
        (["NA1 NA 0 0 0", "CL1 CL .5 .5 .5"], "Cl1Na1"),
        (["Co1 Co3 0 0 0", "O1 O .5 .5 .5"], "Co1O1"),
        (["D1 D 0 0 0", "Li1 Li .5 .5 .5"], "H1Li1"),
        (["Na1 ? 0 0 0", "Cl(2) ? .5 .5 .5"], "Cl1Na1"),
    ],
)
def test_elements_by_type_and_label(read, sites, formula):
    assert read(cif(sites=sites))[0] == formula


def test_a_label_in_capitals_is_read_by_the_formula(read):
    sites = ["HO1 ? 0 0 0", "O1 ? .5 .5 .5"]
    assert read(cif("_chemical_formula_sum 'H O'", sites=sites))[0] == "H1O1"
    assert read(cif("_chemical_formula_sum 'Ho O'", sites=sites))[0] == "Ho1O1"


def test_sites_of_one_element_in_one_place_are_one(read):
    sites = ["Po1 Po 0 0 0", "Po2 Po 1 1 1", "Po3 Po 0 1 .0005", "O1 O .5 .5 .5"]
    formula, crystal = read(cif(sites=sites))
    assert formula == "O1Po1"
    assert "2 sites are in the place of another" in crystal.notes[0]
    # All atoms listed, and operations that make them again.
    sites = ["Cs1 Cs .1 .2 .3", "Cs2 Cs .9 .8 .7", "Cl1 Cl .6 .7 .8", "Cl2 Cl .4 .3 .2"]
    operations = loop("_symmetry_equiv_pos_as_xyz", "x,y,z", "-x,-y,-z")
    assert read(cif(operations, sites=sites))[0] == "Cl2Cs2"
    # Two elements in one place stay: the neighbour search refuses them.
    assert read(cif(sites=["Na1 Na 0 0 0", "Cl1 Cl 0 0 0"]))[0] == "Cl1Na1"


def test_occupancies_and_dummy_sites(read):
    columns = "label type_symbol fract_x fract_y fract_z occupancy calc_flag"
    sites = ["Na1 Na 0 0 0 0.999 d", "Cl1 Cl .5 .5 .5 1.000(2) ?", "X1 ? .2 .2 .2 1 dum"]
    formula, crystal = read(cif(sites=sites, columns=columns))
    assert formula == "Cl1Na1"
    assert "1 dummy sites" in crystal.notes[0]
    with pytest.raises(InvalidCrystal, match="occupied to 0.998"):
        read(cif(sites=["Na1 Na 0 0 0 0.998 d"], columns=columns))


@pytest.mark.parametrize(
    "formula, note",
    [
        ("C H4 N2 O", "hydrogen is missing"),
        ("C N2 S", "has the atoms"),  # a substitution
        ("C1 N2 O1", None),
        ("C3 O1", "has the atoms"),
        ("C2 N4 O2", None),
    ],
)
def test_formulas_that_differ_a_little_are_noted(read, formula, note):
    sites = ["C1 C 0 .5 .33", "O1 O 0 .5 .6", "N1 N .15 .65 .18", "N2 N .85 .35 .18"]
    _, crystal = read(cif(f"_chemical_formula_sum '{formula}'", sites=sites))
    assert len(crystal.notes) == (note is not None)
    assert note is None or note in crystal.notes[0]


def test_a_file_cut_short_is_no_substitution_where_it_has_the_counts_of_its_formula_swapped(read):
    sites = ["O1 O 0 0 0", "O2 O .5 .5 .5", "Li1 Li .25 .25 .25"]
    with pytest.raises(InvalidCrystal, match="atoms or operations are missing"):
        read(cif("_chemical_formula_sum 'Li2 O1'", sites=sites))
    # With another element in the place of one, it is.
    formula, crystal = read(cif("_chemical_formula_sum 'Na2 O1'", sites=sites))
    assert formula == "Li1O2" and "has the atoms" in crystal.notes[0]


def test_units_of_the_formula_may_be_those_of_the_whole_cell(read):
    # As pymatgen writes it: the sum of the whole cell, and Z of the reduced formula.
    lines = (name("F m -3 m"), "_chemical_formula_sum 'Na4 Cl4'", "_cell_formula_units_Z 4")
    assert read(cif(*lines))[0] == "Cl4Na4"


def test_all_atoms_listed_beside_the_name_of_their_group(read):
    sites = [*ROCK_SALT, "Na2 Na 0 .5 .5", "Na3 Na .5 0 .5", "Na4 Na .5 .5 0"]
    sites += ["Cl2 Cl .5 0 0", "Cl3 Cl 0 .5 0", "Cl4 Cl 0 0 .5"]
    identity = loop("_symmetry_equiv_pos_as_xyz", "x,y,z")
    formula, crystal = read(cif(name("F m -3 m"), identity, sites=sites))
    assert formula == "Cl4Na4"
    assert "lists the identity alone" in crystal.notes[0]
    assert read(cif(name("F m -3 m"), sites=sites))[0] == "Cl4Na4"


PLAIN = cif(name("F m -3 m"))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.encode("utf-16"),
        ("# caf\xe9\n" + PLAIN).encode("latin-1"),
        ("# caf\xe9\n" + PLAIN).encode(),
        PLAIN.replace(" 0 0 0", "\u00a00\u00a00 0").encode(),
        # A tag given twice, the second time empty or the same.
        PLAIN.replace("loop_", "_cell_length_a 5.640\n_cell_length_b ''\nloop_").encode(),
        PLAIN.replace(
            "loop_", "_chemical_name_mineral a\n_chemical_name_mineral b\nloop_"
        ).encode(),
        # Text without quotes that no structure needs.
        PLAIN.replace("loop_", "_journal_name_full American Mineralogist\nloop_").encode(),
    ],
)
def test_what_no_structure_needs_stops_no_file(read, content):
    assert read(content)[0] == "Cl4Na4"


def test_compressed_and_magnetic_files(read, tmp_path):
    assert read(gzip.compress(PLAIN.encode()), "x.cif.gz")[0] == "Cl4Na4"
    assert read(PLAIN, "x.mcif")[0] == "Cl4Na4"
    with pytest.raises(InvalidCrystal, match="Compressed file ended"):
        read(gzip.compress(PLAIN.encode())[:-20], "x.cif.gz")
    with pytest.raises(InvalidCrystal, match="over 200 times its size"):
        read(gzip.compress(b"#" * 10_000_000), "x.cif.gz")


def test_blocks(read, tmp_path):
    two = PLAIN.replace("data_x", "data_one") + PLAIN.replace("data_x", "data_two").replace(
        "Na1 Na", "Li1 Li"
    )
    path = tmp_path / "two.cif"
    path.write_text("data_global\n_journal_year 2001\n" + two)
    assert block_names(path.read_bytes(), path.name) == ["one", "two"]
    assert 3 in read_cif(path, "x", block="two").species
    with pytest.raises(InvalidCrystal, match="holds 2 structures"):
        read_cif(path, "x")
    path.write_text("data_global\n_journal_year 2001\n" + PLAIN)
    assert block_names(path.read_bytes(), path.name) == [""]
    assert len(read_cif(path, "x").species) == 8
