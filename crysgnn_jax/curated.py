"""Curated sets: crystals in shards, with a table of contents.

A set is a directory, local or at an address that fsspec knows::

    curated.json              what it was made from, and its shards with sizes and checksums; the
                              last file that is written
    shards/00000.safetensors  the crystals and their reduced graphs, see `shards`

A shard has the columns of `graphs.store` under the names that they have there, without those of the
whole graphs' edges; ``n_nodes``, ``n_edges``, ``n_sites``, ``n_bonds`` and ``n_pairs`` in the place
of offsets; ``labels/NAME``, float64, NaN where the label is missing; and the texts ``ids``,
``reduced_formula`` and ``tags/NAME``, empty where the tag is missing. Whole numbers are in the
smallest type that holds them. A label or tag that no crystal of a shard has may be left out there.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crysgnn_jax.checksums import first_damaged
from crysgnn_jax.errors import UserError
from crysgnn_jax.shards import file_system, is_remote, write_bytes

CURATED = "curated.json"

FORMAT = 1
"""Raise this when sets are kept in another way."""


@dataclasses.dataclass(frozen=True)
class CuratedSet:
    """What ``curated.json`` says.

    Attributes:
      path: the directory, or its address.
      fingerprint: of the content of all shards.
      content: `graphs.store.CONTENT` of the graphs in it.
      settings: of the graphs, the fields of `graphs.settings.FeaturiserSettings`.
      label_names: properties for which a crystal may carry a value.
      tag_names: likewise of tags.
      shards: of each, ``file`` within the directory, and what `shards.write_shard` returned.
      about: what else its maker tells.
    """

    path: str
    fingerprint: str
    content: int
    settings: Mapping[str, Any]
    label_names: tuple[str, ...]
    tag_names: tuple[str, ...]
    shards: tuple[Mapping[str, Any], ...]
    about: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of crystals."""
        return sum(shard["crystals"] for shard in self.shards)

    def shard_path(self, number: int) -> str:
        """Of one of the shards."""
        return f"{self.path.rstrip('/')}/{self.shards[number]['file']}"


def write_curated(
    path: str | os.PathLike,
    shards: Sequence[Mapping[str, Any]],
    *,
    content: int,
    settings: Mapping[str, Any],
    label_names: Sequence[str] = (),
    tag_names: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> CuratedSet:
    """Write ``curated.json`` of a set whose shards are all there.

    Args:
      path: the directory, or its address.
      shards: in their order, as in `CuratedSet`.
      content: as in `CuratedSet`, and so the others.

    Raises:
      OSError: it cannot be written.
    """
    entries = tuple(dict(shard) for shard in shards)
    parts = [FORMAT, content, settings, [shard["digest"] for shard in entries]]
    out = CuratedSet(
        path=str(path),
        fingerprint=_digest(parts),
        content=content,
        settings=dict(settings),
        label_names=tuple(label_names),
        tag_names=tuple(tag_names),
        shards=entries,
        about=dict(about or {}),
    )
    text = {"format": FORMAT, **dataclasses.asdict(out)}
    del text["path"]  # a set may be moved
    text = json.loads(json.dumps(text))
    whole = json.dumps({**text, "checksum": _digest(text)}, indent=1, sort_keys=True)
    write_bytes(f"{str(path).rstrip('/')}/{CURATED}", whole.encode() + b"\n")
    return out


def is_curated(path: str | os.PathLike) -> bool:
    """Whether a directory, or an address, holds a curated set."""
    if not is_remote(path):
        return (Path(path) / CURATED).is_file()
    files, inner = file_system(path)
    return files.exists(f"{inner.rstrip('/')}/{CURATED}")


def open_curated(path: str | os.PathLike, remedy: str = "curate it again") -> CuratedSet:
    """The curated set in a directory, or at an address. The shards of a directory are checked.

    Args:
      path: the directory, or its address.
      remedy: what a message tells a user to do.

    Raises:
      UserError: there is none, it has another format, or a file is missing or damaged.
    """
    file = f"{str(path).rstrip('/')}/{CURATED}"
    try:
        text = json.loads(_read(file))
        found = text.pop("format")
        damaged = text.pop("checksum") != _digest({"format": found, **text})
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is no curated set: it has no {CURATED}; {remedy}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}); {remedy}") from error
    if found != FORMAT:
        raise UserError(f"{path} has set format {found}, not {FORMAT}; {remedy}")
    if damaged:
        raise UserError(f"{file} is damaged: it is not as written; {remedy}")
    for name in ("label_names", "tag_names", "shards"):
        text[name] = tuple(text[name])
    out = CuratedSet(path=str(path), **text)
    if not is_remote(path):
        expected = {shard["file"]: shard for shard in out.shards}
        if (damage := first_damaged(Path(path), expected)) is not None:
            raise UserError(f"{path} is damaged: {damage}; {remedy}")
    return out


def _read(path: str) -> bytes:
    if not is_remote(path):
        return Path(path).read_bytes()
    files, inner = file_system(path)
    return files.cat_file(inner)


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
