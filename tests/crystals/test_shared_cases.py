"""The development inputs in the spirit of public reports, where they are at hand."""

import re
import shutil
from collections import Counter

import pytest

from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.errors import InvalidCrystal, UserError
from golden_files import SHARED

CASES = SHARED / "cases"

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the development cases are not here")

FORMULAS = {
    # where, and what is in each crystal
    "cif/bom_crlf.cif": ["Cl4Na4"],
    "cif/border.cif": ["O1Po1"],
    "cif/diamond_name.cif": ["C8"],
    "cif/diamond_S.cif": ["C8"],
    "cif/diamond_Z.cif": ["C8"],
    "cif/twoblocks.cif": ["Cl4Na4", "C8"],
    "cif/duplicate_tag.cif": ["Cl4Na4"],
    "files/01_hall_only/x.cif": ["Cl4Na4"],
    "files/03_number_166_rhombohedral_cell/x.cif": ["Bi2"],
    "files/04_hm_question_number_225/x.cif": ["Cl4Na4"],
    "files/07_symop_single_value/x.cif": ["Cl1Na1"],
    "files/08_magnetic_ops_only/x.cif": ["Cr2"],
    "files/10_two_blocks/x.cif": ["Cl4Na4", "Mg4O4"],
    "files/18_occ_0999/x.cif": ["Cl4Na4"],
    "files/19_occ_unc_qm_dot/x.cif": ["Cl4Na4"],
    "files/20_oxid_states/x.cif": ["Cl4Na4"],
    "files/21_crlf_bom/x.cif": ["Cl4Na4"],
    "files/24_two_digit_hex_coords/x.cif": ["Ti2"],
    "files/25_three_digit_hex_coords/x.cif": ["Ti2"],
    "files/28_old_symbol_Fd3m/x.cif": ["Si8"],
    "files/29_Fd-3m_Z_origin2/x.cif": ["Si8"],
    "files/31_Fd-3m_plain_origin2coords_spinel/x.cif": ["Al16Mg8O32"],
    "files/38_H_missing_formula/x.cif": ["C1N2O1"],
    "files/41_P21c_setting_unstated_number14_n/x.cif": ["Na4"],
    "files/43_hm_underscores_findsym/x.cif": ["Cl4Na4"],
    "files/44_hm_origin_choice_text/x.cif": ["Na8"],
    "files/46_parent_name_only_no_sym_at_all/x.cif": ["Cl1Na1"],
    "files/48_Si_Fd-3m_hall_origin2/x.cif": ["Si8"],
    "files/51_anatase_I41amd_hall_origin2/x.cif": ["O8Ti4"],
    "files/52_duplicate_formula_tag/x.cif": ["Cl4Na4"],
    "files/53_full_list_plus_ops_formula/x.cif": ["Cl2Cs2"],
    "files/55_CRLF_only/x.cif": ["Cl4Na4"],
    "files/60_vasp4_comment_names/POSCAR": ["Cl4Na4"],
    "files/63_negative_scale/POSCAR": ["Cl4Na4"],
    "files/65_selective_cartesian/POSCAR": ["Cl1Na1"],
    "files/67_pv_suffix/POSCAR": ["Cl4Na4"],
    "files/69_vasp_suffix/a.vasp": ["Cl4Na4"],
    "files/70_poscar_suffix/a.poscar": ["Cl4Na4"],
    "files/71_mp_dash_name_POSCAR/mp-1_POSCAR": ["Cl4Na4"],
    "files/73_repeated_species/POSCAR": ["Cl4Na4"],
    "files/82_idprop_bom_crlf_blank/d": ["Cl4Na4"] * 12,
    "files/90_two_crystals/d": ["Cl4Na4"] * 2,
    "files/92 with space in name/d": ["Cl4Na4"] * 12,
    "files/93_jarvis_cartesian_string_false/d.json": ["Cl1Na1"] * 2,
    "files/94_jarvis_string_numbers/d.json": ["Cl1Na1"] * 12,
    "files/95_jarvis_dict_of_records/d.json": ["Cl1Na1"] * 3,
    "files/99_cif_gz/a.cif.gz": ["Cl4Na4"],
    "files/103_isolated_He_30A/x.cif": ["He1"],
}

