"""The graph store: the graphs of a whole source, built once and memory-mapped afterwards.

A store is a directory, named by a fingerprint of its content, of NumPy columns::

    meta.json              what it was made from, its sizes, and the crystals left out
    ids.npy                [n] text
    reduced_formula.npy    [n] text
    space_group.npy        [n] uint8, international number
    lattice.npy            [n, 3, 3] float64, lattice vectors as rows, Å
    node_offsets.npy       [n + 1] int64: the atoms of crystal k are node_offsets[k:k + 2]
    edge_offsets.npy       [n + 1] int64, the same for its edges
    species.npy            [N] uint8, atomic numbers
    frac_coords.npy        [N, 3] float64
    degree.npy             [N] uint16, edges that each atom receives
    senders.npy            [E] int32, neighbour of each edge, counted within the crystal
    distances.npy          [E] float32, Å
    vectors.npy            [E, 3] float32, Å, from the receiver to the image of the sender
    site_offsets.npy       [n + 1] int64: the sites of crystal k, see `reduction`
    bond_offsets.npy       [n + 1] int64, the same for its bonds
    pair_offsets.npy       [n + 1] int64, the same for its kinds of pairs
    triplet_offsets.npy    [n + 1] int64, the same for its triplets, of graphs by bonds alone
    site.npy …             the ragged columns of `reduction.Reduction`
    labels/<name>.npy      [n] float64, NaN where the label is missing
    tags/<name>.npy        [n] text, empty where the tag is missing

The edges of a crystal are sorted by receiver, so ``degree`` says which receiver each has.

Work is cut into chunks of crystals. Every finished chunk is a file in ``<fingerprint>.partial``,
so that an interrupted build goes on where it stopped; the finished directory is renamed into
place as a whole. A lock on ``<fingerprint>.lock``, which the system releases if its holder dies,
keeps two builds of one store apart.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import urllib.parse
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from crysgnn_jax.data.crystal import Crystal
from crysgnn_jax.data.graphs import Graphs, Ragged, ReducedGraphs
from crysgnn_jax.data.neighbours import Neighbours, neighbour_lists
from crysgnn_jax.data.reduction import reduce_graphs
from crysgnn_jax.data.settings import FeaturiserSettings
from crysgnn_jax.data.source import Source
from crysgnn_jax.data.symmetry import space_group_number
from crysgnn_jax.errors import InvalidCrystal, UserError

FORMAT = 2
"""Raise this when a store of the same source and settings would come out different: also by the
constants of `neighbours`, `equivalence` and `reduction`."""

MAX_DEFAULT_WORKERS = 16
"""More processes than this take longer to start than they save, and 60 MB each."""

CHUNK_SIZE = 256
"""Crystals per chunk: about a fifth of a second of work, and a megabyte or two of graphs."""

_CRYSTAL_COLUMNS = ("ids", "reduced_formula", "space_group", "lattice")
_NODE_COLUMNS = ("species", "frac_coords", "degree")
_EDGE_COLUMNS = ("senders", "distances", "vectors")
_SITE_COLUMNS = ("site_species", "multiplicity", "site_degree")
_BOND_COLUMNS = ("bond_senders", "bond_distances", "bond_multiplicity")
_PAIR_COLUMNS = ("pair_receivers", "pair_senders", "pair_edges", "pair_multiplicity")
_TRIPLET_COLUMNS = (
    "triplet_senders",
    "triplet_receivers",
    "triplet_cosines",
    "triplet_multiplicity",
)

_RAGGED = {
    "n_nodes": (*_NODE_COLUMNS, "site"),
    "n_edges": _EDGE_COLUMNS,
    "n_sites": _SITE_COLUMNS,
    "n_bonds": _BOND_COLUMNS,
    "n_pairs": _PAIR_COLUMNS,
    "n_triplets": _TRIPLET_COLUMNS,
}
"""Number of entries of each crystal → the columns that have so many."""

_OFFSETS = {
    "node_offsets": "n_nodes",
    "edge_offsets": "n_edges",
    "site_offsets": "n_sites",
    "bond_offsets": "n_bonds",
    "pair_offsets": "n_pairs",
    "triplet_offsets": "n_triplets",
}

Progress = Callable[[int, int], None]
"""Called with the number of items done so far and in all."""


def _column(name: str) -> functools.cached_property:
    """The column of this name, memory-mapped when it is first asked for."""
    return functools.cached_property(lambda store: store._load(name))


class GraphStore:
    """A finished store, opened for reading.

    The columns are memory-mapped on first use; see the module's description of them.

    Attributes:
      path: the directory.
      fingerprint: of the source and the settings.
      source_name: name of the source it was made from.
      settings: how the graphs were made.
      label_names: the properties that `labels` knows.
      tag_names: the tags that `tags` knows.
      skipped: ``(id, reason)`` of each crystal that was left out.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any]):
        self.path = path
        self.fingerprint: str = meta["fingerprint"]
        self.source_name: str = meta["source"]
        self.settings = FeaturiserSettings(**meta["settings"])
        self.label_names: tuple[str, ...] = tuple(meta["label_names"])
        self.tag_names: tuple[str, ...] = tuple(meta["tag_names"])
        self.skipped: list[tuple[str, str]] = [(id, reason) for id, reason in meta["skipped"]]
        self._n_crystals: int = meta["n_crystals"]

    def __len__(self) -> int:
        return self._n_crystals

    def __repr__(self) -> str:
        return f"GraphStore({self.source_name!r}, {len(self)} crystals, {str(self.path)!r})"

    ids = _column("ids")
    reduced_formula = _column("reduced_formula")
    space_group = _column("space_group")
    lattice = _column("lattice")
    node_offsets = _column("node_offsets")
    edge_offsets = _column("edge_offsets")
    species = _column("species")
    frac_coords = _column("frac_coords")
    degree = _column("degree")
    senders = _column("senders")
    distances = _column("distances")
    vectors = _column("vectors")
    site_offsets = _column("site_offsets")
    bond_offsets = _column("bond_offsets")
    site = _column("site")
    site_species = _column("site_species")
    multiplicity = _column("multiplicity")
    site_degree = _column("site_degree")
    bond_senders = _column("bond_senders")
    bond_distances = _column("bond_distances")
    bond_multiplicity = _column("bond_multiplicity")

    @functools.cached_property
    def full(self) -> Graphs:
        """The graphs with every atom and edge."""
        edges = {"distances": self.distances, "vectors": self.vectors}
        offsets = self.node_offsets, self.edge_offsets
        return Graphs(*offsets, self.species, self.degree, self.senders, edges)

    @functools.cached_property
    def reduced(self) -> ReducedGraphs:
        """The graphs with one node for all equivalent atoms; their edges have no vectors."""
        return ReducedGraphs(
            node_offsets=self.site_offsets,
            edge_offsets=self.bond_offsets,
            species=self.site_species,
            degree=self.site_degree,
            senders=self.bond_senders,
            edges={"distances": self.bond_distances},
            atom_offsets=self.node_offsets,
            site=self.site,
            multiplicity=self.multiplicity,
            edge_multiplicity=self.bond_multiplicity,
            lists={
                "n_pair": self._list("pair", _PAIR_COLUMNS, of_nodes=_PAIR_COLUMNS[:2]),
                "n_triplet": self._list("triplet", _TRIPLET_COLUMNS, of_edges=_TRIPLET_COLUMNS[:2]),
            },
        )

    @functools.cached_property
    def n_nodes(self) -> np.ndarray:
        """``[n]`` int64, atoms of each crystal."""
        return np.diff(self.node_offsets)

    @functools.cached_property
    def n_edges(self) -> np.ndarray:
        """``[n]`` int64, edges of each crystal."""
        return np.diff(self.edge_offsets)

    def labels(self, name: str) -> np.ndarray:
        """``[n]`` float64, the label of each crystal; NaN where it has none.

        Raises:
          UserError: the store has no such label; lists those it has.
        """
        return self._named_column("labels", name, self.label_names)

    def tags(self, name: str) -> np.ndarray:
        """``[n]`` text, the tag of each crystal; empty where it has none.

        Raises:
          UserError: the store has no such tag; lists those it has.
        """
        return self._named_column("tags", name, self.tag_names)

    def _named_column(self, folder: str, name: str, known: Sequence[str]) -> np.ndarray:
        if name not in known:
            raise UserError(
                f"{self.source_name} has no {name!r} among its {folder}: "
                f"{', '.join(known) or 'it has none'}"
            )
        return self._load(_named_file(folder, name))

    def _list(self, name: str, columns: Sequence[str], **numbers_of: Sequence[str]) -> Ragged:
        loaded = {column: self._load(column) for column in columns}
        return Ragged(self._load(f"{name}_offsets"), loaded, **numbers_of)

    def _load(self, name: str) -> np.ndarray:
        return np.load(self.path / f"{name}.npy", mmap_mode="r")


