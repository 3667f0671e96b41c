"""The page of one run: all that its folder tells, in one file that can be sent to others."""

import datetime
import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from ase.data import atomic_numbers
from ase.formula import Formula

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS, place_in_table
from crysgnn_jax.graphs.symmetry import CRYSTAL_SYSTEMS, crystal_system
from crysgnn_jax.reporting import page
from crysgnn_jax.reporting.crystal_svg import colour_of, drawing
from crysgnn_jax.reporting.page import COLOURS
from crysgnn_jax.reporting.records import (
    SPLITS,
    Predicted,
    Record,
    as_text,
    r_squared,
    words,
)
from crysgnn_jax.reporting.tables import number, with_unit
from crysgnn_jax.reporting.verdict import name_of_property, objectives_of, verdict

N_WORST = 10

MOST_POINTS = 5_000
"""Points of one side of the split: more are drawn by lot, so that the page stays small."""

ENOUGH = 3
"""Crystals that an element must be in for its error to set the colours."""

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Least numbers of atoms of the groups that crystals are sorted into by size, but the first."""


def page_of(record: Record, explanation: Sequence[tuple[str, float]] = ()) -> str:
    """The page of a finished run, as HTML.

    Args:
      record: the run, with a result.
      explanation: what its network says that the predictions rest on, if it does.
    """
    result = record.result or {}
    title = record.title
    if record.property:
        title += f": {name_of_property(record.property)}"
    first, *warnings = verdict(result, record.epochs)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        page.paragraph(f"{record.data}{_finished(record)}", "soft"),
        page.paragraph(first, "lead"),
        *(page.paragraph(warning, "warning") for warning in warnings),
    ]
    predicted = record.predicted
    if predicted is None:
        body += _objectives(record)
    else:
        body += [page.heading("Result"), _errors(record, predicted)]
    body += [page.heading("Training"), *_curves(record)]
    if predicted is not None:
        test = predicted.of("test")
        body += [page.heading("Prediction and truth"), *_parity(record, predicted)]
        body += _where(record, test)
        body += [page.heading("The largest errors"), *_worst(record, test)]
    if explanation:
        body += [page.heading("What it rests on"), *_explanation(explanation)]
    body += [
        page.heading("What is not known"),
        "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in _unknown(record)) + "</ul>",
        page.heading("Settings"),
        page.folded("What the outcome depends on", page.settings_table(as_text(record.made_with))),
        page.folded("Versions and machine", page.settings_table(as_text(record.environment))),
        page.folded("All of result.json", page.settings_table(as_text(result))),
    ]
    return page.page(title, body)


def _finished(record: Record) -> str:
    times = [line["time"] for line in record.lines if "time" in line]
    if not times:
        return ""
    end = datetime.datetime.fromtimestamp(times[-1], datetime.UTC)
    return f"; trained until {end:%d %B %Y, %H:%M} UTC"


def _errors(record: Record, predicted: Predicted) -> str:
    rows = []
    for name in SPLITS:
        side = predicted.of(name)
        if not len(side.ids):
            continue
        squares = np.mean((side.predictions - side.targets) ** 2)
        errors = [side.errors.mean(), np.sqrt(squares), predicted.error_of_mean(name)]
        fit = r_squared(side.targets, side.predictions)
        rows.append([name, f"{len(side.ids):,}", *map(number, errors), number(fit)])
    unit = record.unit
    header = ["", "crystals", "MAE", "RMSE", "MAE of the mean", "R²"]
    words = "Mean absolute error, root mean square error, and the error of always predicting the "
    words += f"mean of the training crystals{f', in {unit}' if unit else ''}."
    result = record.result or {}
    more = {
        "epochs": f"{result['epochs']}, of which number {result['best_epoch']} was chosen",
        "time": f"{result['seconds']:,.0f} s, {result['crystals_per_second']:,.0f} crystals a "
        f"second on {result['devices']}",
        "parameters": f"{result['parameters']:,}",
    }
    return (
        page.paragraph(words, "soft")
        + page.table(header, rows, numbers=range(1, 6))
        + "<br>"
        + page.by_names(more)
    )


def _objectives(record: Record) -> list[str]:
    found = objectives_of(record.result or {})
    rows, shares = [], {}
    for name, (loss, trivial, accuracy) in found.items():
        right = "–" if accuracy is None else f"{100 * accuracy:.1f} %"
        constant = "–" if trivial is None else number(trivial)
        rows.append([html.escape(words(name)), number(loss), constant, right])
        if trivial:
            shares[words(name)] = loss / trivial
    out = [
        page.heading("What it has learned"),
        page.table(
            ["objective", "loss", "of the best constant answer", "right at first guess"],
            rows,
            numbers=range(1, 4),
        ),
    ]
    if shares:
        figure = go.Figure(
            go.Bar(
                x=list(shares.values()),
                y=list(shares),
                orientation="h",
                marker_color=COLOURS["validation"],
                hovertemplate="%{y}: %{x:.3f}<extra></extra>",
            )
        )
        figure.add_vline(1, line={"dash": "dash", "color": COLOURS["other"]})
        figure.update_xaxes(title_text="loss ÷ that of the best constant answer")
        figure.update_xaxes(rangemode="tozero")
        out += [
            page.paragraph("On the validation crystals; at 1 nothing has been learned.", "soft"),
            page.plot("objectives", figure, "flat"),
        ]
    return out


def _curves(record: Record) -> list[str]:
    plots: list[str] = []
    best = (record.result or {}).get("best_epoch")
    for metric in record.metrics:
        figure = go.Figure()
        drawn = []
        for side in ("train", "validation"):
            epochs, values = record.curve(f"{side}_{metric}")
            drawn += values
            if epochs:
                figure.add_scatter(
                    x=epochs,
                    y=values,
                    name=side,
                    mode="lines+markers" if len(epochs) < 30 else "lines",
                    line_color=COLOURS[side],
                    hovertemplate="epoch %{x}: %{y:.4g}",
                )
        if not drawn:
            continue
        constant = record.constant_answer(metric)
        grey = COLOURS["other"]
        if constant is not None:
            drawn.append(constant)
            n = (record.result or {}).get("epochs", 1)
            label = "predicting the mean" if record.property else "best constant answer"
            figure.add_scatter(
                x=[min(1, n), n], y=[constant] * 2, name=f"{label} (validation)", mode="lines",
                line={"dash": "dash", "color": grey}, hovertemplate="%{y:.4g}",
            )  # fmt: skip
        if best is not None:
            figure.add_vline(
                best, line={"dash": "dot", "color": grey}, annotation_text=f"epoch {best} chosen",
                annotation_position="top", annotation_font_size=11,
            )  # fmt: skip
        unit = record.unit if metric == "mae" else ""
        figure.update_layout(
            showlegend=True,
            xaxis=page.epochs_of(max(line["epoch"] for line in record.epochs)),
            yaxis_title=with_unit(words(metric), unit),
            yaxis=page.axis_of(drawn),
            hovermode="x unified",
        )
        plots.append(page.plot(f"curve-{len(plots)}", figure))
    if not plots:
        return [page.paragraph("There are no lines of its epochs.")]
    return [f'<div class="two">{"".join(plots)}</div>']


def _parity(record: Record, predicted: Predicted) -> list[str]:
    figure = go.Figure()
    ends = [
        min(predicted.targets.min(), predicted.predictions.min()),
        max(predicted.targets.max(), predicted.predictions.max()),
    ]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": COLOURS["other"], "width": 1},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    left_out = []
    for name in SPLITS:
        side = predicted.of(name)
        n = len(side.ids)
        if n > MOST_POINTS:
            chosen = np.zeros(n, dtype=bool)
            chosen[np.random.default_rng(0).choice(n, MOST_POINTS, replace=False)] = True
            left_out.append(f"{MOST_POINTS:,} of the {n:,} {name} crystals are drawn, by lot.")
            side = side.where(chosen)
        formulas = [""] * len(side.ids) if side.formula is None else side.formula.tolist()
        kind = go.Scatter if len(side.ids) < MOST_POINTS / 2 else go.Scattergl
        figure.add_trace(
            kind(
                x=side.targets,
                y=side.predictions,
                name=name,
                mode="markers",
                marker={"color": COLOURS[name], "size": 6, "opacity": 0.65},
                visible=True if name == "test" else "legendonly",
                customdata=[list(pair) for pair in zip(side.ids.tolist(), formulas)],
                hovertemplate="<b>%{customdata[1]}</b> %{customdata[0]}<br>known %{x:.4g}<br>"
                "predicted %{y:.4g}",
            )
        )
    what = name_of_property(record.property)
    figure.update_xaxes(title_text=with_unit(f"{what}, known", record.unit), constrain="domain")
    figure.update_yaxes(title_text=with_unit("predicted", record.unit), scaleanchor="x")
    figure.update_layout(hovermode="closest", legend={"title_text": ""})
    return [
        page.paragraph(
            " ".join(["A click on a name below shows or hides its crystals.", *left_out]), "soft"
        ),
        page.plot("parity", figure, "tall"),
    ]


def _where(record: Record, test: Predicted) -> list[str]:
    """Errors by element, crystal system and size."""
    if test.formula is None or test.n_atoms is None or test.space_group is None:
        return []
    out = [
        page.heading("Error by element"),
        page.paragraph(
            "Mean absolute error of the test crystals that hold an element. Grey: none does. "
            f"Colours end at the largest of those that are in {ENOUGH} crystals or more.",
            "soft",
        ),
        page.plot("elements", _by_element(record, test, test.formula), "elements"),
        page.heading("Error by crystal system and size"),
        page.paragraph(
            "Of the test crystals; in brackets how many there are. Bars: one standard error of the "
            "mean. Rings: the error of always predicting the mean of the training crystals.",
            "soft",
        ),
    ]
    systems = crystal_system(np.clip(test.space_group, 1, 230))
    size = np.searchsorted(SIZES, test.n_atoms, side="left")
    ranges = zip((0, *SIZES), (*SIZES, None))
    names = [
        f"{low + 1}" if low + 1 == high else f"{low + 1}–{high}" if high else f"over {low}"
        for low, high in ranges
    ]
    out.append('<div class="two">')
    for id, title, group, labels in (
        ("systems", "crystal system", systems, CRYSTAL_SYSTEMS),
        ("sizes", "atoms in the cell", size, names),
    ):
        out.append(page.plot(id, _by_group(record, test, group, labels, title)))
    out.append("</div>")
    return out


def _by_element(record: Record, test: Predicted, formulas: np.ndarray) -> go.Figure:
    errors: dict[int, list[float]] = {}
    for formula, error in zip(formulas.tolist(), test.errors.tolist()):
        for symbol in Formula(formula).count():
            errors.setdefault(atomic_numbers[symbol], []).append(error)
    shape = (10, 18)
    known, unknown = np.full(shape, np.nan), np.full(shape, np.nan)
    symbols, about = np.full(shape, "", object), np.full(shape, "", object)
    for z in range(1, MAX_ATOMIC_NUMBER + 1):
        row, column = (place - 1 for place in place_in_table(z))
        symbols[row, column] = SYMBOLS[z]
        if z in errors:
            known[row, column] = np.mean(errors[z])
            n = len(errors[z])
            about[row, column] = f"{n:,} test crystal{'s' if n > 1 else ''}"
        else:
            unknown[row, column] = 0.0
    often = [np.mean(values) for values in errors.values() if len(values) >= ENOUGH]
    unit = f" {record.unit}" if record.unit else ""
    common = {"xgap": 2, "ygap": 2, "text": symbols, "texttemplate": "%{text}"}
    figure = go.Figure()
    grey = "rgba(128,128,128,0.15)"
    figure.add_heatmap(
        z=unknown, textfont_color=COLOURS["other"], colorscale=[[0, grey], [1, grey]],
        showscale=False, hovertemplate="%{text}: no test crystal<extra></extra>", **common,
    )  # fmt: skip
    figure.add_heatmap(
        z=known,
        customdata=about,
        colorscale="Viridis",
        zmin=0,
        zmax=max(often) if often else float(np.nanmax(known)),
        colorbar={
            "orientation": "h", "x": 0.42, "xanchor": "center", "y": 0.99, "yanchor": "top",
            "len": 0.42, "thickness": 10, "nticks": 5,
            "title": {"text": with_unit("mean absolute error", record.unit), "side": "top"},
        },
        hovertemplate=f"<b>%{{text}}</b>: %{{z:.3g}}{unit}<br>%{{customdata}}<extra></extra>",
        **common,
    )  # fmt: skip
    hidden = {"visible": False, "fixedrange": True}
    figure.update_xaxes(**hidden)
    figure.update_yaxes(**hidden, autorange="reversed")
    figure.update_layout(margin={"l": 0, "r": 0, "t": 10, "b": 0})
    return figure


def _by_group(
    record: Record, test: Predicted, group: np.ndarray, labels: Sequence[str], title: str
) -> go.Figure:
    assert record.predicted is not None
    mean = record.predicted.of("train").targets.mean()
    names, means, spreads, of_mean = [], [], [], []
    for k, label in enumerate(labels):
        errors = test.errors[group == k]
        n = len(errors)
        if n:
            names.append(f"{label} ({n:,})")
            means.append(errors.mean())
            spreads.append(errors.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan)
            of_mean.append(np.abs(test.targets[group == k] - mean).mean())
    figure = go.Figure()
    figure.add_bar(
        x=means, y=names, orientation="h", marker_color=COLOURS["test"], name="this run",
        error_x={"array": spreads, "color": COLOURS["other"], "thickness": 1.5, "width": 3},
        hovertemplate="%{y}: %{x:.3g}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=of_mean, y=names, mode="markers", name="predicting the mean",
        marker={"symbol": "circle-open", "size": 9, "color": COLOURS["validation"]},
        hovertemplate="%{y}, predicting the mean: %{x:.3g}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text=with_unit("mean absolute error", record.unit))
    figure.update_yaxes(title_text=title, type="category", autorange="reversed")
    figure.update_layout(showlegend=False)
    return figure


def _worst(record: Record, test: Predicted) -> list[str]:
    structures = record.worst()
    order = np.argsort(-test.errors, kind="stable")[:N_WORST]
    rows = []
    for row in order:
        id = str(test.ids[row])
        crystal = structures.get(id)
        about = (
            f"<b>{page.formula(str(test.formula[row]))}</b><br>" if test.formula is not None else ""
        )
        about += f'<span class="soft">{html.escape(id)}'
        if test.space_group is not None and test.n_atoms is not None:
            about += f"<br>space group {test.space_group[row]}, {test.n_atoms[row]} atoms"
        about += "</span>"
        drawn = "–" if crystal is None else drawing(crystal, html.escape(id))
        if crystal is not None:
            about += "<br>" + _key(crystal)
        values = (test.targets[row], test.predictions[row], test.errors[row])
        rows.append([drawn, about, *map(number, values)])
    unit = record.unit
    return [
        page.paragraph(
            f"The {len(rows)} test crystals that are predicted worst"
            + (f"; numbers in {unit}." if unit else "."),
            "soft",
        ),
        page.table(["", "crystal", "known", "predicted", "error"], rows, numbers=(2, 3, 4)),
    ]


def _key(crystal: Crystal) -> str:
    """Which colour is which element."""
    return "".join(
        f'<span class="key"><span class="dot" style="background:{colour_of(z)}"></span>'
        f"{SYMBOLS[z]}</span>"
        for z in dict.fromkeys(crystal.species.tolist())
    )


def _explanation(ranked: Sequence[tuple[str, float]]) -> list[str]:
    names, values = zip(*ranked)
    mean = float(np.mean(values))
    away = [100 * (value / mean - 1) if mean else 0.0 for value in values]
    if max(map(abs, away)) < 1:
        return [
            page.paragraph(
                f"The weights of all {len(ranked)} element properties are within 1 % of each other "
                f"({number(mean)}): training has not told them apart, and they rank nothing."
            )
        ]
    figure = go.Figure(
        go.Bar(
            x=away,
            y=[words(name) for name in names],
            orientation="h",
            marker_color=[COLOURS["train"] if x > 0 else COLOURS["validation"] for x in away],
            customdata=values,
            hovertemplate="%{y}: mean |weight| %{customdata:.4g}<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="% above or below their mean")
    figure.update_yaxes(autorange="reversed")
    return [
        page.paragraph(
            "Mean absolute weight of the features of each element property, against the mean of "
            f"all, {number(mean)}.",
            "soft",
        ),
        page.plot("explanation", figure),
    ]


def _unknown(record: Record) -> list[str]:
    """What a reader may look for and not find."""
    out = []
    predicted = record.predicted
    if predicted is None:
        out.append("What its embeddings are worth for a property: distill or finetune tells.")
    else:
        out.append(
            "How much the errors would change with another seed: this is one run; compare trains "
            "several."
        )
        if not record.unit:
            out.append("The unit of the property: it is a pure number, or none was given.")
        if predicted.formula is None:
            out.append(
                "Formulas, sizes and space groups: the run was made before they were written down."
            )
        if not record.worst():
            out.append("The structures of the largest errors: the run has not kept them.")
    n = record.n_skipped()
    if n is None:
        out.append("How many crystals could not be used: there is no skipped.csv.")
    elif n:
        out.append(
            f"What it makes of {n:,} crystal{'s' if n > 1 else ''} that could not be used; "
            "skipped.csv lists them."
        )
    return out
