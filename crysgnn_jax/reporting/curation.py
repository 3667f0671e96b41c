"""What became of the crystals of a curation: in words, as tables, and as a picture."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.curation.pipeline import Facts
from crysgnn_jax.curation.work import TOTALS
from crysgnn_jax.graphs.symmetry import CRYSTAL_SYSTEMS, N_SPACE_GROUPS, crystal_system
from crysgnn_jax.reporting.check import by_reason
from crysgnn_jax.reporting.tables import counted, text_table

_WORDS = {
    "read": "read and validate",
    "neighbours": "look for neighbours",
    "symmetry": "label the symmetry",
    "reduce": "reduce the graphs",
    "look": "describe how they look",
    "write": "write drafts",
}
"""Step of a worker → in words, in the order of the work."""


def report_files(facts: Facts, about: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a report.

    Args:
      facts: what became of the crystals.
      about: command, commit, versions.

    Returns:
      Name → content: ``report.json``, ``report.png``, ``skipped.csv``, ``duplicates.csv``, and
      ``excluded.csv`` where something was to be excluded.
    """
    names = facts.sources
    files = {
        "report.json": json.dumps({**as_json(facts), **about}, indent=1, ensure_ascii=False) + "\n",
        "skipped.csv": _csv(
            ("id", "reason", "source", "to_be_excluded"),
            [
                *((id, reason, names[source], "") for id, reason, source in facts.skipped),
                *((id, reason, source, "yes") for id, reason, source in facts.not_excluded),
            ],
        ),
        "duplicates.csv": _csv(("id", "source", "duplicate_of", "its_source"), facts.duplicates),
    }
    if facts.excluded_sources:
        header = ("id", "source", "excluded_crystal", "its_source")
        files["excluded.csv"] = _csv(header, facts.excluded)
    return {**{name: text.encode() for name, text in files.items()}, "report.png": picture(facts)}


def as_json(facts: Facts) -> dict[str, Any]:
    """The content of ``report.json``, but for what it was made by."""
    n_read, n_kept = sum(facts.read), sum(facts.kept)
    seconds = sum(facts.seconds.values())
    # What an earlier try has made took its time there.
    made = 1 - facts.n_found / facts.n_drafts
    return {
        "data": facts.name,
        "read": n_read,
        "skipped": len(facts.skipped),
        "skipped_by_reason": dict(by_reason([(id, why) for id, why, _ in facts.skipped])),
        "notes_by_reason": dict(by_reason(facts.notes)),
        "excluded": len(facts.excluded),
        "to_be_excluded_and_skipped": len(facts.not_excluded),
        "to_be_excluded_and_skipped_by_reason": dict(
            by_reason([(id, why) for id, why, _ in facts.not_excluded])
        ),
        "duplicates": len(facts.duplicates),
        "duplicates_by_sources": [
            {"source": source, "of": other, "crystals": n}
            for (source, other), n in sorted(facts.pairs.items(), key=lambda pair: -pair[1])
        ],
        "kept": n_kept,
        "sources": [dict(zip(_COLUMNS, row)) for row in _by_source(facts)],
        "totals": dict(zip(("atoms", "edges", "sites", "bonds"), facts.counts["totals"].tolist())),
        "atoms_per_crystal": _counts(facts.counts["n_atoms"]),
        "crystal_systems": _systems(facts),
        "space_groups": _counts(facts.counts["space_groups"]),
        "elements": {SYMBOLS[z]: n for z, n in _elements(facts).items()},
        "seconds": {name: round(value, 2) for name, value in facts.seconds.items()},
        "crystals_per_second": round(n_read / seconds, 1) if made == 1 else None,
        "steps": _steps(facts),
        "drafts": facts.n_drafts,
        "drafts_found": facts.n_found,
    }


