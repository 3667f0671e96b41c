"""Building a graph store: workers, chunks, resuming.

Work is cut into chunks of crystals. Every finished chunk is a file in ``<fingerprint>.partial``,
so that an interrupted build goes on where it stopped; the finished directory is renamed into
place as a whole. A lock on ``<fingerprint>.lock``, which the system releases if its holder dies,
keeps two builds of one store apart.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from crysgnn_jax import processes, stopping
from crysgnn_jax.cache import default_cache_dir, locked, make_cache_dir
from crysgnn_jax.checksums import checksums
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.curated import Curated
from crysgnn_jax.crystals.sources import Combined, Source, WithoutLabels, notes_of
from crysgnn_jax.errors import NoUsableCrystal, UserError
from crysgnn_jax.files import of_the_disk
from crysgnn_jax.graphs.joined_store import JoinedStore, Member
from crysgnn_jax.graphs.making import make_graphs
from crysgnn_jax.graphs.settings import MAX_ATOMS, FeaturiserSettings
from crysgnn_jax.graphs.sharded_store import ShardedStore
from crysgnn_jax.graphs.store import (
    CONTENT,
    CRYSTAL_COLUMNS,
    FORMAT,
    OFFSETS,
    RAGGED,
    GraphStore,
    column_file,
    open_store,
    write_meta,
)
from crysgnn_jax.workers import default_workers, settle_worker

_log = logging.getLogger(__name__)

CHUNK_SIZE = 256
"""Crystals per chunk: about a fifth of a second of work, and a megabyte or two of graphs."""

Progress = Callable[[int, int], None]
"""Called with the number of items done so far and in all."""


def store_fingerprint(
    source: Source, settings: FeaturiserSettings, max_atoms: int = MAX_ATOMS
) -> str:
    """Hex digest that is equal exactly when the stores of two sources are."""
    parts = [CONTENT, source.fingerprint(), settings.plain()]
    description = json.dumps(parts if max_atoms == MAX_ATOMS else [*parts, max_atoms])
    return hashlib.blake2b(description.encode(), digest_size=16).hexdigest()


def build_store(
    source: Source,
    settings: FeaturiserSettings,
    *,
    cache_dir: str | Path | None = None,
    workers: int | None = 1,
    strict: bool = False,
    max_atoms: int = MAX_ATOMS,
    progress: Progress | None = None,
) -> GraphStore:
    """The graph store of ``source``: the one in the cache, or else a new one. A curated set is its
    own store where its graphs were made with these settings.

    Crystals that cannot be used are left out and listed in ``skipped``; so is a crystal whose id
    an earlier one of the source has. What a user should know of those that are used is in
    ``notes``.

    Args:
      source: the crystals.
      settings: how to make the graphs.
      cache_dir: directory of stores; `default_cache_dir` where not given.
      workers: processes to build with. With 1, the default, none is started, so that a notebook,
        or a script without ``if __name__ == "__main__"``, just works; None: one for each available
        core, up to `workers.MAX_DEFAULT_WORKERS`, as the commands do.
      strict: refuse a source of which any crystal is left out.
      max_atoms: crystals with more are left out.
      progress: called with the numbers of items done and in all, in the calling process.

    Raises:
      UserError: the source is empty, none of its crystals can be used, one of them cannot and
        ``strict`` is set, the cache cannot be written, or a worker process died.
    """
    if len(source) == 0:
        raise UserError(f"{source.name} holds no crystals; check the path or the query")
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    build = lambda part: _built(part, settings, root, workers, max_atoms, progress)
    store = _ready(source, settings, root, max_atoms, build)
    if store is None:
        store = build(source)
    if strict and store.skipped:
        crystal_id, reason = store.skipped[0]
        raise UserError(
            f"{source.name}: {len(store.skipped)} of {len(source)} crystals cannot be used; the "
            f"first is {crystal_id}: {reason}; mend or remove them, or leave out `strict`"
        )
    return store


def _ready(
    source: Source,
    settings: FeaturiserSettings,
    root: Path,
    max_atoms: int,
    build: Callable[[Source], GraphStore],
) -> GraphStore | None:
    """The store that a curated set is by itself, also where it is used together with other
    crystals; None where its graphs are others than are asked for, or ``source`` is no such set.

    Args:
      build: makes a store.
    """
    ready = lambda part: _ready(part, settings, root, max_atoms, build)
    place = lambda: _beside(root, store_fingerprint(source, settings, max_atoms))
    whole = lambda: build(source)
    if isinstance(source, Curated):
        kept = source.curated
        if kept.content != CONTENT or kept.settings != settings.plain():
            return None
        store = ShardedStore(kept, *place(), whole, root)
        return store if store.n_nodes.max() <= max_atoms else None
    members = []
    if isinstance(source, WithoutLabels):
        if (found := ready(source.source)) is not None:
            members = [Member(found, without_labels=True)]
    elif isinstance(source, Combined):
        parts = [
            (part, repeated)
            for part, repeated in zip(source.sources, source.repeated_ids())
            if len(part)
        ]
        stores = [ready(part) for part, _ in parts]
        if any(store is not None for store in stores):
            try:
                members = [
                    Member(build(part) if store is None else store, f"{part.name}/", repeated)
                    for store, (part, repeated) in zip(stores, parts)
                ]
            except NoUsableCrystal:
                return None  # one part is of no use, and all together are as any crystals are
    return JoinedStore(members, source.name, *place(), notes_of(source), whole) if members else None


def _beside(root: Path, fingerprint: str) -> tuple[str, Path]:
    """The fingerprint of a store that is read from elsewhere, and the folder for what is kept
    beside it."""
    path = root / f"{fingerprint}.beside"
    with _writing(root):
        make_cache_dir(root)
        path.mkdir(exist_ok=True)
    return fingerprint, path


def _built(
    source: Source,
    settings: FeaturiserSettings,
    root: Path,
    workers: int | None,
    max_atoms: int,
    progress: Progress | None,
) -> GraphStore:
    """The store in the cache, or else a new one."""
    fingerprint = store_fingerprint(source, settings, max_atoms)
    path = root / fingerprint
    # Of the processes of a run, the first one alone: locks may not reach from machine to machine.
    # Those on a machine that does not see its files make their own.
    with processes.in_turn():
        store = _finished(path, quiet=True)
        if store is None:
            with _locked(root, fingerprint):
                # Another process may have finished it while this one waited for the lock.
                store = _finished(path)
                if store is None:
                    workers = workers or default_workers()
                    store = _build(source, settings, path, workers, max_atoms, progress)
    # The same crystals may lie elsewhere by now, with other things beside them.
    store.source_name = source.name
    store.notes = [*(("", note) for note in notes_of(source)), *(x for x in store.notes if x[0])]
    return store


def _finished(path: Path, *, quiet: bool = False) -> GraphStore | None:
    """The store at ``path``; none where it is missing or damaged, so that it is built again,
    which is said unless ``quiet``.

    Raises:
      UserError: something else is in its place.
    """
    if not os.path.lexists(path):
        return None
    _require_folder(path)
    try:
        return open_store(path)
    except UserError as error:
        if quiet:
            return None
        found = str(error).removesuffix("; build it again with build_store")
        _log.warning("%s; it is built again", found)
        return None


def _require_folder(path: Path) -> None:
    """What is in the place of a store, or of the chunks of one, would be written to or deleted."""
    if path.is_symlink() or not path.is_dir():
        what = "a link" if path.is_symlink() else "a file"
        raise UserError(f"{path} is {what}, where the graph cache has a directory; remove it")


@contextlib.contextmanager
def _locked(root: Path, fingerprint: str) -> Iterator[None]:
    """Hold the lock of one store; wait for another process that holds it."""
    with contextlib.ExitStack() as stack:
        try:
            make_cache_dir(root)
            lock = locked(root / f"{fingerprint}.lock", on_wait=_refuse_own_parent)
            stack.enter_context(lock)
            stack.enter_context(_writing(root))
        except OSError as error:
            raise _unwritable(root, error) from error
        yield


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not of_the_disk(error):
            raise
        raise _unwritable(root, error) from error


def _unwritable(root: Path, error: OSError) -> UserError:
    remedy = "set CRYSGNN_CACHE or `cache` to a directory that can"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = f"make room there, and the same command goes on, or {remedy}"
    return UserError(f"the graph cache {root} cannot be written ({error.strerror}); {remedy}")


_BUILDER = "CRYSGNN_BUILDER"
"""Environment variable that tells worker processes by which process they were started."""


def _refuse_own_parent() -> None:
    """A worker imports the caller's script; without a guard that runs into `build_store` again,
    and worker and parent would wait for each other."""
    is_worker = multiprocessing.current_process().name != "MainProcess"
    if is_worker and os.environ.get(_BUILDER) == str(os.getppid()):
        raise UserError(
            "a worker process runs the script that started it; put the script's work under "
            'if __name__ == "__main__":, or build with workers=1'
        )


def _build(
    source: Source,
    settings: FeaturiserSettings,
    path: Path,
    workers: int,
    max_atoms: int,
    progress: Progress | None,
) -> GraphStore:
    partial = path.with_name(f"{path.name}.partial")
    if os.path.lexists(partial):
        _require_folder(partial)
    partial.mkdir(exist_ok=True)
    # Of builds that were killed, or had no room.
    for draft in partial.glob("*.tmp"):
        draft.unlink()
    spans = [
        (start, min(start + CHUNK_SIZE, len(source))) for start in range(0, len(source), CHUNK_SIZE)
    ]
    chunk_files = {span: partial / "{:09d}-{:09d}.npz".format(*span) for span in spans}
    pending = {span: file for span, file in chunk_files.items() if not _is_whole(file)}
    done = len(source) - sum(stop - start for start, stop in pending)
    if progress is not None:
        progress(done, len(source))
    running: Any = _run_chunks(source, settings, pending, min(workers, len(pending)), max_atoms)
    # A chunk under way is finished before a signal ends the process: its workers would be left.
    with stopping.graceful(), contextlib.closing(running):
        for n_items in running:
            done += n_items
            if progress is not None:
                progress(done, len(source))
            stopping.check()

    draft = partial / "store"
    shutil.rmtree(draft, ignore_errors=True)
    chunks, skipped, notes = _read_chunks(chunk_files.values())
    if not chunks:
        shutil.rmtree(partial)
        listed = "; ".join(f"{crystal_id}: {reason}" for crystal_id, reason in skipped[:3])
        raise NoUsableCrystal(
            f"{source.name}: none of the {len(skipped)} crystals can be used; the first: {listed}"
            if len(skipped) > 1
            else f"{source.name}: its only crystal cannot be used: {listed}",
            skipped,
        )
    meta = {
        "format": FORMAT,
        "source": source.name,
        "fingerprint": path.name,
        "settings": settings.plain(),
        "label_names": list(source.label_names),
        "skipped": skipped,
        "notes": [*(["", note] for note in notes_of(source)), *notes],
    }
    _assemble(chunks, draft, meta)
    # What is there can only be a damaged store.
    shutil.rmtree(path, ignore_errors=True)
    draft.rename(path)
    shutil.rmtree(partial)
    return open_store(path)


def _is_whole(chunk: Path) -> bool:
    """Whether a chunk is there, and every array of it as it was written."""
    try:
        with zipfile.ZipFile(chunk) as file:
            return file.testzip() is None
    except FileNotFoundError:
        return False
    except Exception:  # of many kinds, depending on which byte is wrong
        return False


def _run_chunks(
    source: Source,
    settings: FeaturiserSettings,
    pending: Mapping[tuple[int, int], Path],
    workers: int,
    max_atoms: int,
) -> Iterator[int]:
    """Make the files of the pending chunks; yields the number of items of each finished one."""
    arguments = (
        (
            *(source.decode, source.items(start, stop), settings, tuple(source.label_names)),
            *(max_atoms, file),
        )
        for (start, stop), file in pending.items()
    )
    if workers <= 1:
        yield from (_make_chunk(*chunk) for chunk in arguments)
        return
    os.environ[_BUILDER] = str(os.getpid())
    # Not forked: JAX may run threads in this process, and a fork could inherit their locks.
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=settle_worker
    )
    try:
        running: set[Future] = set()
        for chunk in arguments:
            # The first ones start the workers, whose imports no signal is to disturb.
            with stopping.held_back():
                running.add(executor.submit(_make_chunk, *chunk))
            # The items of a few chunks at a time are in memory, not those of the whole source.
            if len(running) > 2 * workers:
                finished, running = _some_of(running)
                yield from (future.result() for future in finished)
        while running:
            finished, running = _some_of(running)
            yield from (future.result() for future in finished)
    except BrokenProcessPool as error:
        # A signal to the whole group of processes ends the workers.
        if stopping.is_coming():
            stopping.check()
        raise UserError(
            f"{source.name}: a worker process died; either memory ran out (pass fewer workers) or "
            'a script does its work outside if __name__ == "__main__":; what is finished is kept'
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)
        del os.environ[_BUILDER]


def _some_of(running: set[Future]) -> tuple[set[Future], set[Future]]:
    """Wait for some chunks: those that are finished, and the others.

    Raises:
      Stopped: a signal came.
    """
    while True:
        found = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
        if found.done:
            return found.done, found.not_done
        stopping.check()


def _make_chunk(
    decode: Callable[[Any], Crystal],
    items: Sequence[Any],
    settings: FeaturiserSettings,
    label_names: Sequence[str],
    max_atoms: int,
    file: Path,
) -> int:
    """Write the graphs of ``items`` to ``file``; returns the number of items."""
    made = make_graphs(decode, items, settings, label_names, max_atoms)
    notes = {"skipped": made.skipped, "notes": made.notes, "tags": made.tags}
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    with open(draft, "wb") as stream:
        np.savez(stream, notes=np.array(json.dumps(notes)), **made.columns)
    draft.replace(file)
    return len(items)


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """A finished chunk, less what was found to be a duplicate.

    Attributes:
      file: where its columns are.
      keep: ``[n]`` bool, the crystals that go into the store.
      columns: the columns with one entry per crystal that is kept, labels included.
      tags: the tags of the crystals that are kept.
    """

    file: Path
    keep: np.ndarray
    columns: Mapping[str, np.ndarray]
    tags: Sequence[Mapping[str, str]]

    def ragged(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and values of the columns with several entries per crystal, of the kept ones."""
        with np.load(self.file) as arrays:
            for count, names in RAGGED.items():
                # Without duplicates, as nearly always, there is nothing to pick out and to copy.
                rows = ... if self.keep.all() else np.repeat(self.keep, arrays[count])
                for name in names:
                    yield name, arrays[name][rows]


def _assemble(chunks: Sequence[_Chunk], draft: Path, meta: dict[str, Any]) -> None:
    """Join the chunks to the store ``draft``; no more than one chunk's graphs are in memory."""
    draft.mkdir()
    columns = {
        name: np.concatenate([chunk.columns[name] for chunk in chunks])
        for name in (*CRYSTAL_COLUMNS, *RAGGED, "labels")
    }
    for name in CRYSTAL_COLUMNS:
        _save(draft / f"{name}.npy", columns[name])
    for name, count in OFFSETS.items():
        _save(draft / f"{name}.npy", np.concatenate([[0], np.cumsum(columns[count])]))
    lengths = {name: int(columns[n].sum()) for n, names in RAGGED.items() for name in names}
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(draft / f"{name}.npy", "wb")) for name in lengths}
        for chunk in chunks:
            for name, piece in chunk.ragged():
                _append(files[name], piece, lengths[name])

    (draft / "labels").mkdir()
    for name, values in zip(meta["label_names"], columns["labels"].T):
        _save(draft / f"{column_file('labels', name)}.npy", values)
    tags = [tags for chunk in chunks for tags in chunk.tags]
    tag_names = sorted({name for crystal_tags in tags for name in crystal_tags})
    (draft / "tags").mkdir()
    for name in tag_names:
        values = np.array([crystal_tags.get(name, "") for crystal_tags in tags])
        _save(draft / f"{column_file('tags', name)}.npy", values)

    names = sorted(str(file.relative_to(draft)) for file in draft.rglob("*.npy"))
    meta |= {
        "n_crystals": len(columns["ids"]),
        "n_nodes": int(columns["n_nodes"].sum()),
        "n_edges": int(columns["n_edges"].sum()),
        "tag_names": tag_names,
        "files": checksums(draft, names),
    }
    write_meta(draft, meta)


