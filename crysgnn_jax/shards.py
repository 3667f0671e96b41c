"""Shards: some thousands of crystals in one file, of which every array is memory-mapped.

The layout is that of *safetensors*, so that anybody can read one: eight bytes of length, a JSON
header, and raw arrays one after the other. Texts, which that layout does not know, are two arrays:
``NAME.utf8`` has the bytes of all, and ``NAME.ends`` where each ends. What the shard is about
stands in the header, as JSON. The bytes of a file depend on what it holds alone.

A path may be local, or the address of any file system that fsspec knows, such as
``s3://bucket/shards/00000.safetensors``.
"""

import contextlib
import hashlib
import json
import mmap
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.cache import default_cache_dir, make_cache_dir
from crysgnn_jax.checksums import checksums_of
from crysgnn_jax.errors import UserError

_ABOUT = "about"
"""Of the header's metadata, the only entry: what has several has them in no certain order."""

UTF8, ENDS = ".utf8", ".ends"
"""After the name of texts, their bytes, and where each ends."""

_TYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}
"""Names of safetensors → types of NumPy."""

_ADDRESS = re.compile(r"([\w+.-]+::)*[\w+.-]+://")

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Kinds of addresses whose package an extra of this one installs."""

_CAN_ADVISE = all(hasattr(mmap, f"MADV_{name}") for name in ("WILLNEED", "RANDOM", "DONTNEED"))
"""Not on Windows, where files are read all the same."""

_LONGEST_HEADER = 100_000_000
"""Bytes, as of safetensors: what claims more is no such file."""


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is an address, ``s3://…``, that fsspec reads."""
    return _ADDRESS.match(str(path)) is not None


