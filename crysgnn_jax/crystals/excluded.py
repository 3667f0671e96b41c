"""Crystals that are to be kept out of pre-training, since students will be tested on them."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.readers.json_scan import Scanner
from crysgnn_jax.crystals.readers.records import TELLING, is_structure
from crysgnn_jax.crystals.sources import Source, select
from crysgnn_jax.errors import InvalidCrystal, UserError

_log = logging.getLogger(__name__)

TOLD = 3
"""Crystals of which it is told why they cannot be used."""

_GIVE = "give crystals, the splits.json of a student's run, or a .json list of ids"

_SIDES = {"train", "training", "validation", "valid", "val", "test"}
"""Names of an object that is a split."""


def excluded(given: Any, data: Source) -> Source:
    """The crystals that a user names to be kept out.

    Args:
      given: crystals, as of `readers.read`; or a ``.json`` file that names crystals by their ids: a
        list of ids, or an object that has one under ``test``, as the ``splits.json`` of a run. The
        ids are looked up in the data that ``config.json`` beside the file names, or in ``data``
        where there is none; those of ``SPLITS.json=DATA`` in the crystals DATA.
      data: the crystals that they are kept out of.

    Raises:
      UserError: as of `read`; the file names no test crystals; its ids are not where they are
        looked up; or the data of its run cannot be read, so that these ids may be of others.

    Example:
      ``excluded("runs/mine/splits.json", read("bundled"))``
    """
    path, named = _json_file(given)
    ids = None if path is None else _test_ids(path, required=bool(named))
    try:
        if path is None or ids is None:
            return read(given)
        source = read(named) if named else _of_the_run(path) or data
    except UserError as error:
        raise UserError(str(error).replace("`data`", "`exclude`")) from None
    rows = _rows_of(source, set(ids))
    missing = [id for id in ids if id not in rows]
    if missing:
        raise UserError(
            f"`exclude` {path}: {len(missing)} of its {len(ids)} test crystals, such as "
            f"{missing[0]!r}, are not among those of {source.name}; name the data that its ids are "
            f"of: {path}=DATA"
        )
    return select(source, sorted(rows.values()), f"{path} ({source.name})")


def formulas_excluded(sources: Sequence[Source]) -> set[str]:
    """Reduced formulas of the crystals that are to be kept out.

    Args:
      sources: the crystals, each as of `excluded`.

    Raises:
      UserError: as of `require_usable`, which tells also of crystals that have no formula since
        they cannot be read.
    """
    found = set()
    for source in sources:
        unusable = []
        for item in _items(source):
            try:
                found.add(source.decode(item).reduced_formula)
            except InvalidCrystal as error:
                unusable.append((error.crystal_id, error.reason))
        require_usable(source.name, len(source), unusable)
    return found


def require_usable(name: str, n: int, unusable: Sequence[tuple[str, str]]) -> None:
    """What was to be kept out, and cannot be used, keeps nothing out: that is told.

    Args:
      name: of what was to be kept out.
      n: how many crystals it has.
      unusable: ``(id, reason)`` of those that cannot be used.

    Raises:
      UserError: none can be used.
    """
    listed = "; ".join(f"{id}: {reason}" for id, reason in unusable[:TOLD])
    if len(unusable) > TOLD:
        listed += f"; and {len(unusable) - TOLD} more"
    if len(unusable) == n:
        of = f"none of its {n} crystals" if n > 1 else "nothing in it"
        raise UserError(
            f"`exclude` {name}: {of} can be used, so that it would keep nothing out; {_GIVE}"
            + f" ({listed})" * bool(listed)
        )
    if unusable:
        _log.warning(
            "%d of the %d crystals of %s that are to be excluded cannot be used, and keep nothing "
            "out (%s)",
            *(len(unusable), n, name, listed),
        )


def _json_file(given: Any) -> tuple[Path | None, str]:
    """A ``.json`` file, None where it is something else; and the data that its ids are of, if
    named."""
    if not isinstance(given, (str, Path)):
        return None, ""
    text, _, named = str(given).partition(".json=")
    path = Path(f"{text}.json" if named else text)
    if not named and not (path.suffix.lower() == ".json" and path.is_file()):
        return None, ""
    return path, named


def _test_ids(path: Path, *, required: bool) -> list[str] | None:
    """The ids that a JSON file names; None where it is a file of crystals, of which no more is read
    than the first.

    Raises:
      UserError: there are none, some are no ids, or it is a split that is damaged.
    """
    keys: set[str] = set()
    try:
        with open(path, "rb") as file:
            found = _named_in(Scanner(file), keys)
    except (OSError, ValueError, RecursionError) as error:
        if required or keys & _SIDES:
            raise UserError(
                f"`exclude` {path}: it names no test crystals ({error}); {_GIVE}"
            ) from None
        return None  # what is wrong is said by what reads crystals
    if found is None and not required and not keys & _SIDES:
        return None
    if not isinstance(found, list) or not found:
        raise UserError(f"`exclude` {path}: it names no test crystals; {_GIVE}")
    wrong = [id for id in found if isinstance(id, bool) or not isinstance(id, (str, int))]
    if wrong:
        raise UserError(
            f"`exclude` {path}: {json.dumps(wrong[0])[:80]} among its test crystals is no id; "
            f"{_GIVE}"
        )
    return [str(id) for id in found]


def _named_in(scanner: Scanner, keys: set[str]) -> Any:
    """What a JSON text has where ids are to be: the values of a list, or what is under ``test`` of
    an object; None where there is no such thing, or a crystal.

    Args:
      scanner: of the text, which may be of any size.
      keys: takes the names of the object, as far as it is read; none where there is a crystal.

    Raises:
      ValueError: it is damaged.
    """
    if scanner.peek() == "[":
        return _plain(scanner, keep=True, record=lambda value: isinstance(value, Mapping))
    found = None
    for key in scanner.keys_of_object():
        if scanner.peek() == "[":
            value = _plain(scanner, keep=key == "test", record=_is_record)
            is_of_crystals = value is None
        else:
            value = scanner.value().content
            is_of_crystals = _is_record(value)
        if is_of_crystals or key in TELLING:
            keys.clear()
            return None
        keys.add(key)
        if key == "test":
            found = value
    return found


def _plain(scanner: Scanner, *, keep: bool, record: Callable[[Any], bool]) -> list[Any] | None:
    """The values of a list, if they are to be kept; None as soon as one is a record."""
    found = []
    for value in scanner.values_of_list():
        if record(value.content):
            return None
        if keep:
            found.append(value.content)
    return found


def _is_record(value: Any) -> bool:
    """Whether it looks like a crystal: a record, or a row of a database of ASE's."""
    return isinstance(value, Mapping) and (
        is_structure(value) or {"numbers", "positions"} <= value.keys()
    )