def _read_chunks(
    files: Iterable[Path],
) -> tuple[list[_Chunk], list[tuple[str, str]], list[tuple[str, str]]]:
    """The chunks with usable crystals, ``(id, reason)`` of what is left out, and ``(id, note)``."""
    chunks, skipped, remarks, seen = [], [], [], set()
    for file in files:
        with np.load(file) as arrays:
            notes = json.loads(str(arrays["notes"]))
            skipped += [(crystal_id, reason) for crystal_id, reason in notes["skipped"]]
            remarks += [(crystal_id, note) for crystal_id, note in notes["notes"]]
            if not notes["tags"]:
                continue
            columns = {name: arrays[name] for name in (*CRYSTAL_COLUMNS, *RAGGED, "labels")}
        keep = np.ones(len(columns["ids"]), bool)
        for k, crystal_id in enumerate(columns["ids"].tolist()):
            if crystal_id in seen:
                keep[k] = False
                skipped.append((crystal_id, "an earlier crystal has the same id"))
            seen.add(crystal_id)
        columns = {name: values[keep] for name, values in columns.items()}
        tags = [crystal_tags for crystal_tags, kept in zip(notes["tags"], keep) if kept]
        chunks.append(_Chunk(file, keep, columns, tags))
    return chunks, skipped, remarks


def _append(file: BinaryIO, piece: np.ndarray, length: int) -> None:
    """Append to a ``.npy`` file that will have ``length`` rows in the end."""
    if file.tell() == 0:
        header = {
            "descr": np.lib.format.dtype_to_descr(piece.dtype),
            "fortran_order": False,
            "shape": (length, *piece.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(file, header)
    # Rows one after the other, whatever the order in memory; and not by `tofile`, which does not
    # tell why a disk takes no more.
    file.write(piece.tobytes())


def _save(file: Path, column: np.ndarray) -> None:
    """What `np.save` does, but for the reason that it gives where it cannot."""
    with open(file, "wb") as stream:
        _append(stream, column, len(column))
