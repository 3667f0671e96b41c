"""Graph stores: their content, and that interruptions, rivals and damage do not change it."""

import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import InvalidCrystal, UserError
from crysgnn_jax.graphs import build as build_module
from crysgnn_jax.graphs import making
from crysgnn_jax.graphs.build import build_store, store_fingerprint
from crysgnn_jax.graphs.neighbours import neighbour_list
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import open_store
from crysgnn_jax.stopping import Stopped

SETTINGS = FeaturiserSettings()
COLUMNS = (
    "ids",
    "reduced_formula",
    "space_group",
    "lattice",
    "node_offsets",
    "edge_offsets",
    "species",
    "frac_coords",
    "degree",
    "senders",
    "distances",
    "vectors",
)


@dataclasses.dataclass(frozen=True)
class Item:
    id: str
    edge: float
    fault: str | None = None
    delay: float = 0.0
    log: Path | None = None


def decode(item):
    """A CsCl-type crystal with the lattice constant ``edge``."""
    time.sleep(item.delay)
    if item.log is not None:
        with open(item.log, "a") as file:
            file.write(f"{item.id}\n")
    if item.fault == "unreadable":
        raise InvalidCrystal(item.id, "it cannot be read")
    if item.fault == "fatal":
        os._exit(3)
    if item.fault == "bug":
        1 / 0  # noqa: B018
    if item.fault == "far":
        return Crystal(item.id, [2], np.zeros((1, 3)), 30 * np.eye(3))
    if item.fault == "huge":
        grid = np.stack(np.meshgrid(*[np.arange(6) / 6] * 3), -1).reshape(-1, 3)
        return Crystal(item.id, np.full(216, 29), grid, 18 * np.eye(3))
    coords = np.array([[0, 0, 0], [1, 1, 1]]) * (0.001 if item.fault == "overlap" else 0.5)
    labels = {"energy": -item.edge} if item.edge > 4 else {}
    tags = {"split": "train" if item.edge < 5 else "validation"}
    notes = ("read with care",) if item.fault == "noted" else ()
    return Crystal(item.id, [55, 17], coords, item.edge * np.eye(3), labels, tags, notes)


class ListSource:
    name = "listed crystals"
    label_names = ("energy", "gap (eV/atom)")
    decode = staticmethod(decode)

    def __init__(self, items):
        self._items = items

    def __len__(self):
        return len(self._items)

    def fingerprint(self):
        content = repr([(item.id, item.edge, item.fault) for item in self._items])
        return hashlib.sha256(content.encode()).hexdigest()

    def labelled(self, label):
        return np.array([label == "energy" and item.edge > 4 for item in self._items])

    def items(self, start, stop):
        return self._items[start:stop]


def _source(n=20, faults=None, **options):
    faults = faults or {}
    return ListSource([Item(f"c-{k}", 3.5 + 0.1 * k, faults.get(k), **options) for k in range(n)])


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(build_module, "CHUNK_SIZE", 3)


def _build(source, cache_dir, settings=SETTINGS, workers=1, **options):
    return build_store(source, settings, cache_dir=cache_dir, workers=workers, **options)


def _assert_equal(first, second):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert getattr(first, name).dtype == getattr(second, name).dtype
    for name in first.label_names:
        np.testing.assert_array_equal(first.labels(name), second.labels(name))
    assert first.skipped == second.skipped
    assert (first.fingerprint, first.settings) == (second.fingerprint, second.settings)


def _interrupt_after_nine(done, total):
    if done >= 9:
        raise KeyboardInterrupt


def _build_slowly(cache_dir, log=None, workers=1):
    """What another process does in the tests of interruptions and rivals."""
    build_module.CHUNK_SIZE = 3
    _build(_source(delay=0.05, log=log), cache_dir, workers=workers)


def _spawn(*args):
    process = multiprocessing.get_context("spawn").Process(target=_build_slowly, args=args)
    process.start()
    return process