def _steps(facts: Facts) -> dict[str, dict[str, Any]]:
    """What was done → crystals that came out of it, seconds, and crystals that went in a second.

    Seconds of the steps up to the drafts are those of all workers together, one core each; writing
    drafts of an earlier try is not among them. Those of comparing and of the shards are of the
    clock.
    """
    n_read = sum(facts.read)
    n_valid = n_read - len(facts.skipped)
    n_kept = sum(facts.kept)
    taken = {name: facts.worker_seconds.get(name, 0.0) for name in _WORDS}
    found = {
        **{name: (n_valid, n_valid, seconds) for name, seconds in taken.items()},
        "read": (n_read, n_valid, taken["read"]),
        "compare": (n_valid, n_kept, facts.seconds["duplicates"]),
        "shards": (n_kept, n_kept, facts.seconds["shards"]),
    }
    return {
        name: {
            "crystals": n_out,
            "seconds": round(seconds, 2),
            "crystals_per_second": round(n_in / seconds, 1) if seconds else None,
        }
        for name, (n_in, n_out, seconds) in found.items()
    }


def lines(facts: Facts) -> list[str]:
    """The report in words."""
    rows = [[str(cell) for cell in row] for row in _by_source(facts)]
    if len(rows) > 1:
        sums = np.array([row[1:] for row in _by_source(facts)]).sum(axis=0)
        rows.append(["all", *map(str, sums.tolist())])
    total = dict(zip(TOTALS, facts.counts["totals"].tolist()))
    n_groups = int(np.count_nonzero(facts.counts["space_groups"]))
    steps = ", ".join(
        f"{words} {facts.worker_seconds.get(name, 0.0):.1f}" for name, words in _WORDS.items()
    )
    out = [
        *text_table(_COLUMNS, rows).splitlines(),
        "",
        f"{counted(sum(facts.kept), 'crystal')} of {counted(len(_elements(facts)), 'element')} and "
        f"{counted(n_groups, 'space group')}: {counted(total['n_nodes'], 'atom')}, which graphs "
        f"reduce to {counted(total['n_sites'], 'site')}",
        f"seconds of workers: {steps}",
    ]
    if facts.pairs:
        found = sorted(facts.pairs.items(), key=lambda pair: -pair[1])
        listed = ", ".join(f"{n} of {source} in {other}" for (source, other), n in found[:5])
        out.insert(-1, f"duplicates: {listed}" + (" …" if len(found) > 5 else ""))
    return out


_COLUMNS = ("source", "read", "skipped", "excluded", "duplicates", "kept")


def _by_source(facts: Facts) -> list[list[Any]]:
    skipped = Counter(source for _, _, source in facts.skipped)
    excluded = Counter(source for _, source, _, _ in facts.excluded)
    duplicates = Counter(source for _, source, _, _ in facts.duplicates)
    return [
        [name, facts.read[k], skipped[k], excluded[name], duplicates[name], facts.kept[k]]
        for k, name in enumerate(facts.sources)
    ]


def _elements(facts: Facts) -> dict[int, int]:
    counts = facts.counts["elements"]
    return {z: int(counts[z]) for z in np.flatnonzero(counts).tolist()}


def _systems(facts: Facts) -> dict[str, int]:
    groups = facts.counts["space_groups"][1 : N_SPACE_GROUPS + 1]
    system = crystal_system(np.arange(1, N_SPACE_GROUPS + 1))
    counts = np.bincount(system, weights=groups, minlength=len(CRYSTAL_SYSTEMS))
    return dict(zip(CRYSTAL_SYSTEMS, counts.astype(int).tolist()))


