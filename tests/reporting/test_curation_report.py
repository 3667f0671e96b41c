"""The report of a curation: counts that add up, lines and a picture."""

import io
import json

import numpy as np
from matplotlib.image import imread

from crysgnn_jax.curation.pipeline import Facts
from crysgnn_jax.reporting import curation


def facts(n_sources=1, **changes):
    """Of sources of 10 crystals: one is skipped, two are duplicates, one is excluded, six stay."""
    names = tuple(f"source {k}" for k in range(n_sources))
    counts = {
        "elements": np.bincount([8, 14], minlength=128) * 6 * n_sources,
        "space_groups": np.bincount([152] * 6 * n_sources, minlength=231),
        "n_atoms": np.bincount([9] * 6 * n_sources),
        "totals": np.array([54, 700, 12, 30]) * n_sources,
    }
    found = Facts(
        name=" + ".join(names),
        sources=names,
        excluded_sources=("test",),
        read=[10] * n_sources,
        kept=[6] * n_sources,
        skipped=[(f"bad-{k}", f"it has {k} atoms too many", k) for k in range(n_sources)],
        notes=[("a", "read with care")],
        duplicates=[(id, name, "c", names[0]) for name in names for id in ("d", "e")],
        excluded=[("x", name, "y", "test") for name in names],
        pairs={(name, names[0]): 2 for name in names},
        counts=counts,
        seconds={"graphs": 3.0, "duplicates": 1.0, "shards": 1.0},
        worker_seconds={"read": 1.0, "symmetry": 2.0, "write": 0.5},
        n_drafts=4,
        n_found=0,
    )
    return found.__class__(**{**found.__dict__, **changes})


def test_every_crystal_is_accounted_for():
    told = curation.as_json(facts(3))
    assert (
        told["read"]
        == 30
        == sum(told[name] for name in ("skipped", "excluded", "duplicates", "kept"))
    )
    for source in told["sources"]:
        assert (
            source["read"]
            == 10
            == sum(source[name] for name in ("skipped", "excluded", "duplicates", "kept"))
        )
    assert told["skipped_by_reason"] == {"it has … atoms too many": 3}
    assert told["duplicates_by_sources"][0] == {
        "source": "source 0", "of": "source 0", "crystals": 2,
    }  # fmt: skip
    assert told["elements"] == {"O": 18, "Si": 18}
    assert {name: n for name, n in told["crystal_systems"].items() if n} == {"trigonal": 18}
    assert told["space_groups"] == {"152": 18} and told["atoms_per_crystal"] == {"9": 18}
    assert told["totals"] == {"atoms": 162, "edges": 2100, "sites": 36, "bonds": 90}
    assert told["crystals_per_second"] == 6.0
    steps = told["steps"]
    assert list(steps)[0] == "read" and list(steps)[-2:] == ["compare", "shards"]
    assert steps["read"] == {"crystals": 27, "seconds": 1.0, "crystals_per_second": 30.0}
    assert steps["symmetry"] == {"crystals": 27, "seconds": 2.0, "crystals_per_second": 13.5}
    assert steps["compare"] == {"crystals": 18, "seconds": 1.0, "crystals_per_second": 27.0}


def test_speed_is_not_told_of_what_was_there():
    assert curation.as_json(facts(n_found=2))["crystals_per_second"] is None


def test_lines_have_a_sum_where_there_are_several_sources():
    one, three = curation.lines(facts()), curation.lines(facts(3))
    assert "source 0  10    1        1         2           6" in one
    assert not any(line.startswith("all ") for line in one)
    assert "all       30    3        3         6           18" in three
    about = (
        "18 crystals of 2 elements and 1 space group: 162 atoms, which graphs reduce to 36 sites"
    )
    assert about in three


def test_files_hold_all_and_the_picture_can_be_drawn_of_many_sources():
    files = curation.report_files(facts(11), {"command": "crysgnn curate"})
    assert set(files) == {
        "report.json", "report.png", "skipped.csv", "duplicates.csv", "excluded.csv",
    }  # fmt: skip
    assert json.loads(files["report.json"])["command"] == "crysgnn curate"
    assert (
        files["skipped.csv"].decode().splitlines()[1] == "bad-0,it has 0 atoms too many,source 0,"
    )
    assert len(files["duplicates.csv"].splitlines()) == 23
    assert files["excluded.csv"].decode().splitlines()[1] == "x,source 0,y,test"
    height, width, _ = imread(io.BytesIO(files["report.png"])).shape
    assert (width, height) == (2880, 2460)