def default_cache_dir() -> Path:
    """Where stores are kept: ``$CRYSGNN_CACHE``, or ``~/.cache/crysgnn_jax``."""
    return Path(os.environ.get("CRYSGNN_CACHE") or Path.home() / ".cache" / "crysgnn_jax")


def store_fingerprint(source: Source, settings: FeaturiserSettings) -> str:
    """Hex digest that is equal exactly when the stores of two sources are."""
    description = json.dumps([FORMAT, source.fingerprint(), _plain(settings)])
    return hashlib.blake2b(description.encode(), digest_size=16).hexdigest()


def open_store(path: str | Path) -> GraphStore:
    """The finished store in the directory ``path``.

    Raises:
      UserError: there is none, it has another format, or a file is missing or cut short.
    """
    path = Path(path)
    remedy = "build it again with build_store"
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        found = meta["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is not a graph store: it has no meta.json; {remedy}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path / 'meta.json'} cannot be read ({error}); {remedy}") from error
    if found != FORMAT:
        raise UserError(f"{path} has store format {found}, not {FORMAT}; {remedy}")
    for name, size in meta["files"].items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{path} is damaged: {name} is missing; {remedy}")
        if file.stat().st_size != size:
            raise UserError(
                f"{path} is damaged: {name} has {file.stat().st_size} bytes, not {size}; {remedy}"
            )
    return GraphStore(path, meta)


