"""Curated sets: what is in them, and that interruptions, deaths and damage do not change it."""

import errno
import hashlib
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
from listed import Item, Listed, listed

from crysgnn_jax import shards
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import select, without_labels
from crysgnn_jax.curation import compared, pipeline, work
from crysgnn_jax.curation.engine import InProcess, engine_of
from crysgnn_jax.curation.pipeline import Plan, curate
from crysgnn_jax.curation.place import Place
from crysgnn_jax.errors import NoUsableCrystal, UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.stopping import Stopped


def plan(*sources, **options):
    return Plan(sources or (listed(),), **{"crystals_a_shard": 6, **options})


def made(plan, path, engine=None, **options):
    found, facts = curate(plan, str(path), engine or InProcess(), **options)
    return read(str(path)), facts


def digests(path):
    files = sorted([*Path(path).glob("shards/*"), Path(path) / "curated.json"])
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def names(path):
    return {file.name for file in Path(path).iterdir()} - {"verified.json"}


def ids(source):
    return source.ids().tolist()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The files of the set of 20 crystals."""
    path = tmp_path_factory.mktemp("expected")
    made(plan(), path / "set")
    return digests(path / "set")


def test_a_set_has_the_crystals_and_reduced_graphs_of_its_sources(tmp_path):
    source = listed()
    found, facts = made(plan(source), tmp_path / "set")
    assert ids(found) == ids(source) and facts.read == facts.kept == [20]
    assert sorted(file.name for file in (tmp_path / "set" / "shards").iterdir()) == [
        f"0000{k}.safetensors" for k in range(4)
    ]
    assert names(tmp_path / "set") == {"curated.json", "shards"}
    store = build_store(found, FeaturiserSettings(), cache_dir=tmp_path / "cache")
    other = build_store(source, FeaturiserSettings(), cache_dir=tmp_path / "cache")
    for name in ("reduced_formula", "space_group", "lattice", "site_species", "multiplicity",
                 "bond_distances", "bond_senders"):  # fmt: skip
        np.testing.assert_array_equal(getattr(store, name)[:], getattr(other, name)[:])
    np.testing.assert_array_equal(store.labels("energy"), other.labels("energy"))
    assert store.tags("source").tolist() == ["listed"] * 20
    assert store.tags("split").tolist() == other.tags("split").tolist()
    assert facts.counts["totals"].tolist() == [
        40,
        int(other.n_edges.sum()),
        40,
        len(other.bond_senders),
    ]
    assert facts.counts["n_atoms"].tolist() == [0, 0, 20]
    assert facts.counts["space_groups"][221] == facts.counts["elements"][55] == 20


def test_workers_make_the_same_bytes_as_one_process(tmp_path, expected):
    with engine_of("local", 2) as engine:
        made(plan(), tmp_path / "set", engine)
    assert digests(tmp_path / "set") == expected


def test_of_crystals_that_repeat_each_other_the_earliest_stays(tmp_path):
    one = listed(4, name="one")
    two = Listed(
        [Item("s-1", 3.0 * 1.05, cells=2), Item("new", 9.0), Item("s-2", 3.0 * 1.0501**2)], "two"
    )
    found, facts = made(plan(one, two, crystals_a_shard=3), tmp_path / "set")
    assert ids(found) == ["c-0", "c-1", "c-2", "c-3", "new"]
    assert facts.duplicates == [("s-1", "two", "c-1", "one"), ("s-2", "two", "c-2", "one")]
    assert facts.pairs == {("two", "one"): 2}
    assert (facts.read, facts.kept) == ([4, 3], [4, 1])
    # The third unit has a duplicate alone, and no shard.
    assert len(list((tmp_path / "set/shards").iterdir())) == 2


def test_what_cannot_be_used_is_listed_with_its_source(tmp_path):
    items = [Item("a", 4.0), Item("bad", 4.5, "unreadable"), Item("a", 5.0), Item("b", 6.0)]
    found, facts = made(plan(listed(2), Listed(items, "more")), tmp_path / "set")
    assert ids(found) == ["c-0", "c-1", "a", "b"]
    assert facts.skipped == [
        ("bad", "it cannot be read", 1),
        ("a", "an earlier crystal has the same id", 1),
    ]


def test_excluded_crystals_and_what_repeats_them_stay_out(tmp_path):
    test = Listed([Item("t", 3.0, cells=3)], "test")
    found, facts = made(plan(listed(4), exclude=[test]), tmp_path / "set")
    assert ids(found) == ["c-1", "c-2", "c-3"]
    assert facts.excluded == [("c-0", "listed", "t", "test")] and not facts.duplicates
    assert json.loads((tmp_path / "set/curated.json").read_text())["about"]["plan"]["exclude"]


def test_a_finished_set_is_not_made_again_and_others_are_refused(tmp_path):
    made(plan(), tmp_path / "set")
    assert made(plan(), tmp_path / "set")[1] is None
    with pytest.raises(UserError, match="holds a set of other sources or settings; .*`overwrite`"):
        made(plan(listed(3)), tmp_path / "set")
    (tmp_path / "set/duplicates.csv").write_text("of the last one")
    found, _ = made(plan(listed(3)), tmp_path / "set", overwrite=True)
    assert len(found) == 3
    assert names(tmp_path / "set") == {"curated.json", "shards"}


def test_what_else_is_in_the_place_of_a_set_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(UserError, match="holds mine.txt, and is no curated set; name another"):
            made(plan(), tmp_path, **options)
    with pytest.raises(UserError, match="mine.txt is a file; name a directory"):
        made(plan(), tmp_path / "mine.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "files, named",
    [
        (["drafts/mythesis.txt", "shards/important.bin"], "drafts"),
        (["drafts/plan.json", "report.json"], "drafts"),  # of something else
        (["drafts/00000.safetensors"], "drafts"),
        (["drafts/lock", "report.json"], "drafts"),
        (["curated.json", "shards/00000.safetensors"], "curated.json"),  # likewise
        (["shards/00000.safetensors"], "shards"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_looks_like_a_curation_in_part_is_left_alone(tmp_path, files, named, overwrite):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": "user\'s"}')
    with pytest.raises(UserError, match=f"holds {named}, and is no curated set; name another"):
        made(plan(), tmp_path, overwrite=overwrite)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(
        tmp_path / name for name in files
    )


def test_only_what_a_set_consists_of_is_ever_removed(tmp_path):
    path = tmp_path / "set"
    made(plan(), path)
    others = ["mine.txt", "shards/mine.bin", "drafts/mythesis.txt", "drafts/old/00000.safetensors"]
    for name in others:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("x")
    found, _ = made(plan(listed(3)), path, overwrite=True)
    assert len(found) == 3 and all((path / name).read_text() == "x" for name in others)
    assert sorted(file.name for file in (path / "shards").iterdir()) == [
        *("00000.safetensors", "mine.bin")
    ]
    assert made(plan(listed(3)), path)[1] is None
    assert all((path / name).exists() for name in others)


def test_a_curation_that_was_killed_before_its_plan_was_written_begins(tmp_path, expected):
    (tmp_path / "set/drafts").mkdir(parents=True)
    (tmp_path / "set/drafts/lock").touch()
    (tmp_path / "set/drafts/plan.json.0a1b2c3d.tmp").write_text('{"sour')
    made(plan(), tmp_path / "set")
    assert digests(tmp_path / "set") == expected
    assert names(tmp_path / "set") == {"curated.json", "shards"}


@pytest.mark.parametrize("when", range(6))
def test_overwriting_that_was_killed_is_never_taken_for_something_else(
    tmp_path, monkeypatch, expected, when
):
    path = tmp_path / "set"
    made(plan(listed(3), crystals_a_shard=1), path)
    (path / "duplicates.csv").write_text("of the last one")
    (path / "report.json").write_text("of the last one")
    remove, left = pipeline.Place.remove, [when]

    def killed(self, name):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        remove(self, name)

    monkeypatch.setattr(pipeline.Place, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        made(plan(), path, overwrite=True)
    monkeypatch.undo()
    made(plan(), path, overwrite=when == 0)  # before its table of contents is gone, it is a set
    assert digests(path) == expected and names(path) == {"curated.json", "shards"}


def test_what_a_set_is_made_from_is_not_in_its_place(tmp_path):
    one = tmp_path / "one"
    made(plan(), one)
    before = digests(one)
    (link := tmp_path / "link").symlink_to(one)
    source, other = read(str(one)), listed(3, prefix="d", first=20.0, name="other")
    plans = [
        plan(source),
        plan(other, exclude=[read(str(link))]),
        plan(other, read([str(one), listed(1, prefix="e", first=30.0, name="third")])),
        plan(select(source, [0, 1])),
        plan(without_labels(source)),
    ]
    for number, bad in enumerate(plans):
        for path, relation in {
            **dict.fromkeys((one, link, f"file://{one}", f"{tmp_path}/none/../one/"), "is"),
            tmp_path: "holds",
        }.items():
            with pytest.raises(UserError, match=f"`output` .* {relation} .*(one|link), which the"):
                made(bad, path, overwrite=True)
        made(bad, tmp_path / f"one {number}")
    assert digests(one) == before


def test_an_address_is_told_from_others_within_its_file_system():
    place = Place("memory://sets/one")
    expected = {
        "memory://sets/one/": "is",
        "simplecache::memory://sets/one": "is",
        "memory://sets": "lies in",
        "memory:///sets/one/shards": "holds",
        **dict.fromkeys(("memory://sets/one-more", "/sets/one", "file:///sets/one"), ""),
    }
    assert {other: place.relation(other) for other in expected} == expected


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "table"])
def test_a_set_that_is_damaged_is_made_anew_when_that_is_asked_for(tmp_path, expected, damage):
    path = tmp_path / "set"
    made(plan(), path)
    file = path / ("curated.json" if damage == "table" else "shards/00001.safetensors")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content if damage == "flipped" else content[:-50])
    if damage == "missing":
        file.unlink()
    there = sorted(path.rglob("*"))
    with pytest.raises(UserError, match=f"{file.name} .*; pass `overwrite` to make it anew$"):
        made(plan(), path)
    assert sorted(path.rglob("*")) == there
    made(plan(), path, overwrite=True)
    assert digests(path) == expected


def test_nothing_that_can_be_used_is_told_and_nothing_is_left(tmp_path):
    with pytest.raises(NoUsableCrystal, match=r"none of its crystals .* c-0: it cannot be read"):
        made(plan(listed(2, {0: "unreadable", 1: "unreadable"})), tmp_path / "set")
    with pytest.raises(NoUsableCrystal, match="all crystals that can be used are excluded"):
        made(plan(listed(2), exclude=[listed(2, name="test")]), tmp_path / "set")
    with pytest.raises(UserError, match="there is nothing to curate"):
        plan(listed(0))
    assert not list((tmp_path / "set").iterdir())


def test_a_curation_that_was_stopped_goes_on(tmp_path, expected):
    def stop(what):
        def show(done, total):
            if what.startswith("read") and done >= 12:
                raise KeyboardInterrupt

        return show

    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        made(plan(listed(log=log)), tmp_path / "set", progress=stop)
    with pytest.raises(UserError, match="holds the beginning of a set of other sources or"):
        made(plan(listed(3)), tmp_path / "set")
    _, facts = made(plan(listed(log=log)), tmp_path / "set")
    assert (facts.n_found, facts.n_drafts) == (2, 4)
    assert log.read_text().split() == [f"c-{k}" for k in range(20)]
    assert digests(tmp_path / "set") == expected


def _slowly(path, log):
    with engine_of("local", 2) as engine:
        made(plan(listed(delay=0.05, log=log)), path, engine)


def _spawn(target, *arguments):
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    return process


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_curation_goes_on_where_it_was(tmp_path, expected):
    path, log = tmp_path / "set", tmp_path / "log"
    process = _spawn(_slowly, path, log)
    _wait_for(lambda: len(list(path.glob("drafts/0*.safetensors"))) >= 2)
    process.kill()
    process.join()
    found = len(list(path.glob("drafts/0*.safetensors")))
    _, facts = made(plan(listed(log=log)), path)
    assert 2 <= facts.n_found <= found and digests(path) == expected


def test_two_curations_of_one_set_are_kept_apart(tmp_path):
    process = _spawn(_slowly, tmp_path / "set", tmp_path / "log")
    _wait_for(lambda: (tmp_path / "set/drafts/plan.json").exists())
    with pytest.raises(UserError, match="set is being written by another process; wait for it"):
        made(plan(), tmp_path / "set")
    process.kill()
    process.join()


def test_a_killed_worker_costs_its_unit_alone(tmp_path, expected):
    source = listed(faults={9: "deadly once"}, log=tmp_path / "log")
    with engine_of("local", 2) as engine:
        _, facts = made(plan(source), tmp_path / "set", engine)
    assert facts.kept == [20] and not facts.skipped
    read = (tmp_path / "log").read_text().split()
    assert all(read.count(f"c-{k}") == 1 for k in (*range(6), *range(12, 20)))
    shards = {name: digest for name, digest in digests(tmp_path / "set").items()}
    del shards["curated.json"], (same := dict(expected))["curated.json"]  # the fault is in its plan
    assert shards == same


def test_a_crystal_that_ends_every_worker_is_skipped_and_the_others_are_kept(tmp_path):
    source = listed(8, {2: "deadly"})
    with engine_of("local", 2) as engine:
        found, facts = made(plan(source, crystals_a_shard=5), tmp_path / "set", engine)
    assert ids(found) == [f"c-{k}" for k in range(8) if k != 2]
    assert facts.skipped == [("c-2", work.DEADLY, 0)] and facts.read == [8]


def test_a_full_disk_is_told_and_the_curation_goes_on_later(tmp_path, monkeypatch, expected):
    write = shards.write_bytes

    def full(path, content):
        if "00002" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(shards, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left .* same command goes"):
        made(plan(), tmp_path / "set")
    monkeypatch.setattr(shards, "write_bytes", write)
    _, facts = made(plan(), tmp_path / "set")
    assert facts.n_found == 2 and digests(tmp_path / "set") == expected


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder of Linux")
def test_a_place_that_takes_no_files_is_told_before_the_work(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(UserError, match="`output` /proc/set cannot be written to"):
        made(plan(listed(log=log)), "/proc/set")
    assert not log.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "unchecked", "wrongly checked"])
def test_a_draft_that_is_damaged_is_made_again(tmp_path, expected, damage):
    def stop(what):
        def show(done, total):
            if what == "duplicates" and not done:
                raise KeyboardInterrupt

        return show

    with pytest.raises(KeyboardInterrupt):
        made(plan(), tmp_path / "set", progress=stop)
    draft = tmp_path / "set/drafts/00001.safetensors"
    content = bytearray(draft.read_bytes())
    if damage == "flipped":
        content[-20] ^= 1  # in an array: the header is read anyway
    draft.write_bytes(content[:-5] if damage == "cut" else content)
    if damage == "unchecked":
        draft.with_suffix(".json").unlink()
    if damage == "wrongly checked":
        draft.with_suffix(".json").write_text('{"bytes"')
    _, facts = made(plan(), tmp_path / "set")
    assert facts.n_found == 3 and digests(tmp_path / "set") == expected


def test_a_signal_ends_it_after_a_unit(tmp_path, monkeypatch):
    def show(done, total):
        if done >= 6:
            monkeypatch.setattr(pipeline.stopping._wish, "number", 2)

    with pytest.raises(Stopped):
        made(plan(), tmp_path / "set", progress=lambda what: show)
    monkeypatch.undo()
    assert made(plan(), tmp_path / "set")[1].n_found == 1


def test_bonds_are_refused():
    with pytest.raises(UserError, match="`rule` bonds: a curated set has graphs of the kind"):
        plan(settings=FeaturiserSettings(rule="bonds"))


def test_any_file_system_of_fsspec_takes_a_set(expected):
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    _, facts = curate(plan(), "memory://sets/one", InProcess())
    found = {
        path.rpartition("/")[2]: hashlib.sha256(files.cat_file(path)).hexdigest()
        for path in files.find("/sets/one")
    }
    assert found == expected and facts.kept == [20]
    assert curate(plan(), "memory://sets/one/", InProcess())[1] is None
    files.pipe_file("/other/mine.txt", b"x")
    with pytest.raises(UserError, match="memory://other holds mine.txt"):
        curate(plan(), "memory://other", InProcess())
    with pytest.raises(UserError, match="unheard://set"):
        curate(plan(), "unheard://set", InProcess())
    with engine_of("local", 2) as engine:
        with pytest.raises(UserError, match="memory://sets/two is in the memory of .* `workers` 1"):
            curate(plan(), "memory://sets/two", engine)


def test_an_s3_store_takes_a_set(expected, monkeypatch, tmp_path):
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import fsspec

    own = server.ThreadedMotoServer(port=0)
    own.start()
    try:
        host, port = own.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        with engine_of("local", 2) as engine:
            curate(plan(), "s3://bucket/set", engine)
        files = fsspec.filesystem("s3")
        files.invalidate_cache()
        found = {
            path.rpartition("/")[2]: hashlib.sha256(files.cat_file(path)).hexdigest()
            for path in files.find("bucket/set")
        }
        assert found == expected
    finally:
        own.stop()
        fsspec.filesystem("s3").clear_instance_cache()


def test_crystals_are_compared_in_parts_as_if_they_were_not(tmp_path, monkeypatch):
    other = Listed([Item(f"d-{k}", 3.0 * 1.05 ** (k // 2) * (1 + 1e-4 * k)) for k in range(8)], "d")
    whole = made(plan(listed(6), other), tmp_path / "one")[1]
    monkeypatch.setattr(compared, "BLOCK", 1)
    with engine_of("local", 2) as engine:
        assert made(plan(listed(6), other), tmp_path / "two", engine)[1].duplicates == (
            whole.duplicates
        )
    assert len(whole.duplicates) == 8 and digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_curation_that_was_killed_at_the_end_leaves_nothing_behind(tmp_path, expected):
    def stop(what):
        def show(done, total):
            if what == "shards" and done >= 12:
                raise KeyboardInterrupt

        return show

    with pytest.raises(KeyboardInterrupt):
        made(plan(), tmp_path / "set", progress=stop)
    (tmp_path / "set/shards/00002.safetensors.99.tmp").write_bytes(b"x")
    made(plan(), tmp_path / "set")
    assert digests(tmp_path / "set") == expected
    (tmp_path / "set/drafts").mkdir()
    assert made(plan(), tmp_path / "set")[1] is None
    assert names(tmp_path / "set") == {"curated.json", "shards"}


def test_a_tolerance_that_would_join_anything_is_refused():
    with pytest.raises(UserError, match=r"`tolerance` 0.3: at most 0.1"):
        plan(tolerance=0.3)
