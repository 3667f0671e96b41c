"""From sources to a curated set: drafts, duplicates, shards.

The items of all sources, one after the other, are cut into *units* of so many. Workers make a
draft of each unit (`work`), a file that is there whole or not at all, so that a curation that was
killed goes on where it was. When all drafts are there, this process compares the crystals by what
the drafts hold of them, and workers write shards of those that stay. So the shards depend on
sources and settings alone, and not on who made them, in what order, and how often he was killed.

This process holds a few hundred bytes of each crystal: ids, and what crystals are compared by.
"""

import contextlib
import dataclasses
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax import stopping
from crysgnn_jax.cache import Lock
from crysgnn_jax.checksums import VERIFIED, checksums
from crysgnn_jax.crystals.excluded import require_usable
from crysgnn_jax.crystals.sources import Combined, Source, notes_of, places_of
from crysgnn_jax.curated import CURATED, CuratedSet, open_curated, write_curated
from crysgnn_jax.curation.compared import (
    DUPLICATE,
    EXCLUDED,
    REPEATED_ID,
    STAYS,
    Compared,
    first_of_rows,
)
from crysgnn_jax.curation.engine import LOST, Engine, InProcess
from crysgnn_jax.curation.place import Place
from crysgnn_jax.curation.work import (
    Made,
    Making,
    Piece,
    about_of,
    make_draft,
    make_shard,
    sums_of,
    try_items,
)
from crysgnn_jax.errors import NoUsableCrystal, UserError
from crysgnn_jax.graphs.settings import (
    CRYSTALS_A_SHARD,
    MAX_ATOMS,
    MOST_TOLERANCE,
    TOLERANCE,
    FeaturiserSettings,
)
from crysgnn_jax.graphs.store import CONTENT

DRAFTS, PLAN, LOCK, SHARDS = "drafts", "drafts/plan.json", "drafts/lock", "shards"

FILES = ("report.json", "report.png", "skipped.csv", "duplicates.csv", "excluded.csv")
"""What a report may put beside the set."""

# All that is ever removed from a directory: other things that lie there are not the set's.
_UNFINISHED = r"(\.[0-9a-f]+\.tmp)?"
_OF_SHARDS = re.compile(r"\d{5,}\.safetensors" + _UNFINISHED)
_OF_DRAFTS = re.compile(rf"(plan\.json|lock|(exclude-)?\d{{5,}}\.(safetensors|json)){_UNFINISHED}")
_FIRST = re.compile(r"lock|plan\.json\.[0-9a-f]+\.tmp")
_BESIDE = re.compile(f"({'|'.join(map(re.escape, (VERIFIED, *FILES)))}){_UNFINISHED}")

_SPLIT = 16
"""Parts into which items are divided to find one that ends processes."""

_DEATHS = 2
"""Deaths over a unit after which its items are looked at one by one."""

_MOST_DEATHS = 4
"""After which it is given up: what ends the processes is not an item."""

Progress = Callable[[int, int], None]
"""Called with the number of things done so far and in all."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be curated, and how.

    Attributes:
      sources: the crystals; of two that repeat each other, the earlier one stays.
      exclude: crystals that are not to be in the set, nor what repeats them.
      settings: of the graphs, of the kind ``nearest``.
      max_atoms: crystals with more are left out.
      tolerance: of lengths, within which crystals repeat each other, see `graphs.duplicates`.
      crystals_a_shard: items of a unit; a shard has those of them that stay.

    Raises:
      UserError: the settings ask for another kind of graphs, the tolerance is too wide to tell
        crystals apart, or there are no sources.
    """

    sources: Sequence[Source]
    exclude: Sequence[Source] = ()
    settings: FeaturiserSettings = FeaturiserSettings()
    max_atoms: int = MAX_ATOMS
    tolerance: float = TOLERANCE
    crystals_a_shard: int = CRYSTALS_A_SHARD

    def __post_init__(self) -> None:
        if not sum(map(len, self.sources)):
            raise UserError("there is nothing to curate; name data sets, folders or files")
        if self.settings.rule != "nearest":
            raise UserError(
                f"`rule` {self.settings.rule}: a curated set has graphs of the kind nearest; those "
                "of bonds are made from it by the commands that train"
            )
        if self.tolerance > MOST_TOLERANCE:
            raise UserError(
                f"`tolerance` {self.tolerance:g}: at most {MOST_TOLERANCE:g}; beyond it crystals "
                "are joined that have nothing in common but their formula"
            )

    def described(self) -> dict[str, Any]:
        """JSON that is equal exactly when the outcome is."""
        told = lambda sources: [[s.name, len(s), s.fingerprint()] for s in sources]
        return {
            "sources": told(self.sources),
            "exclude": told(self.exclude),
            "content": CONTENT,
            "settings": self.settings.plain(),
            "max_atoms": self.max_atoms,
            "tolerance": float(self.tolerance),
            "crystals_a_shard": self.crystals_a_shard,
        }


