"""The page of a comparison: its table, its runs, and their errors drawn."""

import html
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from crysgnn_jax.reporting import page
from crysgnn_jax.reporting.comparison import (
    DISTILLED,
    FINE_TUNED,
    FINE_TUNED_STUDENT,
    VANILLA,
    Cell,
    Row,
    mean_and_deviation,
    mean_and_spread,
    no_better_than_mean,
)
from crysgnn_jax.reporting.page import COLOURS
from crysgnn_jax.reporting.tables import number, with_unit
from crysgnn_jax.reporting.verdict import name_of_property
from crysgnn_jax.training.workdir import REPORT

CERTAIN = 0.05
"""p below which a difference is told as one."""

_VARIANTS = {
    VANILLA: ("train", "circle"),
    DISTILLED: ("validation", "square"),
    FINE_TUNED: ("test", "diamond"),
}
"""Variant → its colour and mark."""


def comparison_page(
    rows: Sequence[Row],
    notes: Sequence[str],
    runs: Mapping[Cell, Path],
    data: str,
    folder: Path,
) -> str:
    """The page, as HTML.

    Args:
      rows: of the table.
      notes: that stand below it.
      runs: cell → folder of its run.
      data: name of the crystals.
      folder: where the page will lie, for links to the pages of the runs.
    """
    warnings = no_better_than_mean(rows)
    whole = [row for row in rows if row.fraction == max(row.fraction for row in rows)]
    plain = [note.strip() for note in notes]
    body = [
        "<h1>Students with and without the teacher</h1>",
        page.paragraph(data, "soft"),
        *(page.paragraph(f"{_gain(row)}.", "lead") for row in whole if not math.isnan(row.gain)),
        *(page.paragraph(warning, "warning") for warning in warnings),
        page.heading("Test errors"),
        _table(rows),
        *(page.paragraph(note, "soft") for note in plain if note not in warnings),
    ]
    for n, property in enumerate(dict.fromkeys(row.property for row in rows)):
        here = [row for row in rows if row.property == property]
        body.append(page.heading(name_of_property(property)))
        body.append(
            page.paragraph(
                "Mean over the seeds; bars: their standard deviation. Dashed: the error of always "
                "predicting the mean of the training crystals.",
                "soft",
            )
        )
        body.append('<div class="two">')
        students = dict.fromkeys(row.student for row in here if row.student != FINE_TUNED_STUDENT)
        for k, student in enumerate(students or [FINE_TUNED_STUDENT]):
            shown = [row for row in here if row.student in (student, FINE_TUNED_STUDENT)]
            body.append(page.plot(f"errors-{n}-{k}", _errors(shown, student)))
        body.append("</div>")
    body += [page.heading("Runs"), page.folded(f"All {len(runs)} runs", _runs(runs, folder))]
    return page.page("Students with and without the teacher", body)


def _gain(row: Row) -> str:
    what = f"the error of {row.student} for {name_of_property(row.property)}"
    gain = f"{row.gain:+.1f} %".replace("-", "\N{MINUS SIGN}")
    about = f"with {row.n_train:,.0f} training crystals"
    if not row.p_value < CERTAIN:
        known = f"p = {number(row.p_value, 2)}" if row.p_value == row.p_value else "too few seeds"
        return f"It cannot be told whether distillation changes {what} {about} ({gain}, {known})"
    how = "lowers" if row.gain >= 0 else "raises"
    return f"Distillation {how} {what} {about} ({gain}, p = {number(row.p_value, 2)})"


def _table(rows: Sequence[Row]) -> str:
    some = {variant for row in rows for variant in row.errors}
    variants = [variant for variant in _VARIANTS if variant in some]
    header = ["property", "student", "training crystals", "their mean", *variants, "gain", "p"]
    published = any(row.published for row in rows)
    lines = []
    for row in rows:
        errors = [
            mean_and_spread(row.errors[name]) if name in row.errors else "–" for name in variants
        ]
        student = "the teacher's encoder" if row.student == FINE_TUNED_STUDENT else row.student
        line = [
            html.escape(with_unit(name_of_property(row.property), row.unit)),
            html.escape(student),
            f"{row.n_train:,.0f}",
            mean_and_spread(row.of_mean),
            *errors,
            "–" if math.isnan(row.gain) else f"{row.gain:+.1f} %".replace("-", "\N{MINUS SIGN}"),
            number(row.p_value, 2),
        ]
        if published:
            line.append("{} → {}".format(*row.published) if row.published else "–")
        lines.append(line)
    header += ["published"] if published else []
    return page.table(header, lines, numbers=range(2, len(header)))


def _errors(rows: Sequence[Row], student: str) -> go.Figure:
    """Errors of one student: against the number of training crystals where there are several, else
    one variant beside the other, with each seed's."""
    sizes = sorted({row.n_train for row in rows})
    figure = go.Figure()
    for variant, (colour, mark) in _VARIANTS.items():
        points = sorted(
            (row.n_train, *mean_and_deviation(row.errors[variant]))
            for row in rows
            if np.isfinite(row.errors.get(variant, np.nan)).any()
        )
        if not points:
            continue
        at: Any
        at, means, spreads = zip(*points)
        if len(sizes) == 1:
            at = (variant,)
            of_seeds = np.concatenate([row.errors.get(variant, []) for row in rows])
            figure.add_scatter(
                x=[variant] * len(of_seeds), y=of_seeds, mode="markers", showlegend=False,
                marker={"color": COLOURS["other"], "size": 5},
                hovertemplate=f"{variant}, a seed: %{{y:.4g}}<extra></extra>",
            )  # fmt: skip
        figure.add_scatter(
            x=at, y=means, name=variant, mode="lines+markers",
            error_y={"array": spreads, "thickness": 1.2, "width": 4},
            marker={"symbol": mark, "size": 9}, line={"color": COLOURS[colour]},
            hovertemplate=f"{variant}: %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    of_mean = {row.n_train: mean_and_deviation(row.of_mean)[0] for row in rows}
    at = [trace.x[0] for trace in figure.data] if len(sizes) == 1 else sizes
    figure.add_scatter(
        x=at, y=[of_mean[size] for size in sizes] * (len(at) // len(sizes)),
        name="predicting the mean", mode="lines", line={"dash": "dash", "color": COLOURS["other"]},
        hovertemplate="predicting the mean: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    if len(sizes) == 1:
        figure.update_xaxes(title_text=f"{sizes[0]:,.0f} training crystals", type="category")
    else:
        ticks = [f"{size:,.0f}" for size in sizes]
        figure.update_xaxes(title_text="training crystals", tickvals=sizes, ticktext=ticks)
    figure.update_yaxes(title_text=with_unit("test error", rows[0].unit), rangemode="tozero")
    figure.update_layout(title={"text": student.rpartition(":")[2], "font": {"size": 14}})
    return figure


def _runs(runs: Mapping[Cell, Path], folder: Path) -> str:
    lines = []
    for cell, path in runs.items():
        report = Path(os.path.relpath(path / REPORT, folder)).as_posix()
        name = f"{cell.student} {cell.variant}"
        lines.append(
            [
                f'<a href="{html.escape(report)}">{html.escape(name)}</a>',
                html.escape(name_of_property(cell.property)),
                f"{100 * cell.fraction:g} %",
                str(cell.seed),
            ]
        )
    header = ["run", "property", "of the training crystals", "seed"]
    return page.table(header, lines, numbers=(2, 3))
