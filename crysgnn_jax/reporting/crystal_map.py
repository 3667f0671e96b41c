"""Crystals as points in a plane: a picture, and a page to move about in."""

import html
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from crysgnn_jax.graphs.symmetry import CRYSTAL_SYSTEMS
from crysgnn_jax.reporting import page
from crysgnn_jax.reporting.colours import NO_VALUE, scale
from crysgnn_jax.reporting.figures import head, new_figure
from crysgnn_jax.reporting.tables import signed

SYSTEM_COLOURS = dict(
    zip(
        CRYSTAL_SYSTEMS,
        ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00"),
    )
)
"""Okabe and Ito's."""

_ON_A_PAGE = {"triclinic": "#8a8f98"}
"""Where black would not be seen on a dark page."""

_RIM = {"width": 0.5, "color": "rgba(138, 143, 152, 0.7)"}

MANY = 3000
"""Points of which more are drawn by WebGL, which not every machine has."""


class CrystalMap(NamedTuple):
    """Points of crystals, and what they are coloured by.

    Attributes:
      points: ``[n, 2]``
      axes: what the two axes are.
      title: such as the data set and the model.
      ids: ``[n]`` text.
      formulas: ``[n]`` text.
      colour: what the colour says, with its unit.
      values: ``[n]`` numbers to colour by, NaN where there is none; or the names of crystal
        systems, text.
    """

    points: np.ndarray
    axes: tuple[str, str]
    title: str
    ids: np.ndarray
    formulas: np.ndarray
    colour: str
    values: np.ndarray

    @property
    def is_by_system(self) -> bool:
        """Whether the colours are those of crystal systems."""
        return self.values.dtype.kind == "U"


def draw_map(found: CrystalMap, path: Path | IO[bytes]) -> None:
    """The picture of a map, a PNG."""
    figure = new_figure(6.4, 4.8)
    axis = figure.subplots()
    # In any order, those on top would be of one kind.
    order = np.random.default_rng(0).permutation(len(found.ids))
    x, y = found.points[order].T
    values = found.values[order]
    size = float(np.clip(1.2e4 / len(order), 1.5, 30))
    look: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.75}
    if found.is_by_system:
        axis.scatter(x, y, c=[SYSTEM_COLOURS[name] for name in values.tolist()], **look)
        for name in _systems(found):
            axis.scatter([], [], c=SYSTEM_COLOURS[name], s=25, label=name)
        axis.legend(title=found.colour, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    else:
        known = np.isfinite(values)
        axis.scatter(x[~known], y[~known], c=NO_VALUE, **look)
        colours = scale(values)
        axis.scatter(x[known], y[known], c=colours.to_rgba(values[known]), **look)
        figure.colorbar(colours, ax=axis, label=found.colour)
    axis.set(xlabel=found.axes[0], ylabel=found.axes[1])
    head(figure, found.title)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=300, format="png")


def write_map_page(found: CrystalMap, file: IO[str]) -> None:
    """The page of a map: one HTML file that needs nothing else, not even a network. A crystal under
    the pointer tells its id, formula and value; one may zoom, and switch crystal systems off."""
    figure = go.Figure()
    kind = go.Scattergl if len(found.ids) > MANY else go.Scatter
    x, y = found.points.T
    # Names come from files of others, and the page would take a tag in them for its own.
    texts = np.array(
        [
            "<br>".join(map(html.escape, (id, formula, _said(value))))
            for id, formula, value in zip(
                found.ids.tolist(), found.formulas.tolist(), found.values.tolist()
            )
        ]
    )

    def add(chosen: np.ndarray, name: str, **marker: Any) -> None:
        figure.add_trace(
            kind(
                x=x[chosen],
                y=y[chosen],
                mode="markers",
                name=name,
                text=texts[chosen],
                hovertemplate="%{text}<extra></extra>",
                # The rim is seen where the colour is near that of a light or dark page.
                marker={"size": 7, "opacity": 0.8, "line": _RIM, **marker},
            )
        )

    if found.is_by_system:
        for name in _systems(found):
            add(found.values == name, name, color=_ON_A_PAGE.get(name, SYSTEM_COLOURS[name]))
    else:
        known = np.isfinite(found.values)
        if not known.all():
            add(~known, "no value", color="#bbbbbb")
        add(known, found.colour, **_colour_axis(found.values[known], found.colour))
        figure.update_layout(showlegend=False)
    figure.update_layout(xaxis_title=found.axes[0], yaxis_title=found.axes[1])
    told = (
        f"Each point is a crystal, coloured by {found.colour}: under the pointer it tells its id. "
        "Draw a frame to see a part, and click twice to see all again"
    )
    told += "; a click on a name takes its points away." if found.is_by_system else "."
    body = [f"<h1>{html.escape(found.title)}</h1>", page.paragraph(told, "soft")]
    file.write(page.page(found.title, [*body, page.plot("map", figure, page.MAP)]))


def _said(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return signed(value, 4) if np.isfinite(value) else "no value"


def _systems(found: CrystalMap) -> list[str]:
    """The crystal systems of a map, in their order."""
    there = set(found.values.tolist())
    return [name for name in CRYSTAL_SYSTEMS if name in there]


def _colour_axis(values: np.ndarray, label: str) -> dict[str, Any]:
    colours = scale(values)
    diverging = colours.get_cmap().name == "RdBu_r"
    return {
        "color": values,
        "colorscale": "RdBu_r" if diverging else "Viridis",
        "cmin": colours.norm.vmin,
        "cmax": colours.norm.vmax,
        # Across, so that a phone's width is the map's.
        "colorbar": {
            "title": {"text": label, "side": "top"},
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "thickness": 12,
        },
    }