@dataclasses.dataclass(frozen=True)
class Facts:
    """What became of the crystals.

    Attributes:
      name: of the sources together.
      sources: names of the sources.
      excluded_sources: names of what was excluded.
      read: items of each source.
      kept: crystals of each that are in the set.
      skipped: ``(id, reason, source)`` of those that cannot be used; source is a number.
      notes: ``(id, note)`` of what a user should know of the others, and ``("", note)`` of the
        sources.
      duplicates: ``(id, source, id of the one that stays, its source)``; sources are names.
      excluded: likewise, of crystals that repeat an excluded one.
      pairs: (source, source of the one that stays) → duplicates.
      counts: as of `work.facts_of`, of the crystals that stay.
      seconds: what was done → seconds of this process.
      worker_seconds: step → seconds of all workers, those of earlier tries included.
      n_drafts: units in all.
      n_found: of them, those that an earlier try had made.
      not_excluded: ``(id, reason, source)`` of those that were to be excluded and cannot be used;
        sources are names.
    """

    name: str
    sources: tuple[str, ...]
    excluded_sources: tuple[str, ...]
    read: list[int]
    kept: list[int]
    skipped: list[tuple[str, str, int]]
    notes: list[tuple[str, str]]
    duplicates: list[tuple[str, str, str, str]]
    excluded: list[tuple[str, str, str, str]]
    pairs: dict[tuple[str, str], int]
    counts: dict[str, np.ndarray]
    seconds: dict[str, float]
    worker_seconds: dict[str, float]
    n_drafts: int
    n_found: int
    not_excluded: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)


def curate(
    plan: Plan,
    output: str,
    engine: Engine,
    *,
    overwrite: bool = False,
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None,
    report: Callable[[Facts], Mapping[str, bytes]] = lambda facts: {},
) -> tuple[CuratedSet, Facts | None]:
    """Make a curated set, or what is missing of it.

    Args:
      plan: what is to be curated, and how.
      output: directory of the set, or its address on any file system of fsspec.
      engine: who does the work.
      overwrite: delete the set that is there, finished or not.
      progress: from what is being done to what is told how far it is.
      report: from what became of the crystals to further files of the set, of `FILES`.

    Returns:
      The set, and what became of the crystals; None where the set was there already.

    Raises:
      UserError: something else is in the place of the set, or what it is made from, or the set is
        damaged; it cannot be written, or not by the engine's processes; another process writes it;
        no crystal can be used; or processes end over and over.
      Stopped: a signal came; the same call goes on.
    """
    place = Place(output)
    _require_apart(plan, place)
    if place.is_in_memory and not isinstance(engine, InProcess):
        raise UserError(
            f"`output` {place.address} is in the memory of this process, where workers cannot "
            "write; name a directory, or pass `workers` 1"
        )
    described = json.loads(json.dumps(plan.described()))
    with place.writing():
        _require_ours(place)
        if not overwrite and (found := _finished(place, described)) is not None:
            return found, None
        with _begun(place, described, overwrite), stopping.graceful():
            return _Curation(plan, place, engine, progress).run(described, report)


def _require_apart(plan: Plan, place: Place) -> None:
    """
    Raises:
      UserError: what the set is made from is in its place.
    """
    for sources, part in ((plan.sources, "is made from"), (plan.exclude, "excludes")):
        for path in (path for source in sources for path in places_of(source)):
            # A set within a folder of files that it is made from touches none of them.
            if (relation := place.relation(path)) in ("is", "holds"):
                raise UserError(
                    f"`output` {place.address} {relation} {path}, which the set {part}; name "
                    "another directory"
                )