def narrow(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest type that holds all of them; others as they are."""
    if values.dtype.kind not in "iu":
        return values
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    kinds = ("u1", "<u2", "<u4", "<u8") if least >= 0 else ("i1", "<i2", "<i4", "<i8")
    fits = lambda kind: np.iinfo(kind).min <= least and most <= np.iinfo(kind).max
    return values.astype(next(kind for kind in kinds if fits(kind)), copy=False)


def write_shard(
    path: str | os.PathLike,
    columns: Mapping[str, np.ndarray],
    texts: Mapping[str, Sequence[str]],
    about: Mapping[str, Any],
    *,
    sums: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Write a shard, whole or not at all.

    Args:
      path: of the file; its folder is made.
      columns: name → array, kept in the types that they have (`narrow` makes them small).
      texts: name → one text for each crystal; there is at least one of these, ``ids``.
      about: what else to keep of the shard, JSON.
      sums: of another file, for the checksums; it is written first, so that no shard that is there
        lacks it.

    Returns:
      What `curated.write_curated` tells of the file: the number of its crystals, its size, its
      checksums as of `checksums`, and a digest of its bytes.

    Raises:
      OSError: it cannot be written.
    """
    from safetensors.numpy import save

    arrays = {}
    for name, values in columns.items():
        arrays[name] = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    for name, entries in texts.items():
        encoded = [text.encode() for text in entries]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        arrays[name + UTF8] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[name + ENDS] = narrow(ends)
    # safetensors sorts the arrays, by size of their type and then by name.
    content = save(arrays, {_ABOUT: json.dumps(about, sort_keys=True)})
    checked = checksums_of(content)
    if sums is not None:
        write_bytes(sums, json.dumps(checked).encode())
    write_bytes(path, content)
    return {
        "crystals": len(next(iter(texts.values()))),
        **checked,
        "digest": hashlib.blake2b(content, digest_size=16).hexdigest(),
    }


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, local or remote, so that it is there whole or not at all; its folder is made.

    Raises:
      OSError: it cannot be written.
    """
    if is_remote(path):
        files, inner = file_system(path)
        # An object of a store is there when it is whole; other systems have no better.
        files.makedirs(inner.rpartition("/")[0], exist_ok=True)
        files.pipe_file(inner, content)
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Others may be writing the same, on other machines too.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def file_system(path: str | os.PathLike) -> tuple[Any, str]:
    """What fsspec makes of an address: the file system, and the path within it.

    Raises:
      UserError: there is no such file system, or its package is not installed.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(str(path))
    except ImportError as error:
        extra = _EXTRAS.get(kind_of(path))
        remedy = f"; pip install 'crysgnn-jax[{extra}]'" if extra else ""
        raise UserError(f"{path}: {_one_line(error)}{remedy}") from None
    except ValueError as error:
        raise UserError(f"{path}: {_one_line(error)}") from None


def kind_of(path: str | os.PathLike) -> str:
    """The file system at the end of an address: ``s3`` of ``simplecache::s3://bucket/set``."""
    return str(path).rpartition("::")[2].partition("://")[0]


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def local_copy(path: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> Path:
    """The file on a local disk: a remote one is fetched once, and again when it has changed.

    Args:
      path: local, or an address.
      cache_dir: where copies are kept; `default_cache_dir` where not given.

    Raises:
      UserError: it is not there, or cannot be fetched.
      OSError: the copy cannot be written.
    """
    if not is_remote(path):
        return Path(path)
    files, inner = file_system(path)
    try:
        state = f"{path}\0{files.ukey(inner)}"
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except Exception as error:  # of any file system
        raise UserError(f"{path} cannot be read ({_one_line(error)})") from error
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    make_cache_dir(root)
    name = hashlib.blake2b(state.encode(), digest_size=16).hexdigest()
    copy = root / "fetched" / f"{name}-{inner.rpartition('/')[2]}"
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        draft = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}.tmp")
        try:
            files.get_file(inner, str(draft))
            os.replace(draft, copy)
        except OSError:
            raise
        except Exception as error:
            raise UserError(f"{path} cannot be read ({_one_line(error)})") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
    return copy


class Shard:
    """A shard, opened for reading. Its arrays are read from the disk as they are used.

    Args:
      path: of the file, local or an address.
      cache_dir: where a remote one is kept, as of `local_copy`.

    Attributes:
      path: as given.
      about: what `write_shard` was told.
      text_names: those that `texts` knows.

    Raises:
      UserError: it is missing, cut, or no shard.

    Example:
      ``Shard("set/shards/00000.safetensors").columns["lattice"]``
    """

    def __init__(self, path: str | os.PathLike, cache_dir: str | os.PathLike | None = None):
        self.path = str(path)
        try:
            with open(local_copy(path, cache_dir), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                entries = _header(file.read, size)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise UserError(f"{path} is missing") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged, or no shard: {error}") from None
        start, metadata, self._entries = entries
        self._start: int = start
        self._places = {
            name: (start + place, kind.itemsize * int(np.prod(shape[1:], dtype=np.int64)))
            for name, (kind, shape, place) in self._entries.items()
        }
        self.about: dict[str, Any] = metadata
        self._names = dict.fromkeys(n for n in self._entries if not n.endswith((UTF8, ENDS)))
        self.text_names = tuple(
            sorted(name.removesuffix(ENDS) for name in self._entries if name.endswith(ENDS))
        )

    def __len__(self) -> int:
        """Number of crystals."""
        return self._entries[self.text_names[0] + ENDS][1][0] if self.text_names else 0

    def __repr__(self) -> str:
        return f"Shard({self.path!r}, {len(self)} crystals)"

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        """Name → array, read-only."""
        return _Columns(self, self._names)

    def texts(self, name: str) -> np.ndarray:
        """``[n]`` text, those of this name.

        Raises:
          KeyError: there are none of this name.
        """
        return decoded(*self.raw_texts(name))

    def raw_texts(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The same undecoded: uint8, the bytes of all; and ``[n]``, where each ends."""
        return self.array(name + UTF8), self.array(name + ENDS)

    def array(self, name: str) -> np.ndarray:
        """A column, or one of the arrays of a text, ``NAME.utf8`` and ``NAME.ends``."""
        kind, shape, start = self._entries[name]
        n = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._map, kind, n, self._start + start).reshape(shape)

    def expect(self, name: str, start: int, stop: int) -> None:
        """Tell the system that these entries of a column are about to be read, so that it fetches
        them while it is told of others."""
        if _CAN_ADVISE:
            first, size = self._places[name]
            begin = first + size * start
            begin -= begin % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, begin, first + size * stop - begin)

    def expect_pieces(self) -> None:
        """Tell the system that only what `expect` names will be read: by itself it reads on."""
        if _CAN_ADVISE:
            self._map.madvise(mmap.MADV_RANDOM)

    def release(self) -> None:
        """Give back the memory that what has been read takes of this process. The system keeps it
        as long as it has room."""
        if _CAN_ADVISE:
            self._map.madvise(mmap.MADV_DONTNEED)


def _header(
    read: Callable[[int], bytes], size: int
) -> tuple[int, dict[str, Any], dict[str, tuple[np.dtype, tuple[int, ...], int]]]:
    """Where the arrays start, what the shard is about, and name → type, shape and place of each.

    Raises:
      ValueError: (or another of the kinds that `Shard` expects) it is not the header of a whole
        shard of this size.
    """
    length = int.from_bytes(read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, _LONGEST_HEADER):
        raise ValueError("it has no header of safetensors, or is cut")
    header = json.loads(read(length))
    about = json.loads(header.pop("__metadata__")[_ABOUT])
    entries = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        kind = np.dtype(_TYPES[entry["dtype"]])
        shape = tuple(entry["shape"])
        n = int(np.prod(shape, dtype=np.int64))
        if not 0 <= start <= stop <= size or stop - start != n * kind.itemsize:
            raise ValueError(f"{name} does not have the size that its header tells")
        entries[name] = (kind, shape, start)
    whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != whole:
        raise ValueError(f"it has {size} bytes, not {whole}")
    return 8 + length, about, entries


class _Columns(Mapping[str, np.ndarray]):
    """The columns of a shard by name. A shard does not hold its own, for its file is closed as soon
    as nobody has it, and a ring of two would be had for longer."""

    def __init__(self, shard: Shard, names: Mapping[str, Any]):
        self._shard = shard
        self._names = names

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._shard.array(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def decoded(utf8: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """``[n]`` text, from the bytes of all and where each ends."""
    whole = utf8.tobytes()
    stops = ends.tolist()
    return np.array([whole[a:b].decode() for a, b in zip([0, *stops], stops)], dtype=str)
