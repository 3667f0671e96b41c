"""What is to be known of crystals and their labels before anything is trained on them."""

import dataclasses
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.units import Guess, guess_unit
from crysgnn_jax.files import write_csv, write_json, writing
from crysgnn_jax.graphs.duplicates import look_alikes, same_structures
from crysgnn_jax.graphs.primitive import n_primitive
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.graphs.symmetry import CRYSTAL_SYSTEMS, crystal_system
from crysgnn_jax.reporting.overlap import Overlap, overlap
from crysgnn_jax.reporting.tables import counted, signed, text_table
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.shipped import Seen, seen

THRESHOLD = 3.5
"""Modified z-score above which a value is an outlier (Iglewicz and Hoaglin, How to Detect and
Handle Outliers, 1993)."""

FEWEST = 10
"""Values without which there is no telling what is usual; and test crystals without which an error
says little."""

_NORMAL = 0.6745
"""Median absolute deviation of a normal distribution of standard deviation 1."""

MOSTLY = 0.75
"""Share of crystals with one and the same value from which on a label is mostly constant."""

HARDLY = 0.001
"""Share of the teacher's crystals below which it hardly knows an element, and beyond which, at
either end, sizes are strange to it."""

SHOWN = 5
"""Of every kind of finding that many are named on the terminal; all are in the files."""

WIDTH = 98
"""Characters of a line of text."""


class Outlier(NamedTuple):
    """A crystal that is far from the others, or from what the teacher has seen.

    Attributes:
      id: of the crystal.
      what: name of the label, or ``element``, ``atoms``, ``volume per atom``.
      value: as text, in the label's own unit.
      score: modified z-score of a label; None for what is strange to the teacher.
      why: in words.
    """

    id: str
    what: str
    value: str
    score: float | None
    why: str