def _of_the_run(splits: Path) -> Source | None:
    """The data of the run that a split is of; None where it lies in the folder of no run.

    Raises:
      UserError: they are gone, or never were in a file. The ids are not looked up elsewhere then:
        there, 0, 1, 2 … may be other crystals.
    """
    try:
        config = json.loads(splits.with_name("config.json").read_text(encoding="utf-8"))
        named = config["made_with"]["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        return read(named)
    except UserError as error:
        raise UserError(
            f"`exclude` {splits}: the crystals of its run cannot be read ({error}); give the test "
            f"crystals themselves, or name the data that its ids are of: {splits}=DATA"
        ) from None


def _rows_of(source: Source, wanted: set[str]) -> dict[str, int]:
    """Id → item of a source, of those that are wanted; of an id that is there twice, the first."""
    known = source.ids()
    ids = enumerate(known.tolist()) if known is not None else _decoded_ids(source)
    found: dict[str, int] = {}
    for row, id in ids:
        if id in wanted:
            found.setdefault(id, row)
    return found


def _decoded_ids(source: Source) -> Iterator[tuple[int, str]]:
    for row, item in enumerate(_items(source)):
        with contextlib.suppress(InvalidCrystal):
            yield row, source.decode(item).id


def _items(source: Source) -> Iterator[Any]:
    for start in range(0, len(source), 1000):
        yield from source.items(start, min(start + 1000, len(source)))