def _finished(place: Place, described: Mapping[str, Any]) -> CuratedSet | None:
    """The set, if it is there, and the same.

    Raises:
      UserError: another set is there, or it is damaged.
    """
    if CURATED not in place.sizes():
        return None
    found = open_curated(place.address, "pass `overwrite` to make it anew")
    if found.about.get("plan") != described:
        raise UserError(
            f"`output` {place.address} holds a set of other sources or settings; name another "
            "directory, or pass `overwrite`"
        )
    place.remove_files(DRAFTS, _OF_DRAFTS)  # if it was killed when all was done
    return found


def _require_ours(place: Place) -> None:
    """
    Raises:
      UserError: what is in the place is neither a set, whole or damaged, nor the beginning of one.
    """
    if not place.is_remote and Path(place.address).exists() and not Path(place.address).is_dir():
        raise UserError(f"`output` {place.address} is a file; name a directory")
    there = place.sizes()
    if CURATED in there:
        if _is_table(place):
            return
        first = CURATED
    elif not there or _is_begun(place, there):
        return
    else:
        first = min(there)
    raise UserError(
        f"`output` {place.address} holds {first}, and is no curated set; name another directory"
    )


def _is_table(place: Place) -> bool:
    """Whether ``curated.json`` is the table of contents of a set, or was it before it was cut."""
    try:
        found = json.loads(place.read(CURATED) or b"")
    except ValueError:
        return any(map(_OF_SHARDS.fullmatch, place.sizes(SHARDS)))
    return isinstance(found, dict) and {"format", "shards", "checksum"} <= set(found)


def _is_begun(place: Place, there: Iterable[str]) -> bool:
    """Whether a directory without a table of contents holds the beginning of a set."""
    if _plan_in(place) is not None:
        return True
    # It was killed before it had written its plan.
    return set(there) == {DRAFTS} and all(map(_FIRST.fullmatch, place.sizes(DRAFTS)))


def _plan_in(place: Place) -> dict[str, Any] | None:
    """What was begun in a directory, of `Plan.described`; None where nothing was."""
    content = place.read(PLAN)
    with contextlib.suppress(ValueError):
        found = json.loads(content or b"")
        if isinstance(found, dict) and {"sources", "crystals_a_shard"} <= set(found):
            return found
    return None


