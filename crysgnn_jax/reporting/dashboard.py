"""Many runs on one page, those that go on as well."""

import html
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import plotly.graph_objects as go

from crysgnn_jax.errors import UserError
from crysgnn_jax.reporting import page
from crysgnn_jax.reporting.page import PALETTE
from crysgnn_jax.reporting.records import Record
from crysgnn_jax.reporting.tables import number, with_unit
from crysgnn_jax.reporting.verdict import name_of_property
from crysgnn_jax.training.workdir import CHECKPOINTS, CONFIG, REPORT

REFRESH = 5
"""Seconds between two states of a page that follows its runs."""

SILENCE = 5.0
"""A run goes on for so many times the longest pause between its last lines, and at least
`LEAST_SILENCE`; after that nobody knows."""

LEAST_SILENCE = 120.0
"""Seconds: a step may be compiled, or the teacher asked, before the first line."""

RUNNING, FINISHED = "running", "finished"


def runs_in(folders: Iterable[Path]) -> list[Record]:
    """The runs in folders and the folders within, by path.

    Raises:
      UserError: a folder is not there.
    """
    found: dict[Path, Record] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name one that holds runs")
        for path in _searched(folder):
            # One whose settings are half-written, or damaged, has nothing to show.
            try:
                record = Record.read(path)
            except UserError:
                continue
            if "model" in record.made_with:
                found[path] = record
    return [found[path] for path in sorted(found)]


def _searched(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != CHECKPOINTS)
        if CONFIG in files:
            yield Path(place)
            folders.clear()


def state_of(record: Record, now: float) -> str:
    """``finished``, ``running``, ``failed``, or for how long it has not written a line.

    Args:
      record: the run.
      now: seconds since 1970.
    """
    if record.result is not None:
        return FINISHED
    if (record.path / "error.txt").exists():
        return "failed"
    times = [line["time"] for line in record.lines[-20:] if "time" in line]
    pauses = [b - a for a, b in zip(times, times[1:])]
    last = times[-1] if times else (record.path / CONFIG).stat().st_mtime
    silent = now - last
    if silent < max(LEAST_SILENCE, SILENCE * max(pauses, default=0.0)):
        return RUNNING
    return f"silent for {_duration(silent)}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def dashboard(records: Sequence[Record], output: Path, *, follow: bool = False) -> str:
    """The page, as HTML.

    Args:
      records: the runs.
      output: where it will lie, for links to the pages of its runs.
      follow: whether it loads itself again, as long as a run goes on.
    """
    now = time.time()
    states = [state_of(record, now) for record in records]
    n_running = states.count(RUNNING)
    home = _common([record.path for record in records])
    counted = f"{len(records)} run{'s' if len(records) != 1 else ''}"
    going = f", {n_running} of them running" if n_running else ""
    stamp = time.strftime("%d %B %Y, %H:%M:%S UTC", time.gmtime(now))
    body = [
        "<h1>Runs</h1>",
        page.paragraph(f"{counted} in {home.name or home}{going}; as of {stamp}", "soft"),
    ]
    groups: dict[tuple[str, str], list[int]] = {}
    for k, record in enumerate(records):
        groups.setdefault((record.property, record.unit), []).append(k)
    for n, ((property, unit), rows) in enumerate(groups.items()):
        body.append(page.heading(name_of_property(property) or "Without labels"))
        figure = _curves([(records[k], _name(records[k], home)) for k in rows], unit)
        if figure.data:
            body.append(page.plot(f"curves-{n}", figure))
        here = [(records[k], states[k], PALETTE[i % len(PALETTE)]) for i, k in enumerate(rows)]
        body.append(_table(here, home, output, unit))
    return page.page("Runs", body, refresh=REFRESH if follow else None)


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.resolve().parent for path in paths]))


def _name(record: Record, home: Path) -> str:
    return record.path.resolve().relative_to(home).as_posix()


def _score(record: Record) -> str:
    return "validation_mae" if record.property else "validation_loss"


def _curves(runs: Sequence[tuple[Record, str]], unit: str) -> go.Figure:
    """The validation error of each run over its epochs; colours as in the table."""
    figure = go.Figure()
    drawn: list[float] = []
    for k, (record, name) in enumerate(runs):
        epochs, values = record.curve(_score(record))
        drawn += values
        if values:
            figure.add_scatter(
                x=epochs,
                y=values,
                name=name,
                mode="lines" if len(epochs) > 1 else "markers",
                line={"color": PALETTE[k % len(PALETTE)], "width": 1.8},
                hovertemplate=f"<b>{html.escape(name)}</b><br>epoch %{{x}}: %{{y:.4g}}"
                "<extra></extra>",
            )
    if drawn:
        words = "validation error" if runs[0][0].property else "validation loss"
        figure.update_layout(
            xaxis=page.epochs_of(max(max(trace.x) for trace in figure.data)),
            yaxis=page.axis_of(drawn),
            yaxis_title=with_unit(words, unit),
            showlegend=False,
            hovermode="closest",
        )
    return figure


def _table(runs: Sequence[tuple[Record, str, str]], home: Path, output: Path, unit: str) -> str:
    rows = []
    for record, state, colour in runs:
        name = html.escape(_name(record, home))
        report = record.path / REPORT
        if report.exists():
            target = os.path.relpath(report.resolve(), output.resolve().parent)
            name = f'<a href="{html.escape(Path(target).as_posix())}">{name}</a>'
        _, scores = record.curve(_score(record))
        result = record.result or {}
        n, of = len(scores), record.settings.get("epochs")
        # Networks that come with the package have no lines of their epochs.
        least = min(scores) if scores else result.get(_score(record), float("nan"))
        epoch = "–" if of is None else f"{result.get('epochs', n)} of {of}"
        rows.append(
            [
                f'<span class="run"><span class="dot" style="background:{colour}"></span>'
                f"{name}</span>",
                html.escape(record.title),
                html.escape(record.data),
                state,
                epoch,
                number(least),
                *(number(result.get(name, float("nan"))) for name in _OF_TESTS if record.property),
            ]
        )
    tested = ["test error", "of the mean"] if runs[0][0].property else []
    best = "least validation error" if tested else "least validation loss"
    header = ["run", "network", "data", "state", "epoch", best, *tested]
    note = page.paragraph(f"Errors are mean absolute errors, in {unit}.", "soft") if unit else ""
    return note + page.table(header, rows, numbers=range(4, len(header)))


_OF_TESTS = ("test_mae", "test_mae_of_mean")
