"""A page of words, tables and plots in one file, which needs no network to be read.

Plots are plotly's. Its script lies in the page, compressed, for it is nearly all of the page: 2 MB
instead of 5.
"""

import base64
import functools
import gzip
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

COLOURS = {"train": "#2f86d1", "validation": "#e0672a", "test": "#1aa179", "other": "#8a8f98"}
"""Near those of `figures.COLOURS`, with contrast on white and on black."""

PALETTE = ("#2f86d1", "#e0672a", "#1aa179", "#c678b6", "#c9930f", "#4fb3d9", "#8a8f98", "#b3695c")
"""Of lines that are many."""

MAP = "map"
"""Kind of a plot that fills the page and may be zoomed into, also without a mouse."""

_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --card: #f4f6f8; --ink: #1c2127;
  --soft: #5b6570; --line: #d8dde3; --warn: #fff1d6; --warn-ink: #6b4500; --link: #0b63a8; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2227; --ink: #e6e9ec;
  --soft: #a3adb8; --line: #363d45; --warn: #3a2d10; --warn-ink: #ffd98a; --link: #7cc0f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1rem; background: var(--back);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.4rem; }
a { color: var(--link); }
p { margin: 0.4rem 0 0.8rem; max-width: 48rem; }
.soft { color: var(--soft); }
.lead { font-size: 1.1rem; }
.warning { background: var(--warn); color: var(--warn-ink); border-radius: 6px;
  padding: 0.5rem 0.8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; overflow-wrap: normal; }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; vertical-align: middle;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
table.settings td { overflow-wrap: anywhere; }
.plot { width: 100%; height: 24rem; }
.plot.tall { height: min(100vw, 34rem); max-width: 40rem; }
.plot.elements { height: auto; aspect-ratio: 18 / 11; }
.plot.flat { height: 15rem; }
.plot.map { height: max(22rem, min(120vw, 100vh - 14rem)); }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 0 1.5rem; }
.two > * { min-width: 0; }
svg.crystal { width: 6.5rem; height: 6.5rem; display: block; }
.dot { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%;
  border: 1px solid var(--soft); margin-right: 0.2em; }
.key { white-space: nowrap; margin-right: 0.6em; }
.run { white-space: nowrap; }
details > summary { cursor: pointer; }
@media (max-width: 40rem) { body { padding: 0.8rem; font-size: 15px; }
  th, td { padding-right: 0.5rem; } table { font-size: 0.82rem; }
  svg.crystal { width: 5rem; height: 5rem; } .plot { height: 20rem; } }
"""

_SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
const templates = JSON.parse(document.getElementById("templates").textContent);
function draw() {
  const narrow = innerWidth < 640;
  for (const place of document.querySelectorAll(".plot")) {
    const figure = JSON.parse(document.getElementById(place.id + "-figure").textContent);
    const layout = figure.layout;
    layout.template = templates[dark.matches ? "dark" : "light"];
    layout.autosize = true;
    layout.font = {size: narrow ? 11 : 13};
    // A finger that moves over a plot is to move the page.
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
    if (narrow) for (const trace of figure.data)
      if (trace.type === "heatmap") trace.textfont = {size: 8};
    const tools = place.classList.contains("map");
    Plotly.react(place, figure.data, layout, {responsive: true, displayModeBar: tools,
      displaylogo: false, modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]]});
  }
  document.documentElement.dataset.drawn = dark.matches ? "dark" : "light";
}
async function start() {
  const packed = document.getElementById("plotly").textContent.trim();
  const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  draw();
  dark.addEventListener("change", draw);
}
if ("DecompressionStream" in window) start();
else for (const place of document.querySelectorAll(".plot"))
  place.textContent = "This browser is too old to draw the plots.";
"""