REASONS = {
    # where, and why it is refused
    "cif/POSCAR_without_symbols": "no chemical symbols; write them in a line",
    "files/06_only_identity_listed/x.cif": "the identity as the only operation",
    "files/11_label_only_water/x.cif": "unknown element 'Wat1'",
    "files/14_type_OH_NH4_CO3/x.cif": "unknown element 'CO3'",
    "files/15_type_OH/x.cif": "unknown element 'OH'",
    "files/17_type_D_T/x.cif": "unknown element 'T'",
    "files/35_ddlm_dots/x.cif": "no atoms with fractional coordinates",
    "files/39_coord_question/x.cif": "not a finite number",
    "files/62_vasp4_comment_misleading/POSCAR": "no chemical symbols",
    "files/84_idprop_cif_suffix/d": "000.cif.cif is missing; ids go without .cif",
    "files/97_extxyz_no_lattice/a.xyz": "not periodic in three directions",
    "files/101_folder_subfolders/d": r"2 folders \(s1, s2\)",
    "reliability/01-coord-1e308-moyo-panic/s4.cif": "formula",
    "reliability/02-inf-lattice-linalgerror/s4.vasp": "not a finite number",
    "reliability/08-npz-claims-1e12/r_shape1e12.npz": "'numbers' is unreadable",
    "reliability/11-cif-20000-symops/c_symops20000.cif": "20000 operations",
    "reliability/12-npz-natoms-uint64/n_u64b.npz": "count of 18446744073709551614",
    "reliability/13-cif-cell-against-spacegroup/c_sgmismatch.cif": "contradicts the space group",
    "reliability/15-coord-1e300/j_coords_1e300.json": "fractional coordinate is 1e",
    "reliability/18-extxyz-1e9-atoms/e_1e9.extxyz": "claims 1000000000 atoms",
    "reliability/18-extxyz-1e9-atoms/s2.extxyz": "columns",
    "reliability/21-foreign-sqlite-altered/other_app.db": "no database of ASE's",
}


def formula(crystal) -> str:
    counts = Counter(SYMBOLS[z] for z in crystal.species.tolist())
    return "".join(f"{symbol}{n}" for symbol, n in sorted(counts.items()))


@pytest.mark.parametrize("name", FORMULAS)
def test_read(name):
    source = open_source(CASES / name)
    crystals = [source.decode(item) for item in source.items(0, len(source))]
    assert [formula(crystal) for crystal in crystals] == FORMULAS[name]


@pytest.mark.parametrize("name", REASONS)
def test_refused(name, tmp_path):
    here = tmp_path / (CASES / name).name
    copy = shutil.copytree if (CASES / name).is_dir() else shutil.copy
    copy(CASES / name, here)
    before = here.read_bytes() if here.is_file() else b""
    with pytest.raises((InvalidCrystal, UserError)) as caught:
        source = open_source(here)
        for item in source.items(0, len(source)):
            source.decode(item)
    assert re.search(REASONS[name], str(caught.value))
    assert not here.is_file() or here.read_bytes() == before


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("reliability/02-inf-lattice-linalgerror/many.extxyz", 7, 1),
        ("reliability/03-json-int-overflow/j_overflow_int.json", 1, 1),
        ("reliability/05-json-surrogate-label/j_surrogate_label.json", 1, 0),
        ("reliability/07-idprop-long-id/ip_long", 1, 1),
    ],
)
def test_one_of_several_is_left_out(name, good, bad):
    source = open_source(CASES / name)
    found = Counter()
    for item in source.items(0, len(source)):
        try:
            source.decode(item)
            found["good"] += 1
        except InvalidCrystal:
            found["bad"] += 1
    assert (found["good"], found["bad"]) == (good, bad)
