"""Looking into a model: `embed`, `nearest` and `explain`, on toy crystals."""

import csv
import dataclasses

import ase.io
import jax
import numpy as np
import pytest

from crysgnn_jax.commands import cli, embed, explain, nearest
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.table import write_table
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_json
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.crysxpp import NETWORK, CrysXPP
from crysgnn_jax.models.registry import smallest_batch
from crysgnn_jax.training.shipped import WEIGHTS, write_weights
from crysgnn_jax.training.workdir import CONFIG, RESULT
from toys import collection, perovskite


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Toy crystals, and a CrysXPP of random weights."""
    path = tmp_path_factory.mktemp("looking")
    write_table(path / "toys.npz", collection(12))
    settings = {"width": 16, "n_convolutions": 2}
    init = jax.jit(lambda key: CrysXPP(**settings).init(key, smallest_batch(NETWORK.needs), True))
    (path / "student").mkdir()
    write_weights(path / "student" / WEIGHTS, jax.tree.map(np.array, dict(init(jax.random.key(0)))))
    about = {
        CONFIG: {
            "made_with": {
                "network": "crysxpp",
                "model": settings,
                "featuriser": dataclasses.asdict(FeaturiserSettings()),
            }
        },
        RESULT: {
            "task": "student",
            "property": "energy",
            "unit": "",
            "target_mean": 1.0,
            "target_std": 2.0,
        },
    }
    for name, content in about.items():
        write_json(path / "student" / name, content)
    return path


def call(command, here, *words, model="crysgnn-mp"):
    words = (
        "--model",
        model if model == "crysgnn-mp" else here / model,
        "--cache",
        here / "cache",
        "--workers",
        "1",
        *words,
    )
    cli.call(command, [*map(str, words), "--devices", "1"])


def test_embeddings_are_the_same_in_both_formats_and_come_with_a_map(here, tmp_path):
    h5py = pytest.importorskip("h5py")
    toys = here / "toys.npz"

    call(embed, here, toys, "--output", tmp_path / "e.npz", "--map", tmp_path / "m.png")
    call(embed, here, toys, "--output", tmp_path / "e.h5")

    with np.load(tmp_path / "e.npz") as npz, h5py.File(tmp_path / "e.h5") as h5:
        assert set(npz) == set(h5) and len(npz["ids"]) == 12
        assert h5["ids"].asstr()[:].tolist() == npz["ids"].tolist()
        for name in ("n_atoms", "embeddings", "crystal_embeddings"):
            np.testing.assert_array_equal(h5[name][:], npz[name])
    assert (tmp_path / "m.png").stat().st_size > 1000
    page = (tmp_path / "m.html").read_text()
    assert "c11" in page and "% of the variance" in page and "src=" not in page[:2000]


def test_a_map_is_coloured_by_a_label(here, tmp_path):
    out = ("--output", tmp_path / "e.npz", "--map", tmp_path / "m.png")

    call(embed, here, here / "toys.npz", *out, "--colour", "energy")

    assert "#440154" in (tmp_path / "m.html").read_text()  # the first colour of viridis


def test_a_crystal_and_its_supercell_are_nearest_to_it_at_distance_0(here, tmp_path):
    one = perovskite(id="one")
    shifts = np.array([[0, 0, 0], [0, 0, 1]])
    coords = (one.frac_coords[None] + shifts[:, None]).reshape(-1, 3) / [1, 1, 2]
    double = Crystal(
        "double", np.tile(one.species, 2), coords, np.diag([1, 1, 2]) @ one.lattice, {"energy": 2.5}
    )
    write_table(tmp_path / "many.npz", [*collection(6), one, double])
    write_table(tmp_path / "query.npz", [one])

    call(
        nearest, here, tmp_path / "many.npz", "--to", tmp_path / "query.npz", "--n", "3",
        "--output", tmp_path / "out.csv",
    )  # fmt: skip

    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows[:2]} == {"one", "double"} and len(rows) == 3
    assert [row["distance"] for row in rows[:2]] == ["0.0000", "0.0000"]
    assert float(rows[2]["distance"]) > 0.1
    found = next(row for row in rows if row["id"] == "double")
    assert found["query"] == "one" and found["formula"] == "SrTiO3"
    assert found["space_group"] == "221" and float(found["energy"]) == 2.5
    assert next(row for row in rows if row["id"] == "one")["energy"] == ""


def test_nearest_prints_a_table_with_symbols_of_space_groups(here, tmp_path, capsys):
    write_table(tmp_path / "query.npz", [perovskite()])

    call(nearest, here, tmp_path / "query.npz", here / "toys.npz", "--to", tmp_path / "query.npz")

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["query", "rank", "id", "formula", "space"]
    assert "Pm-3m" in lines[2] and "SrTiO3" in lines[2] and len(lines) == 2 + 10


def test_one_crystal_is_explained_atom_by_atom(here, tmp_path, capsys):
    write_table(tmp_path / "one.npz", [perovskite()])

    call(explain, here, tmp_path / "one.npz", "--output", tmp_path / "c.extxyz", model="student")

    atoms = ase.io.read(tmp_path / "c.extxyz")
    parts = atoms.arrays["contribution"]
    assert atoms.get_chemical_formula() == "O3SrTi" and atoms.pbc.all()
    told = atoms.info["prediction"] - atoms.info["baseline"]
    assert parts.mean() == pytest.approx(told, rel=1e-2, abs=1e-6)
    assert (tmp_path / "c.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "SrTiO3, energy:" in printed
    # What CrysXPP says of itself.
    assert "electronegativity" in printed


def test_many_crystals_are_explained_by_element(here, tmp_path, capsys):
    call(
        explain, here, here / "toys.npz", "--limit", "4", "--output", tmp_path / "c.extxyz",
        model="student",
    )  # fmt: skip

    assert len(ase.io.read(tmp_path / "c.extxyz", ":")) == 4
    assert "energy, by element" in capsys.readouterr().out


def test_one_model_alone_is_looked_into(here, capsys):
    with pytest.raises(SystemExit) as stop:
        explain.parser().parse_args(["--model", "a", "--model", "b", "my.cif"])
    assert stop.value.code == 2
    assert "--model b: give one alone, there is another" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command, model, flags, message",
    [
        (embed, "crysgnn-mp", ["--output", "a.txt"], "--output a.txt: give a file that ends in"),
        (embed, "crysgnn-mp", ["--map", "a.jpg"], "--map a.jpg: give a file that ends in .png"),
        (embed, "crysgnn-mp", ["--map", "a.png", "--colour", "gap"], "--colour gap: .* energy"),
        (nearest, "crysgnn-mp", ["--to", "none.cif"], "--to none.cif"),
        (nearest, "crysgnn-mp", ["--to", "none.cif", "--output", "a.json"], "ends in .csv"),
        (embed, "crysgnn-mp", ["--limit", "1", "--map", "a.png"], "1 crystal makes no map"),
        (explain, "student", ["--output", "a.csv"], "--output a.csv: give a file that ends in"),
        (explain, "crysgnn-mp", [], "predicts no property"),
        (
            explain,
            "student",
            ["--output", "a.png"],
            "--output a.png: give a file that ends in .extxyz",
        ),
    ],
)
def test_bad_flags_are_told_in_a_line(command, model, flags, message, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match=message):
        call(command, here, here / "toys.npz", *flags, model=model)

    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named_with_the_extra_that_has_it(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    for flags, extra in (
        (["--output", "a.h5"], "h5"),
        (["--map", "a.png", "--projection", "umap"], "umap"),
    ):
        with pytest.raises(UserError, match=rf"pip install 'crysgnn-jax\[{extra}\]'"):
            call(embed, here, here / "toys.npz", *flags)