def page(title: str, body: Sequence[str], *, refresh: int | None = None) -> str:
    """The whole of a page.

    Args:
      title: of the page, as text.
      body: its parts, as HTML.
      refresh: seconds after which the page is loaded again; None for never.
    """
    again = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # Without it a browser asks the server for a picture of the page.
            f'<link rel="icon" href="data:,">{again}',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style>\n</head>\n<body>",
            *body,
            _embedded("templates", json.dumps(_templates())),
            f'<script type="text/plain" id="plotly">{_packed_plotly()}</script>',
            f"<script>{_SCRIPT}</script>",
            "</body>\n</html>\n",
        ]
    )


def _embedded(id: str, text: str) -> str:
    escaped = text.replace("</", "<\\/")
    return f'<script type="application/json" id="{id}">{escaped}</script>'


@functools.cache
def _packed_plotly() -> str:
    # The same bytes every time: no time of day in them.
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def _templates() -> dict[str, Any]:
    """How plots look on a light and on a dark page."""
    colours = {
        "light": ("#1c2127", "#e3e7eb", "#ffffff"),
        "dark": ("#e6e9ec", "#333a42", "#1d2227"),
    }
    out = {}
    for name, (ink, grid, back) in colours.items():
        axis = {
            "gridcolor": grid,
            "zerolinecolor": grid,
            "linecolor": grid,
            "automargin": True,
            "title": {"standoff": 8},
        }
        out[name] = {
            "layout": {
                "font": {"family": "system-ui, sans-serif", "color": ink},
                "paper_bgcolor": "rgba(0,0,0,0)",
                "plot_bgcolor": "rgba(0,0,0,0)",
                "colorway": PALETTE,
                "margin": {"l": 10, "r": 10, "t": 30, "b": 10},
                "xaxis": axis,
                "yaxis": axis,
                "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": ink},
                "hoverlabel": {"bgcolor": back, "font": {"color": ink}, "bordercolor": grid},
                "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
            }
        }
    return out


def plot(id: str, figure: go.Figure, kind: str = "") -> str:
    """A place for a figure, and the figure.

    Args:
      id: of the place, one of its kind on the page.
      figure: without a template: the page has those for light and dark.
      kind: class of the style sheet.
    """
    # Without plotly's own template, which is longer than most figures.
    figure.layout.template = None
    return f'<div class="plot {kind}" id="{id}"></div>' + _embedded(
        f"{id}-figure", figure.to_json()
    )


def axis_of(values: Sequence[float]) -> dict[str, Any]:
    """An axis for positive values: logarithmic where they span more than a factor of ten."""
    low, high = min(values), max(values)
    if not 0 < 10 * low < high:
        return {}
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def epochs_of(last: int) -> dict[str, Any]:
    """An axis of epochs, up to the last: half an epoch is none."""
    whole = {"dtick": 1} if last <= 10 else {}
    return {"title": {"text": "epoch"}, "tickformat": ",d", **whole}


def heading(text: str) -> str:
    """Of a part."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{html.escape(text)}</p>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table that scrolls by itself where the screen is narrow.

    Args:
      header: of the columns, as text.
      rows: cells as HTML.
      numbers: columns that are aligned to the right.
    """
    kind = lambda column: ' class="number"' if column in numbers else ""
    head = "".join(f"<th{kind(i)}>{html.escape(text)}</th>" for i, text in enumerate(header))
    lines = [
        "<tr>" + "".join(f"<td{kind(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    ]
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
        + "\n".join(lines)
        + "</tbody></table></div>"
    )


def settings_table(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values, that may be long."""
    rows = [
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in pairs
    ]
    return f'<table class="settings"><tbody>{"".join(rows)}</tbody></table>'


def folded(summary: str, content: str) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def formula(text: str) -> str:
    """``BaTiO3`` with its numbers below the line."""
    return re.sub(r"(\d+)", r"<sub>\1</sub>", html.escape(text, quote=False))


def by_names(values: Mapping[str, str]) -> str:
    """Names and values in a table without a header."""
    return table(("", ""), [(html.escape(k), html.escape(v)) for k, v in values.items()])