@dataclasses.dataclass(frozen=True)
class Label:
    """What there is to say of a label.

    Attributes:
      name: of the label.
      guess: of its unit.
      n: crystals that have it.
      missing: crystals that do not.
      low: smallest value.
      median: of the values.
      high: largest value.
      counts: ``[20]`` crystals in bins of equal width from ``low`` to ``high``.
      most_common: the value that most crystals have, and the share of those that have it.
      outliers: the farthest first.
    """

    name: str
    guess: Guess
    n: int
    missing: int
    low: float
    median: float
    high: float
    counts: list[int]
    most_common: tuple[float, float]
    outliers: list[Outlier]

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to learn."""
        return self.low == self.high

    @property
    def spans_decades(self) -> bool:
        """Whether it is positive and its largest value is over a hundred times its smallest."""
        return self.low > 0 and self.high > 100 * self.low


class Group(NamedTuple):
    """Crystals that are alike.

    Attributes:
      ids: of the crystals.
      formula: reduced formula.
      spread: label → largest minus smallest value, of the labels that two of them have.
    """

    ids: list[str]
    formula: str
    spread: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Check:
    """What there is to say of some crystals. ``print(check)`` says it.

    Attributes:
      name: of the data.
      n: crystals that can be used.
      skipped: ``(id, reason)`` of those that cannot.
      notes: ``(id, note)`` of how they were read.
      labels: what there is to say of each.
      empty: labels that no crystal has a value of.
      duplicates: crystals of the same structure.
      look_alikes: crystals that look alike to a network, `duplicates` among them.
      formulas: crystals of the same reduced formula.
      elements: atomic number → crystals that hold it.
      hardly_seen: atomic number → crystals of the teacher's that hold it, of those that are here.
      n_atoms: ``[n]``
      volume_per_atom: ``[n]``, Å³.
      systems: crystal system → crystals.
      strange: crystals that the teacher has hardly seen the like of.
      overlap: what others have too; None where there are none to compare with.
      advice: what to do, a line each.
    """

    name: str
    n: int
    skipped: list[tuple[str, str]]
    notes: list[tuple[str, str]]
    labels: list[Label]
    empty: list[str]
    duplicates: list[Group]
    look_alikes: list[Group]
    formulas: list[Group]
    elements: dict[int, int]
    hardly_seen: dict[int, int]
    n_atoms: np.ndarray
    volume_per_atom: np.ndarray
    systems: dict[str, int]
    strange: list[Outlier]
    overlap: Overlap | None
    advice: list[str]

    def __str__(self) -> str:
        return "\n".join(map(_wrapped, _lines(self)))

    @property
    def n_repeated(self) -> int:
        """Crystals that share their reduced formula with another."""
        return sum(len(group.ids) for group in self.formulas)

    def as_json(self) -> dict[str, Any]:
        """The content of ``check.json``: numbers and, in ``advice``, words."""
        return {
            "data": self.name,
            "n_crystals": self.n,
            "n_skipped": len(self.skipped),
            "skipped_by_reason": dict(by_reason(self.skipped)),
            "notes_by_reason": dict(by_reason(self.notes)),
            "labels": [
                {
                    "name": label.name,
                    "guessed_unit": label.guess.unit,
                    "guessed_by": label.guess.why,
                    "n": label.n,
                    "missing": label.missing,
                    "min": label.low,
                    "median": label.median,
                    "max": label.high,
                    "histogram": label.counts,
                    "most_common": dict(zip(("value", "share"), label.most_common)),
                    "n_outliers": len(label.outliers),
                }
                for label in self.labels
            ],
            "labels_without_a_value": self.empty,
            "n_duplicates": _n_repeating(self.duplicates),
            "duplicates_differ_by": _spreads(self.duplicates),
            "n_look_alikes": _n_repeating(self.look_alikes),
            "look_alikes_differ_by": _spreads(self.look_alikes),
            "n_formulas": self.n - _n_repeating(self.formulas),
            "n_crystals_of_repeated_formulas": self.n_repeated,
            "formulas_differ_by": _spreads(self.formulas),
            "crystals_by_element": {SYMBOLS[z]: n for z, n in self.elements.items()},
            "hardly_seen_by_teacher": {SYMBOLS[z]: n for z, n in self.hardly_seen.items()},
            "n_atoms": _range(self.n_atoms),
            "volume_per_atom": _range(self.volume_per_atom),
            "crystal_systems": self.systems,
            "n_strange_to_teacher": len({one.id for one in self.strange}),
            "overlap": None if self.overlap is None else self.overlap._asdict(),
            "advice": self.advice,
        }

    def write(self, folder: Path | str) -> None:
        """Write ``check.json``, ``skipped.csv``, ``outliers.csv``, ``duplicates.csv`` and
        ``check.png`` to a folder, which is made if need be."""
        from crysgnn_jax.reporting.check_figure import draw

        folder = Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_csv(folder / "skipped.csv", ("id", "reason"), self.skipped)
            outliers = [one for label in self.labels for one in label.outliers] + self.strange
            rows = (
                (one.id, one.what, one.value, _six_digits(one.score), one.why) for one in outliers
            )
            write_csv(folder / "outliers.csv", ("id", "what", "value", "score", "why"), rows)
            names = [label.name for label in self.labels]
            write_csv(
                folder / "duplicates.csv",
                ("group", "kind", "formula", "id", *(f"{name} differs by" for name in names)),
                (
                    (k, kind, group.formula, id, *(_six_digits(group.spread.get(n)) for n in names))
                    for kind, groups in (
                        ("structure", self.duplicates),
                        ("look-alike", self.look_alikes),
                        ("formula", self.formulas),
                    )
                    for k, group in enumerate(groups, 1)
                    for id in group.ids
                ),
            )
            draw(self, folder / "check.png")
            write_json(folder / "check.json", self.as_json())


def check_store(store: GraphStore, property: str | None = None, against: Any = None) -> Check:
    """Look through the crystals of a store.

    Args:
      store: of graphs as `FeaturiserSettings` makes them.
      property: the only label to look at; all of them where not given.
      against: others to compare with, as of `overlap.overlap`; None for none.

    Raises:
      UserError: there is no such label; or as of `overlap.overlap`.
    """
    if property is not None:
        store.labels(property)
    names = list(store.label_names) if property is None else [property]
    values = {name: np.asarray(store.labels(name)) for name in names}
    labels = [
        _label(name, store.ids, column)
        for name, column in values.items()
        if np.isfinite(column).any()
    ]
    values = {label.name: values[label.name] for label in labels}
    volumes = np.abs(np.linalg.det(store.lattice)) / store.n_nodes
    formulas = np.unique(store.reduced_formula, return_inverse=True)[1]
    elements, holders = _elements(store)
    known = seen(TEACHER)
    hardly = {z: n for z in elements if (n := known.elements.get(z, 0)) < HARDLY * known.n_crystals}
    system = crystal_system(store.space_group)
    alike = look_alikes(store)
    found = Check(
        name=store.source_name,
        n=len(store),
        skipped=store.skipped,
        notes=store.notes,
        labels=labels,
        empty=[name for name in names if name not in values],
        duplicates=_groups(store, same_structures(store, alike), values),
        look_alikes=_groups(store, alike, values),
        formulas=_groups(store, formulas, values),
        elements=elements,
        hardly_seen=hardly,
        n_atoms=np.asarray(store.n_nodes),
        volume_per_atom=volumes,
        systems={name: int((system == k).sum()) for k, name in enumerate(CRYSTAL_SYSTEMS)},
        strange=_strange(store, volumes, hardly, holders, known),
        overlap=None if against is None else overlap(store, against),
        advice=[],
    )
    return dataclasses.replace(found, advice=_advice(found))


def modified_z_scores(values: np.ndarray) -> np.ndarray:
    """How far values are from their median, in robust standard deviations, ``[n]`` → ``[n]``.

    The deviation is measured on either side for itself, by the median distance of what lies there:
    a skewed distribution is no outlier of itself. Where less than a quarter of the values lie on a
    side, that of all values stands for it, and where most of these are equal, there is no score:
    0 everywhere on this side.
    """
    distance = values - np.median(values)
    scores = np.zeros(len(values))
    for side in (distance < 0, distance > 0):
        usual = np.abs(distance[side] if side.mean() >= 0.25 else distance)
        scale = np.median(usual) if len(usual) else 0.0
        if scale > 0:
            scores[side] = _NORMAL * np.abs(distance[side]) / scale
    return scores


def by_reason(entries: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """Reasons or notes, without the numbers and names that are of one crystal alone, and how many
    have each; the most frequent first."""
    plain = lambda text: re.sub(r"'[^']*'|\([^)]*\)|\d[\d.e+-]*", "…", text)
    counts = Counter(plain(text) for _, text in entries)
    return counts.most_common()


def _label(name: str, ids: np.ndarray, column: np.ndarray) -> Label:
    rows = np.flatnonzero(np.isfinite(column))
    values = column[rows]
    found, counts = np.unique(values, return_counts=True)
    label = Label(
        name=name,
        guess=guess_unit(name, values),
        n=len(rows),
        missing=len(column) - len(rows),
        low=float(values.min()),
        median=float(np.median(values)),
        high=float(values.max()),
        counts=np.histogram(values, bins=20)[0].tolist(),
        most_common=(float(found[counts.argmax()]), float(counts.max() / len(rows))),
        outliers=[],
    )
    if len(rows) < FEWEST:
        return label
    # A positive label over decades is usual on a logarithmic scale.
    scale = np.log10 if label.spans_decades else np.asarray
    scores = modified_z_scores(scale(values))
    why = f"modified z-score above {THRESHOLD}" + (", of log10" if label.spans_decades else "")
    order = [k for k in np.argsort(-scores) if scores[k] > THRESHOLD]
    outliers = [
        Outlier(str(ids[rows[k]]), name, f"{values[k]:.6g}", float(scores[k]), why) for k in order
    ]
    return dataclasses.replace(label, outliers=outliers)


def _groups(store: GraphStore, group: np.ndarray, values: dict[str, np.ndarray]) -> list[Group]:
    """Groups of several crystals, from a number for each crystal."""
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    found = []
    for rows in parts:
        if len(rows) > 1:
            spread = {
                name: float(np.ptp(known))
                for name, column in values.items()
                if len(known := column[rows][np.isfinite(column[rows])]) > 1
            }
            formula = str(store.reduced_formula[rows[0]])
            found.append(Group(store.ids[rows].tolist(), formula, spread))
    return found


def _elements(store: GraphStore) -> tuple[dict[int, int], dict[int, np.ndarray]]:
    """Atomic number → crystals that hold it: their number, and their rows."""
    crystal = np.repeat(np.arange(len(store)), np.diff(store.site_offsets))
    pairs = np.unique(np.asarray(store.site_species).astype(np.int64) * len(store) + crystal)
    number, row = np.divmod(pairs, len(store))
    holders = {int(z): row[number == z] for z in np.unique(number)}
    return {z: len(rows) for z, rows in holders.items()}, holders


def _strange(
    store: GraphStore,
    volumes: np.ndarray,
    hardly: dict[int, int],
    holders: dict[int, np.ndarray],
    known: Seen,
) -> list[Outlier]:
    found = []
    for z, n in hardly.items():
        why = f"in {n} of the {known.n_crystals} crystals that {TEACHER} has seen"
        for row in holders[z]:
            found.append(Outlier(str(store.ids[row]), "element", SYMBOLS[z], None, why))
    most, usual = known.n_atoms[1 - HARDLY], known.volume_per_atom
    why = f"{100 * (1 - HARDLY):g} % of the crystals that {TEACHER} has seen have up to {most:g}"
    for row in np.flatnonzero(store.n_nodes > most).tolist():
        n = n_primitive(store, row)  # a perfect supercell is what its cell is
        if n > most:
            found.append(Outlier(str(store.ids[row]), "atoms", str(n), None, why))
    low, high = usual[HARDLY], usual[1 - HARDLY]
    why = f"nearly all that {TEACHER} has seen have {low:g} to {high:g} Å³"
    for row in np.flatnonzero((volumes < low) | (volumes > high)):
        value = f"{volumes[row]:.4g}"
        found.append(Outlier(str(store.ids[row]), "volume per atom", value, None, why))
    return found


def _n_repeating(groups: Iterable[Group]) -> int:
    """Crystals that come after another of their group."""
    return sum(len(group.ids) - 1 for group in groups)


def _spreads(groups: Iterable[Group]) -> dict[str, dict[str, float]]:
    """Label → how far the values within a group are apart: number of groups, median and largest."""
    apart: dict[str, list[float]] = {}
    for group in groups:
        for name, spread in group.spread.items():
            apart.setdefault(name, []).append(spread)
    return {
        name: {"n_groups": len(all), "median": float(np.median(all)), "max": max(all)}
        for name, all in apart.items()
    }


def _advice(check: Check) -> list[str]:
    """What to do, a line each."""
    lines = []
    n_all = check.n + len(check.skipped)
    if len(check.skipped) > 0.05 * n_all:
        lines.append(
            f"{100 * len(check.skipped) / n_all:.0f} % of the crystals cannot be used: mend them "
            "first, for what is left may be a part of another kind"
        )
    if not check.labels:
        lines.append("there is no label to learn: pretrain, embed and predict can use the crystals")
    for label in check.labels:
        value, share = label.most_common
        if label.is_constant:
            lines.append(f"{label.name} is {value:g} everywhere: there is nothing to learn")
            continue
        if share >= MOSTLY:
            lines.append(
                f"{100 * share:.0f} % have {label.name} {value:g}: a mean error says little of "
                "the others; look at them by themselves"
            )
        n_test = round(0.1 * label.n)
        if n_test < FEWEST:
            lines.append(
                f"{label.name}: 80/10/10 % of {label.n} crystals leaves {n_test} to test on, too "
                "few to tell networks apart; repeat it with several seeds (compare --seeds), or "
                "hold out more in a split of your own"
            )
    learnable = [label for label in check.labels if not label.is_constant]
    if wide := [label.name for label in learnable if label.spans_decades]:
        lines.append(
            f"{', '.join(wide)}: positive, and over two decades wide; learn the log10, or the "
            "largest values alone decide"
        )
    if far := [f"{len(x.outliers)} of {x.name}" for x in learnable if x.outliers]:
        lines.append(
            f"outliers: look at them before training ({', '.join(far)}); a wrong value weighs by "
            "its square"
        )
    repeated = check.n_repeated / check.n
    if check.look_alikes or repeated > 0.1:
        what = []
        if n := _n_repeating(check.duplicates):
            what.append(counted(n, "crystal") + (" repeats" if n == 1 else " repeat") + " another")
        if n := _n_repeating(check.look_alikes) - n:
            what.append(counted(n, "crystal") + (" looks" if n == 1 else " look") + " like another")
        if repeated > 0.1:
            what.append(f"{100 * repeated:.0f} % share their formula with another")
        lines.append(f"{', '.join(what)}: take --split formula, or tests are on what was learned")
    if check.hardly_seen:
        symbols = ", ".join(SYMBOLS[z] for z in check.hardly_seen)
        lines.append(
            f"the teacher {TEACHER} hardly knows {symbols}: see whether a vanilla student does "
            "better there, or pretrain on your own crystals"
        )
    if check.overlap is not None and (check.overlap.n_ids or check.overlap.formulas):
        n = len(check.overlap.formulas or ()) or check.overlap.n_ids
        lines.append(
            f"{n} crystals are those of {check.overlap.name}, or polymorphs of them: no test for "
            "what has learned from it"
        )
    return lines or ["nothing speaks against training on these crystals"]


def _lines(check: Check) -> list[str]:
    """The text, line by line."""
    n_skipped = len(check.skipped)
    lines = [f"{check.name}: {counted(check.n, 'crystal')} read, {n_skipped} skipped"]
    for word, entries in (("skipped", check.skipped), ("note", check.notes)):
        reasons = by_reason(entries)
        lines += [f"  {word}: {n} × {reason}" for reason, n in reasons[:SHOWN]]
        lines += [f"  … and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
    if check.labels:
        lines += ["", _table(check.labels), ""]
        unsure = [label for label in check.labels if label.guess.unit == "?"]
        lines.append("units are guessed by name and range")
        lines += [f"  {label.name}: {label.guess.why}" for label in unsure]
    if check.empty:
        lines.append(f"labels without a value: {_some(check.empty)}")
    for label in check.labels:
        if label.outliers:
            named = [f"{one.id} ({signed(float(one.value), 4)})" for one in label.outliers]
            lines.append(f"outliers of {label.name}: {_some(named)}")
    for words, groups in (
        ("repeated structures", check.duplicates),
        ("crystals that look like an earlier one to the networks", check.look_alikes),
    ):
        named = [" = ".join(group.ids[:3]) for group in groups]
        lines.append(f"{words}: {_n_repeating(groups)}" + (f": {_some(named)}" if named else ""))
        lines += _differ(groups)
    n_formulas = check.n - _n_repeating(check.formulas)
    lines.append(
        f"reduced formulas: {n_formulas}; {counted(check.n_repeated, 'crystal')} of repeated ones"
    )
    lines += _differ(check.formulas)
    hardly = [
        f"{SYMBOLS[z]} (here {check.elements[z]}, there {n})" for z, n in check.hardly_seen.items()
    ]
    known = seen(TEACHER)
    lines.append(
        f"elements: {len(check.elements)}; hardly seen by {TEACHER}, in its {known.n_crystals} "
        f"crystals: {_some(hardly) if hardly else 'none'}"
    )
    atoms, volume = _range(check.n_atoms), _range(check.volume_per_atom)
    sizes = len({one.id for one in check.strange if one.what != "element"})
    lines.append(
        "atoms {min:g} to {max:g} (median {median:g}), ".format(**atoms)
        + "volume per atom {min:.1f} to {max:.1f} Å³ (median {median:.1f}); ".format(**volume)
        + f"strange to {TEACHER} by size: {sizes}"
    )
    if check.overlap is not None:
        lines.append(_overlap(check))
    return [*lines, "", "what to do", *(f"- {line}" for line in check.advice)]


def _overlap(check: Check) -> str:
    found = check.overlap
    assert found is not None
    sides = [f"{len(ids)} in {side}" for side, ids in found.ids.items() if side != "all"]
    of = f" ({', '.join(sides)})" if sides else ""
    line = f"against {found.name}: {found.n_ids} of {check.n} crystals are there by id{of}"
    if found.formulas is not None:
        line += f", {len(found.formulas)} by reduced formula"
    return line


def _wrapped(line: str) -> str:
    """A line of words in lines of up to `WIDTH`; the table stays as it is."""
    if "\n" in line:
        return line
    indent = (len(line) - len(line.lstrip())) * " " + "  "
    return textwrap.fill(
        line, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _table(labels: Sequence[Label]) -> str:
    return text_table(
        ["label", "unit", "n", "missing", "min", "median", "max", "outliers", "histogram"],
        [
            [
                label.name,
                str(label.guess),
                str(label.n),
                str(label.missing),
                *(signed(x, 4) for x in (label.low, label.median, label.high)),
                str(len(label.outliers)),
                _sparkline(label.counts),
            ]
            for label in labels
        ],
    )


def _differ(groups: Sequence[Group]) -> list[str]:
    return [
        f"  {name} differs within them by {signed(told['median'], 4)} in the median, "
        f"{signed(told['max'], 4)} at most"
        for name, told in _spreads(groups).items()
    ]


def _sparkline(counts: Sequence[int]) -> str:
    """Heights of the bins as characters; a bin with anything in it is no blank."""
    most = max(counts)
    steps = "▁▂▃▄▅▆▇█"
    return "".join(steps[max(0, -(-8 * n // most) - 1)] if n else " " for n in counts).rstrip()


def _some(words: Sequence[str]) -> str:
    more = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" … and {more} more" if more > 0 else "")


def _six_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _range(values: np.ndarray) -> dict[str, float]:
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }
