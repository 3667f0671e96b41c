"""What the graph store asks of a collection of crystals, and collections made of others."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import InvalidCrystal, UserError


class Source(Protocol):
    """A collection of crystals that can be read piece by piece, also by other processes.

    Attributes:
      name: short name for messages, such as a data set's name or a path.
      label_names: the properties for which at least one item may carry a value.
      decode: a module-level function from an item to a `Crystal`. It raises `InvalidCrystal`
        for an item that is not a usable crystal. Functions and items are pickled to workers.
    """

    @property
    def name(self) -> str: ...

    @property
    def label_names(self) -> Sequence[str]: ...

    @property
    def decode(self) -> Callable[[Any], Crystal]: ...

    def __len__(self) -> int:
        """Number of items, usable or not."""

    def fingerprint(self) -> str:
        """Hex digest of the content: equal exactly when every crystal and label is."""

    def ids(self) -> np.ndarray | None:
        """``[len(self)]`` text: the ids of the items; None where they are not known unread."""

    def labelled(self, label: str) -> np.ndarray:
        """``[len(self)]`` bool: which items carry the label, as far as is known unread."""

    def items(self, start: int, stop: int) -> list[Any]:
        """The undecoded items ``start … stop − 1``: small, picklable, cheap to make."""


def notes_of(source: Source) -> list[str]:
    """What a user should know of the data as a whole, a line each: files that are not read."""
    return list(getattr(source, "notes", ()))


def places_of(source: Source) -> tuple[str, ...]:
    """Paths and addresses that a source is read from, where it knows them."""
    return tuple(getattr(source, "places", ()))


def require_tag(source: Source, rule: str) -> None:
    """Check a rule of splitting by a tag before any graph is built, where the tags are known.

    Raises:
      UserError: ``rule`` is ``column:NAME``, and the source has no tag of that name.
    """
    names = getattr(source, "tag_names", None)
    name = rule.removeprefix("column:")
    if rule.startswith("column:") and names is not None and name not in names:
        listed = ", ".join(names) or "it has none"
        raise UserError(f"`split` {rule}: {source.name} has no {name!r} among its tags: {listed}")


def select(source: Source, indices: Sequence[int] | np.ndarray, name: str = "") -> "Selection":
    """The items of a source at ``indices``, in that order; ``name`` replaces the source's name.

    Raises:
      IndexError: an index is negative, or not below ``len(source)``.
    """
    return Selection(source, indices, name)


class Selection:
    """Some of the items of a source, as a `Source`; see `select`."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray, name: str = ""):
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64)
        outside = (self._indices < 0) | (self._indices >= len(source))
        if outside.any():
            raise IndexError(f"{source.name} has no item {self._indices[outside][0]}")
        self.name = name or source.name
        self.notes = notes_of(source)
        self.places = places_of(source)
        self.label_names = source.label_names
        self.decode = source.decode

    def __len__(self) -> int:
        return len(self._indices)

    def ids(self) -> np.ndarray | None:
        """``[len(self)]`` text: the ids where the source knows them unread, else None."""
        ids = self._source.ids()
        return None if ids is None else ids[self._indices]

    def fingerprint(self) -> str:
        return digest_of_texts(
            self._source.fingerprint(), self._indices.astype("<i8").tobytes().hex()
        )

    def labelled(self, label: str) -> np.ndarray:
        return self._source.labelled(label)[self._indices]

    def items(self, start: int, stop: int) -> list[Any]:
        chosen = self._indices[start:stop]
        if not len(chosen):
            return []
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
        return [item for run in runs for item in self._source.items(run[0], run[-1] + 1)]


class CombinedItem(NamedTuple):
    """An item of one member, what decodes it, and what to put before its id."""

    decode: Callable[[Any], Crystal]
    item: Any
    prefix: str


def decode_combined(item: CombinedItem) -> Crystal:
    """The crystal in an item of `Combined`.

    Raises:
      InvalidCrystal: as the member's ``decode``, with the id that the crystal has here.
    """
    try:
        crystal = item.decode(item.item)
    except InvalidCrystal as error:
        raise InvalidCrystal(item.prefix + error.crystal_id, error.reason) from error
    return dataclasses.replace(crystal, id=item.prefix + crystal.id) if item.prefix else crystal


