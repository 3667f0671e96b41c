"""A source held as a list of items: what all readers but the columnar table return."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import InvalidCrystal, printable


@dataclasses.dataclass(frozen=True)
class ItemSource:
    """A `source.Source` of items in memory.

    Attributes:
      name: for messages.
      decode: module-level function from an item to a crystal.
      entries: the items; a `Problem` stands for one that could not be made.
      entry_ids: id of each item.
      entry_labels: labels of each item, as far as they are known.
      digest: hex digest of the content.
      names: properties that the data have for certain, also where no item carries one.
      notes: what a user should know of the data as a whole, such as files that are not read.
    """

    name: str
    decode: Callable[[Any], Crystal]
    entries: Sequence[Any]
    entry_ids: Sequence[str]
    entry_labels: Sequence[Mapping[str, float]]
    digest: str
    names: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def label_names(self) -> list[str]:
        """In the order in which they first occur."""
        found = (name for labels in self.entry_labels for name in labels)
        return list(dict.fromkeys([*self.names, *found]))

    @property
    def tag_names(self) -> list[str]:
        """Of the crystals that are here already; files have none."""
        found = (name for x in self.entries if isinstance(x, Crystal) for name in x.tags)
        return list(dict.fromkeys(found))

    def fingerprint(self) -> str:
        return self.digest

    def ids(self) -> np.ndarray:
        return np.array([printable(id) for id in self.entry_ids], dtype=str)

    def labelled(self, label: str) -> np.ndarray:
        return np.array([label in labels for labels in self.entry_labels], dtype=bool)

    def items(self, start: int, stop: int) -> list[Any]:
        return list(self.entries[start:stop])


@dataclasses.dataclass(frozen=True)
class Problem:
    """In the place of an item that is known to be unusable: decoding it says why."""

    id: str
    reason: str

    def crystal(self) -> Crystal:
        raise InvalidCrystal(self.id, self.reason)


def decode_item(item: Any) -> Crystal:
    """The crystal of an item that makes it itself, by its method ``crystal``.

    Raises:
      InvalidCrystal: it cannot be used.
    """
    return item.crystal()


def one_line(error: BaseException, limit: int = 160) -> str:
    """An exception's message, of any library, on one line."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def decode_crystal(item: Crystal | Problem) -> Crystal:
    """The decoder of sources whose items are crystals already."""
    return item.crystal() if isinstance(item, Problem) else item


def crystal_list(
    structures: Iterable[Any],
    labels: Iterable[Mapping[str, float]] | None = None,
    name: str = "crystals",
) -> ItemSource:
    """A source of objects in memory, for the Python API.

    Args:
      structures: `Crystal`, ``ase.Atoms`` or pymatgen ``Structure`` objects, or plain dicts of
        JARVIS, OPTIMADE or pymatgen, see `records.entry_of`. Their id is their own, such as
        ``atoms.info["id"]``, ``structure.properties["id"]`` or a dict's, or else their number.
      labels: property → value for each structure; None for the labels that `Crystal` objects
        carry themselves.
      name: for messages.

    Example:
      ``crystal_list([bulk("Cu"), bulk("Al")], labels=[{"target": 1.0}, {"target": 2.0}])``
    """
    structures = list(structures)
    given = [None] * len(structures) if labels is None else list(labels)
    entries: list[Crystal | Problem] = []
    for number, (structure, known) in enumerate(zip(structures, given, strict=True)):
        try:
            entries.append(_as_crystal(structure, str(number), known))
        except InvalidCrystal as error:
            entries.append(Problem(error.crystal_id, error.reason))
    digest = hashlib.blake2b(b"crystals", digest_size=16)
    for entry in entries:
        digest.update(repr(entry.id).encode())
        if isinstance(entry, Crystal):
            for array in (entry.species, entry.frac_coords, entry.lattice):
                digest.update(array.tobytes())
            digest.update(repr((sorted(entry.labels.items()), sorted(entry.tags.items()))).encode())
    return ItemSource(
        name=name,
        decode=decode_crystal,
        entries=entries,
        entry_ids=[entry.id for entry in entries],
        entry_labels=[entry.labels if isinstance(entry, Crystal) else {} for entry in entries],
        digest=digest.hexdigest(),
    )


def _as_crystal(structure: Any, default_id: str, labels: Mapping[str, float] | None) -> Crystal:
    if isinstance(structure, Mapping):
        # Not above: what it needs of this module is there by then.
        from crysgnn_jax.crystals.readers.records import decode, entry_of

        structure = decode(entry_of(structure, default_id))
    if isinstance(structure, Crystal):
        return structure if labels is None else dataclasses.replace(structure, labels=labels)
    if hasattr(structure, "get_chemical_symbols"):
        return Crystal.from_ase(structure, str(structure.info.get("id", default_id)), labels)
    properties = getattr(structure, "properties", None) or {}
    return Crystal.from_pymatgen(structure, str(properties.get("id", default_id)), labels)
