"""CIF files: equal to what ASE reads, and bad ones named."""

import numpy as np
import pytest
from ase.io import read, write
from ase.spacegroup import crystal as spacegroup_crystal

from crysgnn_jax.crystals.readers.cif import read_cif
from crysgnn_jax.errors import InvalidCrystal
from toys import perovskite, random_crystal

GOOD = """data_NaCl
_cell_length_a 5.64(2)
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na1+ 0.0 0.0 0.0 1.0
Cl1 Cl1- 0.5 0.5 0.5(1) 1
"""

SYMMETRIC = {
    "quartz": dict(
        symbols=["Si", "O"],
        basis=[(0.4697, 0, 0), (0.4135, 0.2669, 0.1191)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.4054, 90, 90, 120],
    ),
    "rutile": dict(
        symbols=["Ti", "O"],
        basis=[(0, 0, 0), (0.3053, 0.3053, 0)],
        spacegroup=136,
        cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
    ),
    "diamond": dict(
        symbols=["C"], basis=[(0, 0, 0)], spacegroup=227, cellpar=[3.57, 3.57, 3.57, 90, 90, 90]
    ),
    "corundum": dict(
        symbols=["Al", "O"],
        basis=[(0, 0, 0.3523), (0.3064, 0, 0.25)],
        spacegroup=167,
        cellpar=[4.763, 4.763, 13.003, 90, 90, 120],
    ),
    "monazite": dict(
        symbols=["La", "P", "O"],
        basis=[(0.2815, 0.1593, 0.1007), (0.3048, 0.163, 0.6121), (0.2503, 0.0068, 0.4477)],
        spacegroup=14,
        cellpar=[6.8313, 7.0705, 6.5034, 90, 103.27, 90],
    ),
}


def assert_same_crystal(ours, atoms):
    """Same species, same volume, and every atom in the place of one of ASE's."""
    assert sorted(ours.species) == sorted(atoms.numbers)
    assert abs(np.linalg.det(ours.lattice)) == pytest.approx(atoms.get_volume(), rel=1e-6)
    theirs = atoms.get_scaled_positions()
    for number, position in zip(ours.species, ours.frac_coords):
        difference = theirs[atoms.numbers == number] - position
        distance = np.linalg.norm((difference - np.round(difference)) @ ours.lattice, axis=1)
        assert distance.min() < 1e-3


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetry_is_expanded_as_by_ase(name, tmp_path):
    expected = spacegroup_crystal(**SYMMETRIC[name])
    lengths, angles = expected.cell.lengths(), expected.cell.angles()
    kwargs = SYMMETRIC[name]
    group = expected.info["spacegroup"]
    operations = [
        ",".join(
            "+".join(f"{int(c)}*{axis}" for c, axis in zip(row, "xyz") if c) + f"+{shift:.6f}"
            for row, shift in zip(rotation, translation)
        )
        .replace("1*", "")
        .replace("+-", "-")
        for rotation, translation in group.get_symop()
    ]
    names = ("a", "b", "c"), ("alpha", "beta", "gamma")
    lines = [f"data_{name}", f"_symmetry_Int_Tables_number {kwargs['spacegroup']}"]
    lines += [f"_cell_length_{k} {v:.6f}" for k, v in zip(names[0], lengths)]
    lines += [f"_cell_angle_{k} {v:.6f}" for k, v in zip(names[1], angles)]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{op}'" for op in operations)]
    lines += [
        "loop_",
        "_atom_site_type_symbol",
        "_atom_site_fract_x",
        "_atom_site_fract_y",
        "_atom_site_fract_z",
    ]
    lines += [f"{s} {x} {y} {z}" for s, (x, y, z) in zip(kwargs["symbols"], kwargs["basis"])]
    path = tmp_path / f"{name}.cif"
    path.write_text("\n".join(lines) + "\n")
    ours = read_cif(path, name)
    assert_same_crystal(ours, expected)
    assert_same_crystal(ours, read(path))


@pytest.mark.parametrize("crystal", [perovskite(), random_crystal(14, seed=3)])
def test_p1_files_keep_the_order_of_their_atoms(crystal, tmp_path):
    from ase import Atoms

    atoms = Atoms(
        crystal.species, cell=crystal.lattice, pbc=True, scaled_positions=crystal.frac_coords
    )
    write(tmp_path / "x.cif", atoms)
    ours = read_cif(tmp_path / "x.cif", "x")
    assert ours.species.tolist() == crystal.species.tolist()
    assert_same_crystal(ours, read(tmp_path / "x.cif"))


def test_uncertainties_charges_and_space_group_names(tmp_path):
    path = tmp_path / "NaCl.cif"
    path.write_text(GOOD)
    crystal = read_cif(path, "NaCl")
    assert sorted(crystal.species.tolist()) == [11] * 4 + [17] * 4
    np.testing.assert_allclose(crystal.lattice, 5.64 * np.eye(3), atol=1e-9)


def test_deuterium_is_hydrogen(tmp_path):
    path = tmp_path / "LiD.cif"
    path.write_text(GOOD.replace("Na1 Na1+", "Li1 Li").replace("Cl1 Cl1-", "D1 D"))
    assert set(read_cif(path, "LiD").species.tolist()) == {1, 3}


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no atoms"),
        ("\x00\x01garbage", "not a valid CIF"),
        (GOOD[: GOOD.index("0.5(1)")], "cut short"),
        (GOOD[: GOOD.index("Na1 Na1+")], "not a valid CIF|no atoms"),
        (GOOD.replace("5.64(2)", "0"), "check the lattice"),
        (GOOD.replace("0.0 1.0", "0.0 0.5"), "site Na1 is occupied to 0.5"),
        (GOOD.replace("Na1 Na1+", "Qq1 Qq"), "unknown element 'Qq'"),
        (GOOD.replace("Na1 Na1+", "No1 No"), "site No1 has the element No, beyond the 100 known"),
        (GOOD.replace("F m -3 m", "F m n x"), "unknown space group"),
        (
            GOOD.replace("loop_", "_chemical_formula_sum 'Na1 Cl1 O3'\nloop_"),
            "atoms or operations are missing",
        ),
        (GOOD.replace("0.0 0.0 0.0", "? 0.0 0.0"), r"not a finite number \('', 0\.0, 0\.0\)"),
        (GOOD.replace("0.0 0.0 0.0", "0.0 '' nan"), r"not a finite number \(0\.0, '', 'nan'\)"),
        (GOOD.replace("alpha 90", "alpha 0"), "alpha is 0; check the lattice"),
        (GOOD + "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'-x,-y,what'\n", "no operation"),
    ],
)
def test_bad_files(text, reason, tmp_path):
    path = tmp_path / "bad.cif"
    path.write_text(text)
    with pytest.raises(InvalidCrystal, match=reason) as caught:
        read_cif(path, "bad")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InvalidCrystal, match="none.cif"):
        read_cif(tmp_path / "none.cif", "none")