class Combined:
    """Several sources one after the other, as a `Source`.

    An id that an earlier member has already may be another crystal by accident, so such a
    crystal is kept, under the id ``<member's name>/<id>``. Where the ids of the member, or of
    one before it, are not known unread, all of its crystals are renamed in this way.

    Attributes:
      sources: its members.
      repeated: ``[len(self)]`` bool: which items are renamed.

    Raises:
      UserError: no sources, or two of the same name.
    """

    decode = staticmethod(decode_combined)

    def __init__(self, sources: Iterable[Source]):
        self.sources = list(sources)
        if not self.sources:
            raise UserError("there are no data to combine; name at least one source")
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"the data {name!r} are given twice; give them once")
        self.name = " + ".join(names)
        self.notes = [
            f"{source.name}: {note}" for source in self.sources for note in notes_of(source)
        ]
        self.places = tuple(place for source in self.sources for place in places_of(source))
        self.label_names = tuple(
            dict.fromkeys(label for source in self.sources for label in source.label_names)
        )
        self._offsets = np.cumsum([0, *map(len, self.sources)])
        member_ids = [source.ids() for source in self.sources]
        self.repeated = np.concatenate(
            [_repeated(source, member_ids[: k + 1]) for k, source in enumerate(self.sources)]
        )
        self._ids: np.ndarray | None = None
        known = [ids for ids in member_ids if ids is not None]
        if len(known) == len(member_ids):
            prefixes = np.repeat([f"{name}/" for name in names], np.diff(self._offsets))
            ids: np.ndarray = np.concatenate(known)
            self._ids = np.where(self.repeated, np.char.add(prefixes, ids), ids)

    def __len__(self) -> int:
        return len(self.repeated)

    def ids(self) -> np.ndarray | None:
        """``[len(self)]`` text: the ids where all members know theirs unread, else None."""
        return self._ids

    def repeated_ids(self) -> list[np.ndarray | None]:
        """Of each member, the ids of the items that are renamed; None where all are, and their ids
        are not known unread."""
        found: list[np.ndarray | None] = []
        for source, begin, end in zip(self.sources, self._offsets, self._offsets[1:]):
            renamed = self.repeated[begin:end]
            ids = source.ids() if renamed.any() else np.empty(0, str)
            found.append(ids if ids is None or not len(ids) else ids[renamed])
        return found

    def fingerprint(self) -> str:
        parts = []
        for source, begin, end in zip(self.sources, self._offsets, self._offsets[1:]):
            # The name is part of the content only where it is part of an id.
            parts += [source.fingerprint(), source.name if self.repeated[begin:end].any() else ""]
        return digest_of_texts(*parts)

    def labelled(self, label: str) -> np.ndarray:
        return np.concatenate([source.labelled(label) for source in self.sources])

    def items(self, start: int, stop: int) -> list[CombinedItem]:
        items = []
        for source, begin, end in zip(self.sources, self._offsets, self._offsets[1:]):
            first, last = max(start, begin), min(stop, end)
            if first < last:
                items += [
                    CombinedItem(source.decode, item, f"{source.name}/" if repeated else "")
                    for item, repeated in zip(
                        source.items(first - begin, last - begin), self.repeated[first:last]
                    )
                ]
        return items


def formulas_of(source: Source) -> Iterator[str]:
    """Reduced formulas of the usable crystals of a source, one each."""
    for start in range(0, len(source), 1000):
        for item in source.items(start, min(start + 1000, len(source))):
            with contextlib.suppress(InvalidCrystal):
                yield source.decode(item).reduced_formula


UNLABELLED = "unlabelled"
"""Tag of the crystals of `without_labels`."""


def decode_without_labels(item: tuple[Callable[[Any], Crystal], Any]) -> Crystal:
    """The crystal in an item of `without_labels`.

    Raises:
      InvalidCrystal: as the source's ``decode``.
    """
    decode, of_source = item
    return dataclasses.replace(decode(of_source), labels={}, tags={UNLABELLED: "yes"})


class WithoutLabels:
    """A source's crystals without their labels and tags, as a `Source`; see `without_labels`.

    Attributes:
      source: whose crystals they are.
    """

    label_names = ()
    decode = staticmethod(decode_without_labels)

    def __init__(self, source: Source):
        self.source = source
        self.name = f"{source.name} (unlabelled)"
        self.notes = notes_of(source)
        self.places = places_of(source)

    def __len__(self) -> int:
        return len(self.source)

    def ids(self) -> np.ndarray | None:
        return self.source.ids()

    def fingerprint(self) -> str:
        return digest_of_texts("without labels", self.source.fingerprint())

    def labelled(self, label: str) -> np.ndarray:
        return np.zeros(len(self), dtype=bool)

    def items(self, start: int, stop: int) -> list[tuple[Callable[[Any], Crystal], Any]]:
        decode = self.source.decode
        return [(decode, item) for item in self.source.items(start, stop)]


def without_labels(source: Source) -> WithoutLabels:
    """The crystals of a source alone: what a label-free method may see of them.

    They carry the tag `UNLABELLED`, by which they are told from others in a store.
    """
    return WithoutLabels(source)


def _repeated(source: Source, ids: Sequence[np.ndarray | None]) -> np.ndarray:
    """``[len(source)]`` bool: which items have, or may have, an id of an earlier member.

    ``ids`` are those of the earlier members, then of the source itself.
    """
    if len(ids) == 1:
        return np.zeros(len(source), dtype=bool)
    known = [member for member in ids if member is not None]
    if len(known) < len(ids):
        return np.ones(len(source), dtype=bool)
    *earlier, own = known
    return np.isin(own, np.concatenate(earlier))


def digest_of_texts(*parts: str) -> str:
    """Hex digest of a sequence of texts."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