def test_columns(tmp_path, small_chunks):
    source = _source()
    store = _build(source, tmp_path)
    assert len(store) == 20
    assert store.path == tmp_path / store_fingerprint(source, SETTINGS)
    assert store.fingerprint == store.path.name
    assert (store.settings, store.skipped) == (SETTINGS, [])
    np.testing.assert_array_equal(store.reduced_formula, ["Cl1Cs1"] * 20)
    np.testing.assert_array_equal(store.space_group, [221] * 20)
    for k, item in enumerate(source.items(0, 20)):
        crystal = decode(item)
        edges = neighbour_list(crystal, SETTINGS)
        nodes_k = slice(*store.node_offsets[k : k + 2])
        edges_k = slice(*store.edge_offsets[k : k + 2])
        assert store.ids[k] == crystal.id
        assert (store.n_nodes[k], store.n_edges[k]) == (2, len(edges.senders))
        np.testing.assert_array_equal(store.lattice[k], crystal.lattice)
        np.testing.assert_array_equal(store.species[nodes_k], crystal.species)
        np.testing.assert_array_equal(store.frac_coords[nodes_k], crystal.frac_coords)
        receivers = np.repeat(np.arange(2), store.degree[nodes_k])
        np.testing.assert_array_equal(receivers, edges.receivers)
        np.testing.assert_array_equal(store.senders[edges_k], edges.senders)
        np.testing.assert_array_equal(store.distances[edges_k], edges.distances)
        np.testing.assert_array_equal(store.vectors[edges_k], edges.vectors)


def test_labels_and_tags(tmp_path, small_chunks):
    store = _build(_source(), tmp_path)
    edges = 3.5 + 0.1 * np.arange(20)
    np.testing.assert_array_equal(store.labels("energy"), np.where(edges > 4, -edges, np.nan))
    assert np.isnan(store.labels("gap (eV/atom)")).all()
    np.testing.assert_array_equal(store.tags("split"), np.where(edges < 5, "train", "validation"))
    assert (store.label_names, store.tag_names) == (("energy", "gap (eV/atom)"), ("split",))
    with pytest.raises(UserError, match=r"no 'volume' among its labels: energy, gap"):
        store.labels("volume")
    with pytest.raises(UserError, match=r"no 'energy' among its tags: split"):
        store.tags("energy")


_FORTRAN_COORDS = np.asfortranarray([[0, 0.1, 0.2], [0.3, 0.4, 0.5], [0.6, 0.75, 0.9]])


class _FortranSource(ListSource):
    decode = staticmethod(lambda _: Crystal("f", [1, 2, 3], _FORTRAN_COORDS, 9.0 * np.eye(3)))

    def __len__(self):
        return 1

    def items(self, start, stop):
        return [None]


def test_coordinates_in_column_order(tmp_path):
    # Arrays that lie in memory column by column, as transposed results do.
    store = _build(_FortranSource([]), tmp_path)
    np.testing.assert_array_equal(store.frac_coords, _FORTRAN_COORDS)


def test_crystals_without_edges(tmp_path):
    source = ListSource([Item("far", 40.0)])
    store = _build(source, tmp_path, dataclasses.replace(SETTINGS, cutoff=5.0))
    assert (store.n_nodes.tolist(), store.n_edges.tolist()) == ([2], [0])
    assert (store.degree.tolist(), store.vectors.shape) == ([0, 0], (0, 3))


def test_two_workers_make_the_same_store(tmp_path, small_chunks):
    source = _source(faults={4: "unreadable"})
    one = _build(source, tmp_path / "one")
    two = _build(source, tmp_path / "two", workers=2)
    _assert_equal(one, two)


def test_a_second_build_only_opens(tmp_path):
    first = _build(_source(), tmp_path)
    before = (first.path / "vectors.npy").stat()
    # Had it to read a crystal, it would fail.
    again = _build(_source(log=tmp_path), tmp_path)
    _assert_equal(first, again)
    _assert_equal(first, open_store(first.path))
    assert (again.path / "vectors.npy").stat().st_mtime_ns == before.st_mtime_ns
    assert {path.name for path in tmp_path.iterdir()} == {
        first.fingerprint,
        f"{first.fingerprint}.lock",
    }