@contextlib.contextmanager
def _begun(place: Place, described: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """The drafts of this set, and of no other, may be written within.

    Killed at any point, it leaves what passes for a set, or for the beginning of one.

    Raises:
      UserError: another process writes there, or has begun something else.
    """
    with _locked(place):
        if not overwrite and CURATED in place.sizes():
            raise UserError(
                f"`output` {place.address} has just been finished by another process; the same "
                "command tells whether it is this set"
            )
        before = None if overwrite else _plan_in(place)
        if before is None:
            place.remove_files(DRAFTS, _OF_DRAFTS, but=(Path(LOCK).name, Path(PLAN).name))
            place.write(PLAN, json.dumps(described, indent=1).encode())
        elif before != described:
            raise UserError(
                f"`output` {place.address} holds the beginning of a set of other sources or "
                "settings; name another directory, or pass `overwrite`"
            )
        # The table of contents first: without it, nothing else passes for a set.
        place.remove(CURATED)
        for name in filter(_BESIDE.fullmatch, place.sizes()):
            place.remove(name)
        place.remove_files(SHARDS, _OF_SHARDS)
        yield


@contextlib.contextmanager
def _locked(place: Place) -> Iterator[None]:
    """Hold the lock of a local set; others have none."""
    if place.is_remote:
        yield
        return
    lock = Lock(Path(place.path(LOCK)))
    try:
        Path(place.path(DRAFTS)).mkdir(parents=True, exist_ok=True)
        free = lock.acquire(wait=False)
    except OSError as error:
        raise UserError(
            f"`output` {place.address} cannot be written to ({error.strerror}); name another "
            "directory"
        ) from None
    if not free:
        raise UserError(
            f"`output` {place.address} is being written by another process; wait for it"
        )
    try:
        yield
    finally:
        lock.release()


class _Units:
    """The items of some sources, one after the other, cut into units.

    Args:
      sources: at least one.
      size: items of a unit.
    """

    def __init__(self, sources: Sequence[Source], size: int):
        self.whole: Source = sources[0] if len(sources) == 1 else Combined(sources)
        self._ends = np.cumsum([len(source) for source in sources]).tolist()
        self._size = size
        self.names = tuple(source.name for source in sources)

    def __len__(self) -> int:
        return -(-len(self.whole) // self._size)

    def n_items(self, number: int) -> int:
        """Of one unit."""
        return min(self._size, len(self.whole) - number * self._size)

    def pieces(self, number: int, start: int = 0, stop: int | None = None) -> list[Piece]:
        """The items of a unit, or of those the ones from ``start`` to ``stop``, by source."""
        first = number * self._size
        last = first + (self.n_items(number) if stop is None else stop)
        first += start
        out, begin = [], 0
        for source, end in enumerate(self._ends):
            lower, upper = max(first, begin), min(last, end)
            if lower < upper:
                out.append(Piece(source, self.whole.items(lower, upper)))
            begin = end
        return out


class _Curation:
    """One call of `curate`."""

    def __init__(
        self, plan: Plan, place: Place, engine: Engine, progress: Callable[[str], Progress]
    ):
        self._plan = plan
        self._place = place
        self._engine = engine
        self._progress = progress
        self._units = _Units(plan.sources, plan.crystals_a_shard)
        self._excluded = _Units(plan.exclude, plan.crystals_a_shard) if plan.exclude else None
        self._not_excluded: list[tuple[str, str, str]] = []
        self._seconds: dict[str, float] = {}
        self._worker_seconds = {"write": 0.0}
        self._clock = time.perf_counter()

    def run(
        self, described: Mapping[str, Any], report: Callable[[Facts], Mapping[str, bytes]]
    ) -> tuple[CuratedSet, Facts]:
        """The whole of it."""
        excluded: list[str] = []
        if self._excluded is not None:
            excluded, _ = self._drafts(self._excluded, "exclude-")
            self._require_usable(self._excluded.names, excluded)
        drafts, n_found = self._drafts(self._units, "")
        self._lap("graphs")
        with tempfile.TemporaryDirectory(prefix="crysgnn-") as folder:
            self._place.refresh()
            compared = Compared([*excluded, *drafts], len(excluded), folder)
            self._compare(compared)
            self._lap("duplicates")
        stopping.check()
        self._require_some(compared, len(excluded))
        shards = self._shards(compared, len(excluded), drafts)
        self._lap("shards")
        facts = self._facts(compared, len(excluded), shards, n_found)
        for name, content in report(facts).items():
            self._place.write(name, content)
        found = write_curated(
            self._place.address,
            [{"file": file, **made.entry} for file, made in shards.items()],
            content=CONTENT,
            settings=self._plan.settings.plain(),
            label_names=self._units.whole.label_names,
            tag_names=sorted({name for made in shards.values() for name in made.tag_names}),
            about={"plan": described},
        )
        self._place.remove_files(DRAFTS, _OF_DRAFTS)
        return found, facts

    def _lap(self, what: str) -> None:
        now = time.perf_counter()
        self._seconds[what] = now - self._clock
        self._clock = now

    def _drafts(self, units: _Units, prefix: str) -> tuple[list[str], int]:
        """Make the drafts that are missing; paths of all, and how many were there."""
        making = Making(
            units.whole.decode,
            units.names,
            () if prefix else tuple(units.whole.label_names),
            self._plan.settings,
            self._plan.max_atoms,
        )
        names = [f"{prefix}{number:05d}.safetensors" for number in range(len(units))]
        paths = [self._place.path(f"{DRAFTS}/{name}") for name in names]
        whole = _whole(self._place, names)
        todo = [number for number, name in enumerate(names) if name not in whole]
        done = len(units.whole) - sum(map(units.n_items, todo))
        show = self._progress("read, symmetry, graphs" + " of what is excluded" * bool(prefix))
        show(done, len(units.whole))
        deadly: dict[int, list[int]] = {}

        def lost(number: int, times: int) -> None:
            if times == _DEATHS:
                deadly[number] = self._deadly(making, units, number)
            elif times >= _MOST_DEATHS:
                raise UserError(
                    f"{units.whole.name}: {times} processes ended over the same "
                    f"{units.n_items(number)} crystals, and none of these by itself; memory ran "
                    "out (pass fewer `workers`); what is finished is kept"
                )

        arguments = lambda k: (making, units.pieces(k), paths[k], tuple(deadly.get(k, ())))
        for number, seconds in _answered(self._engine, make_draft, todo, arguments, lost):
            self._worker_seconds["write"] += seconds
            done += units.n_items(number)
            show(done, len(units.whole))
        return paths, len(units) - len(todo)

    def _deadly(self, making: Making, units: _Units, number: int) -> list[int]:
        """Places in a unit of the items that end the process that works on them."""
        spans = [(0, units.n_items(number))]
        arguments = lambda span: (making, units.pieces(number, *span))
        lost_of = lambda spans: [
            span
            for span, answer in self._engine.run(
                try_items, ((span, arguments(span)) for span in spans)
            )
            if answer is LOST
        ]
        while spans and max(stop - start for start, stop in spans) > 1:
            parts = [part for start, stop in spans for part in _parts(start, stop)]
            spans = lost_of(parts)
        # Not those whose process was ended by something else.
        return sorted(start for start, _ in lost_of(spans))

    def _require_usable(self, names: Sequence[str], drafts: Sequence[str]) -> None:
        """Find out which of the crystals that are to be excluded cannot be used.

        Args:
          names: of the sources that are to be excluded.
          drafts: paths of their drafts.

        Raises:
          UserError: of one of the sources there is none that can be used.
        """
        self._place.refresh()
        abouts = [about_of(path) for path in drafts]
        read = np.sum([about["read"] for about in abouts], axis=0).tolist()
        skipped = [entry for about in abouts for entry in about["skipped"]]
        for number, name in enumerate(names):
            unusable = [(id, why) for id, why, source in skipped if source == number]
            try:
                require_usable(name, read[number], unusable)
            except UserError:
                self._place.remove_files(DRAFTS, _OF_DRAFTS)
                raise
            self._not_excluded += [(id, why, name) for id, why in unusable]

    def _compare(self, compared: Compared) -> None:
        """Find out which crystals repeat which."""
        blocks = compared.blocks()
        total, done = sum(map(len, blocks)), 0
        show = self._progress("duplicates")
        show(0, total)
        # Copies of remote drafts are here, and not where the workers are.
        engine = InProcess() if self._place.is_remote else self._engine
        arguments = lambda k: compared.arguments(blocks[k], self._plan.tolerance)
        lost = _given_up("they compared crystals")
        found = []
        for k, first in _answered(engine, first_of_rows, range(len(blocks)), arguments, lost):
            found.append((blocks[k], first))
            done += len(first)
            show(done, total)
        compared.settle(found)

    def _shards(
        self, compared: Compared, n_excluded: int, drafts: Sequence[str]
    ) -> dict[str, Made]:
        """File of each shard → what came of it, in their order."""
        keeps = {}
        for number in range(len(drafts)):
            begin, end = compared.offsets[n_excluded + number : n_excluded + number + 2]
            keep = compared.outcome[begin:end] == STAYS
            if keep.any():
                keeps[number] = keep
        files = {number: f"{SHARDS}/{number:05d}.safetensors" for number in keeps}
        total = sum(int(keep.sum()) for keep in keeps.values())
        show, done = self._progress("shards"), 0
        show(done, total)

        lost = _given_up("they wrote shards")
        arguments = lambda k: (drafts[k], keeps[k], self._place.path(files[k]))
        found: dict[str, Made] = {}
        for number, made in _answered(self._engine, make_shard, list(keeps), arguments, lost):
            found[files[number]] = made
            done += made.entry["crystals"]
            show(done, total)
        # What processes left that died while they wrote.
        self._place.remove_files(SHARDS, _OF_SHARDS, but=[Path(file).name for file in found])
        return dict(sorted(found.items()))

    def _require_some(self, compared: Compared, n_excluded: int) -> None:
        """
        Raises:
          NoUsableCrystal: there is nothing that could be in the set.
        """
        if len(compared.rows(STAYS)):
            return
        self._place.remove_files(DRAFTS, _OF_DRAFTS)
        skipped = [
            (id, why) for about in compared.abouts[n_excluded:] for id, why, _ in about["skipped"]
        ]
        name = self._units.whole.name
        if len(compared.rows(EXCLUDED)):
            raise NoUsableCrystal(f"{name}: all crystals that can be used are excluded", skipped)
        listed = "; ".join(f"{id}: {why}" for id, why in skipped[:3])
        raise NoUsableCrystal(
            f"{name}: none of its crystals can be used ({len(skipped)}); the first: {listed}",
            skipped,
        )

    def _facts(
        self, compared: Compared, n_excluded: int, shards: Mapping[str, Made], n_found: int
    ) -> Facts:
        names = self._units.names
        abouts = compared.abouts[n_excluded:]
        repeated = compared.rows(REPEATED_ID)
        skipped = [(id, why, source) for about in abouts for id, why, source in about["skipped"]]
        skipped += [
            (id, "an earlier crystal has the same id", int(source))
            for id, source in zip(compared.ids(repeated), compared.source[repeated])
        ]
        notes = [("", note) for note in notes_of(self._units.whole)]
        notes += [(id, note) for about in abouts for id, note in about["notes"]]
        for about in compared.abouts:
            for step, taken in about["seconds"].items():
                self._worker_seconds[step] = self._worker_seconds.get(step, 0.0) + taken
        duplicates = self._repetitions(compared, DUPLICATE)
        stay = compared.rows(STAYS)
        return Facts(
            name=self._units.whole.name,
            sources=names,
            excluded_sources=self._excluded.names if self._excluded is not None else (),
            read=np.sum([about["read"] for about in abouts], axis=0).tolist(),
            kept=np.bincount(compared.source[stay], minlength=len(names)).tolist(),
            skipped=skipped,
            notes=notes,
            duplicates=duplicates,
            excluded=self._repetitions(compared, EXCLUDED),
            pairs=dict(Counter((source, other) for _, source, _, other in duplicates)),
            counts=_added([made.facts for made in shards.values()]),
            seconds=self._seconds,
            worker_seconds=self._worker_seconds,
            n_drafts=len(abouts),
            n_found=n_found,
            not_excluded=self._not_excluded,
        )

    def _repetitions(self, compared: Compared, outcome: int) -> list[tuple[str, str, str, str]]:
        rows = compared.rows(outcome)
        first = compared.first[rows]
        names = self._units.names
        others = self._excluded.names if outcome == EXCLUDED and self._excluded else names
        return [
            (id, names[source], other_id, others[other])
            for id, source, other_id, other in zip(
                compared.ids(rows),
                compared.source[rows].tolist(),
                compared.ids(first),
                compared.source[first].tolist(),
            )
        ]


def _answered(
    engine: Engine,
    function: Callable,
    keys: Iterable[Hashable],
    arguments: Callable[[Any], tuple],
    lost: Callable[[Any, int], None],
) -> Iterator[tuple[Any, Any]]:
    """What a function returns for each key, in whatever order; calls that are lost are made again.

    Args:
      engine: who makes the calls.
      function: to call.
      keys: of the calls.
      arguments: of a key's call.
      lost: told of each key whose call was lost, and how often it was by now.
    """
    times: Counter[Hashable] = Counter()
    left = list(keys)
    while left:
        again = []
        for key, answer in engine.run(function, ((key, arguments(key)) for key in left)):
            if answer is LOST:
                again.append(key)
            else:
                yield key, answer
        for key in again:
            times[key] += 1
            lost(key, times[key])
        left = again


def _given_up(what: str) -> Callable[[Any, int], None]:
    """What raises where a call was lost too often; ``what`` its process was about."""

    def lost(key: Any, times: int) -> None:
        if times >= _MOST_DEATHS:
            raise UserError(
                f"{times} processes ended while {what}; memory ran out (pass fewer `workers`); "
                "what is finished is kept"
            )

    return lost


def _parts(start: int, stop: int) -> list[tuple[int, int]]:
    step = max(1, -(-(stop - start) // _SPLIT))
    return [(first, min(first + step, stop)) for first in range(start, stop, step)]


def _whole(place: Place, names: Iterable[str]) -> set[str]:
    """Which drafts are there, and hold the bytes that were written. All are read, on several cores.

    A store checks its own bytes, and has no files in part.
    """
    there = set(place.sizes(DRAFTS)).intersection(names)
    if place.is_remote:
        return there
    told = {}
    for name in there:
        with contextlib.suppress(ValueError):  # the checksums are damaged, or of an older version
            told[name] = json.loads(place.read(f"{DRAFTS}/{sums_of(name)}") or b"")
    found = checksums(Path(place.path(DRAFTS)), told)
    return {name for name in told if told[name] == found[name]}


def _added(facts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Sums of arrays that may be shorter than others."""
    out = {}
    for name in facts[0]:
        length = max(len(one[name]) for one in facts)
        out[name] = np.sum([np.pad(one[name], (0, length - len(one[name]))) for one in facts], 0)
    return out