def _counts(values: np.ndarray) -> dict[str, int]:
    return {str(k): int(values[k]) for k in np.flatnonzero(values).tolist()}


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def picture(facts: Facts) -> bytes:
    """``report.png``: elements, crystal systems, atoms per cell, space groups; and what became of
    the crystals of each source."""
    from crysgnn_jax.reporting.check_figure import elements_panel, sizes_panel, systems_panel
    from crysgnn_jax.reporting.figures import head, new_figure

    figure = new_figure(9.6, 8.2)
    shown = ", ".join(Path(name).name for name in facts.sources[:4])
    more = f" and {len(facts.sources) - 4} more sources" if len(facts.sources) > 4 else ""
    n_kept = counted(sum(facts.kept), "crystal")
    head(figure, f"{n_kept} curated from the {sum(facts.read)} of {shown}{more}")
    grid = figure.add_gridspec(3, 6, height_ratios=[2.9, 2.3, 2.0])
    elements_panel(figure, figure.add_subplot(grid[0, :4]), _elements(facts))
    systems_panel(figure.add_subplot(grid[0, 4:]), _systems(facts))
    sizes_panel(figure.add_subplot(grid[1, :3]), facts.counts["n_atoms"])
    _outcomes(figure.add_subplot(grid[1, 3:]), facts)
    _space_groups(figure.add_subplot(grid[2, :]), facts.counts["space_groups"])
    out = io.BytesIO()
    figure.savefig(out, dpi=300, format="png")
    return out.getvalue()


_OUTCOMES = {
    "kept": "#0072b2",
    "duplicates": "#e69f00",
    "excluded": "#cc79a7",
    "skipped": "#999999",
}
"""What becomes of a crystal, and its colour (Okabe and Ito's)."""

_MOST_BARS = 8
"""Sources that have a bar of their own."""


def _outcomes(axis: Any, facts: Facts) -> None:
    """A bar for each source, of what became of its crystals."""
    rows = [dict(zip(_COLUMNS, row)) for row in _by_source(facts)]
    if len(rows) > _MOST_BARS:
        rest = rows[_MOST_BARS - 1 :]
        summed = {name: sum(row[name] for row in rest) for name in _COLUMNS[1:]}
        rows = [*rows[: _MOST_BARS - 1], {"source": f"{len(rest)} others", **summed}]
    places = np.arange(len(rows))
    begin = np.zeros(len(rows))
    for name, colour in _OUTCOMES.items():
        lengths = np.array([row[name] for row in rows])
        if lengths.any():
            axis.barh(places, lengths, left=begin, color=colour, label=name, height=0.6)
        begin += lengths
    axis.set_yticks(places, [_short(row["source"]) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.margins(x=0.03)
    axis.set_xlabel("crystals read", fontsize=8)
    axis.tick_params(labelsize=7.5)
    axis.set_axisbelow(True)
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def _short(name: str, length: int = 22) -> str:
    name = Path(name).name or name
    return name if len(name) <= length else name[: length - 1] + "…"


def _space_groups(axis: Any, counts: np.ndarray) -> None:
    """A bar for each space group, its colour that of its crystal system."""
    numbers = np.arange(1, N_SPACE_GROUPS + 1)
    systems = crystal_system(numbers)
    tones = ("#0072b2", "#56b4e9")
    axis.bar(numbers, counts[1:], width=1.0, color=[tones[k % 2] for k in systems])
    axis.set_yscale("log")
    axis.set_ylim(0.7, 2.5 * max(counts.max(), 2))
    axis.set_xlim(0, N_SPACE_GROUPS + 1)
    # The first two have no room for a name each.
    names = {0: "triclinic, monoclinic", **dict(enumerate(CRYSTAL_SYSTEMS[2:], 2))}
    for k, name in names.items():
        own = numbers[systems == k]
        x, side = (own[0], "left") if k == 0 else (own.mean(), "center")
        axis.text(x, 1.2 * max(counts.max(), 2), name, fontsize=7, ha=side)
    axis.set_axisbelow(True)
    axis.set_xlabel("space group (number; shades: crystal systems)", fontsize=8)
    axis.set_ylabel("crystals", fontsize=8)
    axis.tick_params(labelsize=7.5)
    axis.grid(alpha=0.3, axis="y")