def test_fingerprint():
    reference = store_fingerprint(_source(), SETTINGS)
    assert store_fingerprint(_source(), FeaturiserSettings(cutoff=8)) == reference
    changed = {
        store_fingerprint(_source(), dataclasses.replace(SETTINGS, **change))
        for change in (
            {"n_neighbours": 11},
            {"cutoff": 7.0},
            {"ties": "cut"},
            {"tie_tolerance": 0.0},
            {"symprec": 0.1},
        )
    }
    changed.add(store_fingerprint(_source(n=19), SETTINGS))
    assert len(changed - {reference}) == 6


def test_cache_directory_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSGNN_CACHE", str(tmp_path / "cache"))
    assert build_store(_source(2), SETTINGS).path.parent == tmp_path / "cache"


def test_unusable_crystals_are_listed(tmp_path, small_chunks):
    source = _source(faults={3: "unreadable", 4: "overlap", 5: "unreadable", 19: "overlap"})
    store = _build(source, tmp_path)
    assert len(store) == 16
    assert [crystal_id for crystal_id, _ in store.skipped] == ["c-3", "c-4", "c-5", "c-19"]
    assert store.skipped[0][1] == "it cannot be read"
    assert "atoms 1 and 2 (counted from 1) are 0.01 Å apart" in store.skipped[1][1]
    assert "c-6" in store.ids and "c-3" not in store.ids
    with pytest.raises(UserError, match="4 of 20 crystals cannot be used; the first is c-3: it"):
        _build(source, tmp_path, strict=True)


def test_whatever_a_library_raises_skips_one_crystal(tmp_path, small_chunks):
    source = _source(faults={3: "bug", 9: "huge"})
    store = _build(source, tmp_path, max_atoms=100)
    assert len(store) == 18
    assert store.skipped == [
        ("c-3", "ZeroDivisionError: division by zero"),
        ("c-9", "it has 216 atoms; up to 100 are taken (`max_atoms`)"),
    ]
    assert len(_build(source, tmp_path)) == 19
    assert store_fingerprint(source, SETTINGS) != store_fingerprint(source, SETTINGS, 100)


def test_notes_say_what_to_know_of_crystals_that_are_used(tmp_path, small_chunks):
    source = _source(4, faults={1: "noted", 2: "far"})
    source.notes = ["one file is not read"]
    store = _build(source, tmp_path)
    assert len(store) == 4 and store.skipped == []
    assert store.notes == [
        ("", "one file is not read"),
        ("c-1", "read with care"),
        ("c-2", "no atom has a neighbour within 8 Å"),
    ]
    assert open_store(store.path).notes == store.notes
    # The same crystals, in another place and with other things beside them.
    source.name, source.notes = "elsewhere", []
    again = _build(source, tmp_path)
    assert again.path == store.path and again.source_name == "elsewhere"
    assert again.notes == store.notes[1:]


def test_a_neighbour_search_that_fails_on_many_is_made_one_by_one(tmp_path, monkeypatch):
    search = making.neighbour_lists

    def failing(crystals, settings):
        if any(crystal.id == "c-1" for crystal in crystals):
            raise OverflowError("too large")
        return search(crystals, settings)

    monkeypatch.setattr(making, "neighbour_lists", failing)
    store = _build(_source(4), tmp_path)
    assert store.ids.tolist() == ["c-0", "c-2", "c-3"]
    assert store.skipped == [("c-1", "OverflowError: too large")]


def test_labels_with_long_and_strange_names(tmp_path):
    source = _source(3)
    source.label_names = ("energy", "x" * 300, "größe/🙂" * 30)
    store = _build(source, tmp_path)
    assert all(np.isnan(store.labels(name)).all() for name in source.label_names[1:])


def test_duplicate_ids(tmp_path, small_chunks):
    items = [Item(id, 4.0 + k) for k, id in enumerate(["a", "b", "a", "c", "b", "d"])]
    store = _build(ListSource(items), tmp_path)
    assert store.ids.tolist() == ["a", "b", "c", "d"]
    assert store.skipped == [(id, "an earlier crystal has the same id") for id in "ab"]
    np.testing.assert_array_equal(store.lattice[:, 0, 0], [4, 5, 7, 9])
    assert store.node_offsets.tolist() == [0, 2, 4, 6, 8]
    expected = [neighbour_list(decode(items[k]), SETTINGS).distances for k in (0, 1, 3, 5)]
    np.testing.assert_array_equal(store.distances, np.concatenate(expected))


def test_sources_without_usable_crystals(tmp_path):
    with pytest.raises(UserError, match="listed crystals holds no crystals"):
        _build(ListSource([]), tmp_path)
    source = _source(2, faults={0: "unreadable", 1: "unreadable"})
    with pytest.raises(
        UserError,
        match="none of the 2 crystals can be used; the first: c-0: it cannot be read; c-1: it",
    ):
        _build(source, tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_unwritable_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="graph cache .*file.* cannot be written .*CRYSGNN_CACHE"):
        _build(_source(2), tmp_path / "file")


def test_progress(tmp_path, small_chunks):
    calls = []
    _build(_source(7), tmp_path, progress=lambda *done: calls.append(done))
    assert calls[0] == (0, 7) and calls[-1] == (7, 7)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_interrupted_build_keeps_finished_chunks(tmp_path, small_chunks):
    with pytest.raises(KeyboardInterrupt):
        _build(_source(), tmp_path, progress=_interrupt_after_nine)
    log, calls = tmp_path / "log", []
    store = _build(_source(log=log), tmp_path, progress=lambda *done: calls.append(done))
    assert calls[0] == (9, 20)
    assert log.read_text().split() == [f"c-{k}" for k in range(9, 20)]
    _assert_equal(store, _build(_source(), tmp_path / "fresh"))


def test_a_chunk_cut_short_is_made_again(tmp_path, small_chunks):
    partial = tmp_path / f"{store_fingerprint(_source(), SETTINGS)}.partial"

    with pytest.raises(KeyboardInterrupt):
        _build(_source(), tmp_path, progress=_interrupt_after_nine)
    chunk = sorted(partial.glob("*.npz"))[1]
    chunk.write_bytes(chunk.read_bytes()[:-100])
    store = _build(_source(), tmp_path)
    _assert_equal(store, _build(_source(), tmp_path / "fresh"))


def test_killed_build_goes_on(tmp_path, small_chunks):
    partial = tmp_path / f"{store_fingerprint(_source(), SETTINGS)}.partial"
    process = _spawn(tmp_path, None, 2)
    deadline = time.monotonic() + 60
    while len(list(partial.glob("*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    calls = []
    store = _build(_source(), tmp_path, progress=lambda *done: calls.append(done))
    assert calls[0][0] >= 5
    assert not partial.exists()
    _assert_equal(store, _build(_source(), tmp_path / "fresh"))


def test_two_builds_at_once_share_one_store(tmp_path):
    log = tmp_path / "log"
    rivals = [_spawn(tmp_path / "cache", log) for _ in range(2)]
    for process in rivals:
        process.join()
    assert [process.exitcode for process in rivals] == [0, 0]
    assert log.read_text().split() == [f"c-{k}" for k in range(20)]


def test_a_dead_worker_is_reported(tmp_path, small_chunks):
    with pytest.raises(UserError, match="listed crystals: a worker process died"):
        _build(_source(faults={7: "fatal"}), tmp_path, workers=2)


def test_a_script_without_a_guard_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import test_build
            from crysgnn_jax.graphs import build

            build.CHUNK_SIZE = 3
            build.build_store(
                test_build._source(), test_build.SETTINGS, cache_dir={str(tmp_path)!r}, workers=2
            )
            """
        )
    )
    here = Path(__file__).resolve()
    paths = os.pathsep.join([str(here.parent), str(here.parents[2])])
    result = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert 'a script does its work outside if __name__ == "__main__"' in result.stderr


def _flip(file, at=None):
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 16
    file.write_bytes(content)


def test_a_chunk_with_a_flipped_bit_is_made_again(tmp_path, small_chunks):
    partial = tmp_path / f"{store_fingerprint(_source(), SETTINGS)}.partial"
    with pytest.raises(KeyboardInterrupt):
        _build(_source(), tmp_path, progress=_interrupt_after_nine)
    chunk = sorted(partial.glob("*.npz"))[1]
    with zipfile.ZipFile(chunk) as file:
        member = max(file.infolist(), key=lambda member: member.file_size)
    # In the middle of an array: dates in the headers of a zip say nothing.
    _flip(chunk, member.header_offset + member.file_size // 2 + 100)
    log = tmp_path / "log"
    store = _build(_source(log=log), tmp_path)
    assert log.read_text().split()[:3] == ["c-3", "c-4", "c-5"]
    _assert_equal(store, _build(_source(), tmp_path / "fresh"))


def test_a_signal_ends_a_build_after_a_chunk(tmp_path, small_chunks):
    def interrupt(done, total):
        if done == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        _build(_source(), tmp_path, progress=interrupt)
    calls = []
    _build(_source(), tmp_path, progress=lambda *done: calls.append(done))
    assert calls[0] == (6, 20)


def _edit(**changes):
    def edit(file):
        meta = {**json.loads(file.read_text()), **changes}
        meta = {name: value for name, value in meta.items() if value is not None}
        file.write_text(json.dumps(meta))

    return edit


@pytest.mark.parametrize(
    "name, damage, reason",
    [
        ("senders.npy", Path.unlink, "senders.npy is missing"),
        ("senders.npy", lambda f: f.write_bytes(f.read_bytes()[:-10]), "senders.npy has"),
        ("distances.npy", _flip, "distances.npy holds other bytes than were written"),
        ("labels/energy.npy", _flip, "energy.npy holds other bytes"),
        ("meta.json", lambda f: f.write_bytes(f.read_bytes()[:-10]), "meta.json cannot be read"),
        ("meta.json", lambda f: f.write_text("[1]"), "meta.json cannot be read"),
        ("meta.json", Path.unlink, "it has no meta.json"),
        ("meta.json", _edit(files=None), "meta.json is damaged"),
        ("meta.json", _edit(settings={"cutoff": 7}), "meta.json is damaged"),
        ("meta.json", _edit(format=2), "has store format 2"),
    ],
)
def test_damaged_stores_are_built_again(tmp_path, caplog, name, damage, reason):
    store = _build(_source(), tmp_path)
    reference = _build(_source(), tmp_path / "fresh")
    damage(store.path / name)
    with pytest.raises(UserError, match=f"{reason}.*build it again"):
        open_store(store.path)
    assert not caplog.messages
    _assert_equal(_build(_source(), tmp_path), reference)
    (line,) = caplog.messages
    assert reason in line and line.endswith("; it is built again")


@pytest.mark.parametrize("suffix", ["", ".partial"])
@pytest.mark.parametrize("what", ["file", "link", "dangling"])
def test_what_is_in_the_place_of_a_store_is_left_alone(tmp_path, what, suffix):
    place = tmp_path / "cache" / (store_fingerprint(_source(), SETTINGS) + suffix)
    place.parent.mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("content")
    if what == "file":
        place.write_text("content")
    else:
        place.symlink_to(tmp_path / ("precious" if what == "link" else "nowhere"))
    with pytest.raises(UserError, match=f"{place.name} is a (file|link), where .*; remove it"):
        _build(_source(), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]
    assert place.is_symlink() or place.read_text() == "content"


def test_a_full_disk_is_told_and_the_build_goes_on_later(tmp_path, small_chunks, monkeypatch):
    append = build_module._append

    def full(file, piece, length):
        if "vectors" in file.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(file, piece, length)

    monkeypatch.setattr(build_module, "_append", full)
    with pytest.raises(UserError, match="graph cache .* cannot be written .No space.*make room"):
        _build(_source(), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(build_module, "CHUNK_SIZE", 3)
    calls = []
    store = _build(_source(), tmp_path, progress=lambda *done: calls.append(done))
    assert calls[0] == (20, 20)
    _assert_equal(store, _build(_source(), tmp_path / "fresh"))


def test_opening_what_is_no_store(tmp_path):
    with pytest.raises(UserError, match="is not a graph store"):
        open_store(tmp_path / "nothing")


def test_workers_need_no_jax():
    code = "import sys, crysgnn_jax.graphs.build; sys.exit('jax' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0