def build_store(
    source: Source,
    settings: FeaturiserSettings,
    *,
    cache_dir: str | Path | None = None,
    workers: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> GraphStore:
    """The graph store of ``source``: the one in the cache, or else a new one.

    Crystals that cannot be used are left out and listed in ``skipped``; so is a crystal whose id
    an earlier one of the source has.

    Args:
      source: the crystals.
      settings: how to make the graphs.
      cache_dir: directory of stores; `default_cache_dir` where not given.
      workers: processes to build with; one for each available core where not given, up to
        `MAX_DEFAULT_WORKERS`.
      strict: refuse a source of which any crystal is left out.
      progress: called with the numbers of items done and in all, in the calling process.

    Raises:
      UserError: the source is empty, none of its crystals can be used, one of them cannot and
        ``strict`` is set, the cache cannot be written, or a worker process died.
    """
    if len(source) == 0:
        raise UserError(f"{source.name} holds no crystals; check the path or the query")
    fingerprint = store_fingerprint(source, settings)
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    path = root / fingerprint
    store = _finished(path)
    if store is None:
        with _locked(root, fingerprint):
            # Another process may have finished it while this one waited for the lock.
            store = _finished(path)
            if store is None:
                workers = workers or min(_available_cores(), MAX_DEFAULT_WORKERS)
                store = _build(source, settings, path, workers, progress)
    if strict and store.skipped:
        crystal_id, reason = store.skipped[0]
        raise UserError(
            f"{source.name}: {len(store.skipped)} of {len(source)} crystals cannot be used; the "
            f"first is {crystal_id}: {reason}; mend or remove them, or build without strict"
        )
    return store


def _plain(settings: FeaturiserSettings) -> dict[str, Any]:
    """The settings as JSON values, such that equal settings (8 and 8.0) are the same text."""
    return {
        field.name: type(field.default)(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
    }


def _named_file(folder: str, name: str) -> str:
    """Column of a label or tag; names may hold characters that file names cannot."""
    return f"{folder}/{urllib.parse.quote(name, safe=' ()[]')}"


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _finished(path: Path) -> GraphStore | None:
    """The store at ``path``; none where it is missing or damaged, so that it is built again."""
    with contextlib.suppress(UserError):
        return open_store(path)
    return None


@contextlib.contextmanager
def _locked(root: Path, fingerprint: str) -> Iterator[None]:
    """Hold the lock of one store; wait for another process that holds it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = open(root / f"{fingerprint}.lock", "a+")
    except OSError as error:
        raise UserError(
            f"the graph cache {root} cannot be written ({error.strerror}); set CRYSGNN_CACHE or "
            "cache_dir to a directory that can"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _refuse_own_parent(file)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _refuse_own_parent(file: TextIO) -> None:
    """A worker imports the caller's script; without a guard that runs into `build_store` again,
    and worker and parent would wait for each other."""
    file.seek(0)
    is_worker = multiprocessing.current_process().name != "MainProcess"
    if is_worker and file.read() == str(os.getppid()):
        raise UserError(
            "a worker process runs the script that started it; put the script's work under "
            'if __name__ == "__main__":'
        )


def _build(
    source: Source,
    settings: FeaturiserSettings,
    path: Path,
    workers: int,
    progress: Progress | None,
) -> GraphStore:
    partial = path.with_name(f"{path.name}.partial")
    partial.mkdir(exist_ok=True)
    spans = [
        (start, min(start + CHUNK_SIZE, len(source))) for start in range(0, len(source), CHUNK_SIZE)
    ]
    chunk_files = {span: partial / "{:09d}-{:09d}.npz".format(*span) for span in spans}
    pending = {span: file for span, file in chunk_files.items() if not zipfile.is_zipfile(file)}
    done = len(source) - sum(stop - start for start, stop in pending)
    if progress is not None:
        progress(done, len(source))
    running = _run_chunks(source, settings, pending, min(workers, len(pending)))
    with contextlib.closing(running):
        for n_items in running:
            done += n_items
            if progress is not None:
                progress(done, len(source))

    draft = partial / "store"
    shutil.rmtree(draft, ignore_errors=True)
    chunks, skipped = _read_chunks(chunk_files.values())
    if not chunks:
        shutil.rmtree(partial)
        crystal_id, reason = skipped[0]
        raise UserError(
            f"{source.name}: none of the {len(skipped)} crystals can be used; the first is "
            f"{crystal_id}: {reason}"
        )
    meta = {
        "format": FORMAT,
        "source": source.name,
        "fingerprint": path.name,
        "settings": _plain(settings),
        "label_names": list(source.label_names),
        "skipped": skipped,
    }
    _assemble(chunks, draft, meta)
    # What is there can only be a damaged store.
    shutil.rmtree(path, ignore_errors=True)
    draft.rename(path)
    shutil.rmtree(partial)
    return open_store(path)


def _run_chunks(
    source: Source,
    settings: FeaturiserSettings,
    pending: Mapping[tuple[int, int], Path],
    workers: int,
) -> Iterator[int]:
    """Make the files of the pending chunks; yields the number of items of each finished one."""
    arguments = (
        (source.decode, source.items(start, stop), settings, tuple(source.label_names), file)
        for (start, stop), file in pending.items()
    )
    if workers <= 1:
        yield from (_make_chunk(*chunk) for chunk in arguments)
        return
    # Not forked: JAX may run threads in this process, and a fork could inherit their locks.
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        running = set()
        for chunk in arguments:
            running.add(executor.submit(_make_chunk, *chunk))
            # The items of a few chunks at a time are in memory, not those of the whole source.
            if len(running) > 2 * workers:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        yield from (future.result() for future in running)
    except BrokenProcessPool as error:
        raise UserError(
            f"{source.name}: a worker process died; either memory ran out (pass fewer workers) or "
            'a script does its work outside if __name__ == "__main__":; what is finished is kept'
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Settle a fresh worker process: deaf to Ctrl-C, and gone when its parent is."""
    # The parent decides what an interrupt means; the worker finishes its chunk.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Workers of a killed parent would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _make_chunk(
    decode: Callable[[Any], Crystal],
    items: Sequence[Any],
    settings: FeaturiserSettings,
    label_names: Sequence[str],
    file: Path,
) -> int:
    """Write the graphs of ``items`` to ``file``; returns the number of items."""
    decoded = [_decoded(decode, item) for item in items]
    usable = [crystal for crystal in decoded if isinstance(crystal, Crystal)]
    found = iter(neighbour_lists(usable, settings))
    rows, crystals, skipped = [], [], []
    for crystal in decoded:
        try:
            rows.append(_graph(_valid(crystal), _valid(next(found)), settings))
        except InvalidCrystal as error:
            skipped.append((error.crystal_id, error.reason))
        else:
            crystals.append(crystal)
    notes = {"skipped": skipped, "tags": [dict(crystal.tags) for crystal in crystals]}
    columns = {"notes": np.array(json.dumps(notes))}
    if rows:
        columns |= {
            name: np.concatenate([row[name] for row in rows])
            for name in (*_NODE_COLUMNS, *_EDGE_COLUMNS)
        }
        columns |= {
            name: np.stack([row[name] for row in rows])
            for name in (*_CRYSTAL_COLUMNS, "n_nodes", "n_edges")
        }
        reduction = reduce_graphs(
            *(columns[name] for name in ("n_nodes", "n_edges", "species", "degree")),
            *(columns[name] for name in ("senders", "distances")),
            # The networks that see angles are those that take bonds.
            columns["vectors"] if settings.rule == "bonds" else None,
        )
        columns |= reduction._asdict()
        columns["labels"] = np.array(
            [[crystal.labels.get(name, np.nan) for name in label_names] for crystal in crystals],
            np.float64,
        )
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    with open(draft, "wb") as stream:
        np.savez(stream, **columns)
    draft.replace(file)
    return len(items)


def _decoded(decode: Callable[[Any], Crystal], item: Any) -> Crystal | InvalidCrystal:
    """The crystal in an item, or why it cannot be used: to be told in the order of the items."""
    try:
        return decode(item)
    except InvalidCrystal as error:
        return error


def _valid(result: Any) -> Any:
    if isinstance(result, InvalidCrystal):
        raise result
    return result


def _graph(
    crystal: Crystal, neighbours: Neighbours, settings: FeaturiserSettings
) -> dict[str, np.ndarray]:
    """One crystal's share of each column.

    Raises:
      InvalidCrystal: it has no space group.
    """
    n_atoms = len(crystal.species)
    return {
        "ids": np.array(crystal.id),
        "reduced_formula": np.array(crystal.reduced_formula),
        "space_group": np.uint8(space_group_number(crystal, settings.symprec)),
        "lattice": crystal.lattice,
        "species": crystal.species,
        "frac_coords": crystal.frac_coords,
        "degree": np.bincount(neighbours.receivers, minlength=n_atoms).astype(np.uint16),
        "senders": neighbours.senders,
        "distances": neighbours.distances,
        "vectors": neighbours.vectors,
        "n_nodes": np.int64(n_atoms),
        "n_edges": np.int64(len(neighbours.senders)),
    }


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
            for count, names in _RAGGED.items():
                # Without duplicates, as nearly always, there is nothing to pick out and to copy.
                rows = ... if self.keep.all() else np.repeat(self.keep, arrays[count])
                for name in names:
                    yield name, arrays[name][rows]


def _assemble(chunks: Sequence[_Chunk], draft: Path, meta: dict[str, Any]) -> None:
    """Join the chunks to the store ``draft``; no more than one chunk's graphs are in memory."""
    draft.mkdir()
    columns = {
        name: np.concatenate([chunk.columns[name] for chunk in chunks])
        for name in (*_CRYSTAL_COLUMNS, *_RAGGED, "labels")
    }
    for name in _CRYSTAL_COLUMNS:
        np.save(draft / f"{name}.npy", columns[name])
    for name, count in _OFFSETS.items():
        np.save(draft / f"{name}.npy", np.concatenate([[0], np.cumsum(columns[count])]))
    lengths = {name: int(columns[n].sum()) for n, names in _RAGGED.items() for name in names}
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(draft / f"{name}.npy", "wb")) for name in lengths}
        for chunk in chunks:
            for name, piece in chunk.ragged():
                _append(files[name], piece, lengths[name])

    (draft / "labels").mkdir()
    for name, values in zip(meta["label_names"], columns["labels"].T):
        np.save(draft / f"{_named_file('labels', name)}.npy", np.ascontiguousarray(values))
    tags = [tags for chunk in chunks for tags in chunk.tags]
    tag_names = sorted({name for crystal_tags in tags for name in crystal_tags})
    (draft / "tags").mkdir()
    for name in tag_names:
        values = np.array([crystal_tags.get(name, "") for crystal_tags in tags])
        np.save(draft / f"{_named_file('tags', name)}.npy", values)

    meta |= {
        "n_crystals": len(columns["ids"]),
        "n_nodes": int(columns["n_nodes"].sum()),
        "n_edges": int(columns["n_edges"].sum()),
        "tag_names": tag_names,
        "files": {
            str(file.relative_to(draft)): file.stat().st_size for file in draft.rglob("*.npy")
        },
    }
    (draft / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _read_chunks(files: Iterable[Path]) -> tuple[list[_Chunk], list[tuple[str, str]]]:
    """The chunks with usable crystals, and ``(id, reason)`` of what is left out."""
    chunks, skipped, seen = [], [], set()
    for file in files:
        with np.load(file) as arrays:
            notes = json.loads(str(arrays["notes"]))
            skipped += [(crystal_id, reason) for crystal_id, reason in notes["skipped"]]
            if not notes["tags"]:
                continue
            columns = {name: arrays[name] for name in (*_CRYSTAL_COLUMNS, *_RAGGED, "labels")}
        keep = np.ones(len(columns["ids"]), bool)
        for k, crystal_id in enumerate(columns["ids"].tolist()):
            if crystal_id in seen:
                keep[k] = False
                skipped.append((crystal_id, "an earlier crystal has the same id"))
            seen.add(crystal_id)
        columns = {name: values[keep] for name, values in columns.items()}
        tags = [crystal_tags for crystal_tags, kept in zip(notes["tags"], keep) if kept]
        chunks.append(_Chunk(file, keep, columns, tags))
    return chunks, skipped


def _append(file: BinaryIO, piece: np.ndarray, length: int) -> None:
    """Append to a ``.npy`` file that will have ``length`` rows in the end."""
    if file.tell() == 0:
        header = {
            "descr": np.lib.format.dtype_to_descr(piece.dtype),
            "fortran_order": False,
            "shape": (length, *piece.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(file, header)
    # Rows one after the other, whatever the order in memory.
    piece.tofile(file)
