"""How far DFT, and what was trained on it, are from measurement: table, record, picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.files import write_csv
from crysgnn_jax.reporting.comparison import DISTILLED, VANILLA, mean_and_deviation
from crysgnn_jax.reporting.figures import VARIANT_COLOURS, new_figure, r_squared
from crysgnn_jax.reporting.tables import text_table

DFT, CORRECTED = "DFT", "DFT, straight line"
ADAPTED = ", adapted"


class Judged(NamedTuple):
    """What a method says of the compounds that it is judged by.

    Attributes:
      method: `DFT`, `CORRECTED`, or a student and its variant, with `ADAPTED` where it has seen
        measured values.
      fraction: share of the measured values that were given away for adaptation.
      seed: of the split, and of the training.
      ids: ``[n]``, of the compounds.
      measured: ``[n]``
      said: ``[n]``, in the same unit.
    """

    method: str
    fraction: float
    seed: int
    ids: np.ndarray
    measured: np.ndarray
    said: np.ndarray

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(np.mean(np.abs(self.said - self.measured)))

    @property
    def bias(self) -> float:
        """Mean of said − measured."""
        return float(np.mean(self.said - self.measured))


class Line(NamedTuple):
    """A method at one share, over the seeds.

    Attributes:
      fraction: share of the measured values that were given away.
      method: as of `Judged`.
      mae: mean and standard deviation over the seeds.
      bias: likewise.
      n_test: compounds that it was judged by, on average.
      n_seeds: seeds that there were; the deviation of one is 0, and says nothing.
    """

    fraction: float
    method: str
    mae: tuple[float, float]
    bias: tuple[float, float]
    n_test: int
    n_seeds: int


def summarise(judged: Sequence[Judged]) -> list[Line]:
    """A line for each share and method, in their order."""
    keys = list(dict.fromkeys((one.fraction, one.method) for one in judged))
    lines = []
    for fraction, method in keys:
        here = [one for one in judged if (one.fraction, one.method) == (fraction, method)]
        lines.append(
            Line(
                fraction,
                method,
                mean_and_deviation(np.array([one.mae for one in here])),
                mean_and_deviation(np.array([one.bias for one in here])),
                round(float(np.mean([len(one.ids) for one in here]))),
                len(here),
            )
        )
    return lines


def table(lines: Sequence[Line], unit: str) -> str:
    """The lines as text."""
    of = f" ({unit})" if unit else ""
    return text_table(
        ["measured used", "judged by", "method", f"MAE{of}", f"bias{of}"],
        [
            [
                f"{100 * line.fraction:g} %",
                str(line.n_test),
                line.method,
                _plus_minus(line.mae, line.n_seeds),
                _plus_minus(line.bias, line.n_seeds, signed=True),
            ]
            for line in lines
        ],
    )


def _plus_minus(value: tuple[float, float], n_seeds: int, *, signed: bool = False) -> str:
    mean, deviation = value
    text = f"{round(mean, 3) + 0.0:+.3f}" if signed else f"{mean:.3f}"  # no "−0.000"
    spread = f" ± {deviation:.3f}" if n_seeds > 1 else ""
    return (text + spread).replace("-", "\N{MINUS SIGN}")


def as_json(lines: Sequence[Line], judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """The lines with the errors of each seed, for a record."""
    return [
        {
            "measured_share": line.fraction,
            "method": line.method,
            "n_test": line.n_test,
            "mae": line.mae[0],
            "mae_deviation": line.mae[1] if line.n_seeds > 1 else None,
            "bias": line.bias[0],
            "bias_deviation": line.bias[1] if line.n_seeds > 1 else None,
            "seeds": {
                str(one.seed): {"mae": one.mae, "bias": one.bias, "n_test": len(one.ids)}
                for one in judged
                if (one.fraction, one.method) == (line.fraction, line.method)
            },
        }
        for line in lines
    ]


def write_said(judged: Sequence[Judged], path: Path) -> None:
    """All that was said, as a CSV table: a row for each share, seed, method and compound."""
    rows = (
        [f"{one.fraction:g}", one.seed, one.method, id, f"{measured:.6g}", f"{said:.6g}"]
        for one in judged
        for id, measured, said in zip(one.ids, one.measured, one.said)
    )
    write_csv(path, ["measured_share", "seed", "method", "id", "measured", "said"], rows)


def draw(
    judged: Sequence[Judged],
    path: Path,
    *,
    student: str,
    property: str,
    unit: str,
    data: str,
) -> None:
    """Parity with measurement of DFT and of a student's adapted twins, first seed and largest
    share; below, errors of all methods at all shares.

    Args:
      judged: what was said.
      path: of the PNG.
      student: whose twins are drawn.
      property: in words, for the axes.
      unit: of it.
      data: name of the data set, for the title.
    """
    fraction = max(one.fraction for one in judged)
    seed = min(one.seed for one in judged)
    chosen = {one.method: one for one in judged if (one.fraction, one.seed) == (fraction, seed)}
    shown = [DFT, f"{student} {VANILLA}{ADAPTED}", f"{student} {DISTILLED}{ADAPTED}"]
    panels = [chosen[method] for method in shown if method in chosen]
    figure = new_figure(3.1 * max(len(panels), 2), 6.6)
    figure.suptitle(
        f"{data}: {property}, against measurement\n"
        f"above: {len(panels[0].ids)} compounds, where {100 * fraction:g} % of the measured values "
        f"were used (seed {seed})",
        fontsize=10,
    )
    grid = figure.add_gridspec(2, len(panels), height_ratios=(1, 1.05))
    of = f" ({unit})" if unit else ""
    values = np.concatenate([np.concatenate([one.said, one.measured]) for one in panels])
    margin = 0.04 * (np.ptp(values) or 1.0)
    ends = (values.min() - margin, values.max() + margin)
    for column, one in enumerate(panels):
        axis = figure.add_subplot(grid[0, column])
        axis.plot(ends, ends, color="0.5", linewidth=1)
        colour = _colour(one.method)
        axis.scatter(one.measured, one.said, s=7, alpha=0.45, color=colour, linewidths=0)
        axis.set(xlim=ends, ylim=ends, aspect="equal")
        axis.set_title(_words(one.method), fontsize=9)
        axis.set_xlabel(f"measured{of}")
        axis.set_ylabel(f"DFT{of}" if one.method == DFT else f"predicted{of}")
        told = (
            f"MAE {one.mae:.3f}\nbias {one.bias:+.3f}\nR² {r_squared(one.measured, one.said):.3f}"
        )
        axis.text(0.04, 0.96, told.replace("-", "\N{MINUS SIGN}"), transform=axis.transAxes,
                  verticalalignment="top", fontsize=8)  # fmt: skip
        axis.grid(alpha=0.3)
    axis = figure.add_subplot(grid[1, :])
    _bars(axis, summarise(judged), of)
    figure.savefig(path, dpi=300)


def _bars(axis: Any, lines: Sequence[Line], of: str) -> None:
    fractions = list(dict.fromkeys(line.fraction for line in lines))
    methods = list(dict.fromkeys(line.method for line in lines))
    width = 0.84 / len(methods)
    for place, method in enumerate(methods):
        here = {line.fraction: line for line in lines if line.method == method}
        x = np.array([k for k, f in enumerate(fractions) if f in here], float)
        x += (place - (len(methods) - 1) / 2) * width
        found = [here[f] for f in fractions if f in here]
        deviation = [line.mae[1] for line in found] if found[0].n_seeds > 1 else None
        plain = ADAPTED not in method and method != CORRECTED
        axis.bar(
            x,
            [line.mae[0] for line in found],
            0.92 * width,
            yerr=deviation,
            capsize=2,
            color=_colour(method),
            alpha=0.45 if plain else 1.0,
            error_kw={"linewidth": 1},
            label=_words(method),
        )
        bias = [line.bias[0] for line in found]
        name = "bias (mean signed error)" if place == len(methods) - 1 else None
        axis.plot(x, bias, "D", color="black", markersize=4, markerfacecolor="white", label=name)
    axis.axhline(0, color="0.3", linewidth=0.8)
    top = max(line.mae[0] + line.mae[1] for line in lines)
    axis.set_ylim(top=1.5 * top)  # room for the legend
    axis.set_xticks(
        range(len(fractions)), [f"{100 * f:g} % of the measured values used" for f in fractions]
    )
    axis.set_ylabel(f"mean absolute error{of}")
    axis.yaxis.set_major_formatter(lambda y, _: f"{y:.2f}".replace("-", "\N{MINUS SIGN}"))
    axis.grid(alpha=0.3, axis="y")
    axis.set_axisbelow(True)
    axis.legend(fontsize=7.5, ncols=3, loc="upper center")


_GREYS = {DFT: "0.35", CORRECTED: "0.35"}


def _colour(method: str) -> str:
    variant = DISTILLED if DISTILLED in method else VANILLA
    return _GREYS.get(method, VARIANT_COLOURS[variant])


def _words(method: str) -> str:
    """CGCNN rather than cgcnn, as the field writes it."""
    first, space, rest = method.partition(" ")
    return f"{first.upper() if first.islower() else first}{space}{rest}"
