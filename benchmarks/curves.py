"""Pictures of the scaling curves, as PNG files.

Each function takes a part of what `benchmarks.scaling` writes to its JSON file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from crysgnn_jax.reporting.figures import COLOURS, new_figure

PALETTE = (*COLOURS.values(), "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, one for each of the seven jobs that there are."""

EXPECTED = {"color": "0.5", "linewidth": 1, "linestyle": "--", "zorder": 1}
"""How a line looks that shows what would be expected, not what was measured."""


def steps(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Time of a training step against the atoms of a batch, one line a job.

    Args:
      curves: ``steps`` of the file.
      path: of the PNG.
    """
    figure = new_figure(5.2, 4.2)
    axis = figure.subplots()
    for curve, colour in zip(curves, PALETTE):
        atoms = [size["atoms_per_batch"] for size in curve["sizes"]]
        times = [_scaled(size["seconds_a_step"], 1000) for size in curve["sizes"]]
        slope = curve["exponent"]["two_largest"]["median"]
        _measured(axis, atoms, times, colour, f"{curve['job']}, exponent {slope:.2f}")
        _proportional(axis, atoms, times)
    axis.set(xscale="log", yscale="log")
    for each in (axis.xaxis, axis.yaxis):
        _in_plain_numbers(each)
    axis.set_xlabel("atoms per batch")
    axis.set_ylabel("time of a step (ms)")
    axis.set_title("Exponents are those of the two largest batches", fontsize=9)
    _finish(axis)
    figure.savefig(path, dpi=130)


def memory(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Peak memory of a process that takes steps against the size of its batches, one line a job.

    Args:
      curves: ``steps`` of the file.
      path: of the PNG.
    """
    figure = new_figure(5.2, 4.2)
    axis = figure.subplots()
    for curve, colour in zip(curves, PALETTE):
        crystals = [size["crystals_per_batch"] for size in curve["sizes"]]
        peaks = [size["memory_gb"] for size in curve["sizes"]]
        axis.plot(crystals, peaks, marker="o", markersize=4, linewidth=1.4, color=colour,
                  label=curve["job"])  # fmt: skip
    _from_zero(axis)
    axis.set_xlabel("crystals per batch")
    axis.set_ylabel("peak memory of the process during steps (GB)")
    _finish(axis)
    figure.savefig(path, dpi=130)


def graphs(found: Mapping[str, Any], path: Path) -> None:
    """Three panels: time and memory against crystals, and speed-up against worker processes.

    Args:
      found: ``graphs`` of the file.
      path: of the PNG.
    """
    figure = new_figure(12.0, 3.6)
    time, memory, speed_up = figure.subplots(1, 3)
    counts = found["counts"]
    crystals = [build["crystals"] for build in counts]
    seconds = [build["seconds"] for build in counts]
    slope = found["exponent"]["overall"]["median"]
    _measured(time, crystals, seconds, PALETTE[0], f"exponent {slope:.2f}, all sizes")
    _proportional(time, crystals, seconds)
    time.set(xscale="log", yscale="log", ylabel="time to build the graphs (s)")
    _in_plain_numbers(time.yaxis)
    peaks = [build["peak_memory_gb"] for build in counts]
    memory.plot(crystals, peaks, marker="o", markersize=4, linewidth=1.4, color=PALETTE[0],
                label="one worker")  # fmt: skip
    for build, colour in zip(found["workers"][1:], PALETTE[1:]):
        memory.plot(build["crystals"], build["peak_memory_gb"], "o", markersize=4, color=colour,
                    label=f"{build['workers']} workers")  # fmt: skip
    memory.set(xscale="log", ylabel="peak memory (GB)")
    _from_zero(memory)
    for axis in (time, memory):
        axis.set_xlabel("crystals")
        axis.set_xticks(crystals, [f"{n / 1000:g}k" if n >= 1000 else str(n) for n in crystals])
        axis.xaxis.set_minor_locator(NullLocator())
    builds = found["workers"]
    workers = [build["workers"] for build in builds]
    of = f"{builds[0]['crystals']:,} crystals"
    _measured(speed_up, workers, [build["speed_up"] for build in builds], PALETTE[0], of)
    speed_up.plot(workers, workers, **EXPECTED, label="proportional to workers")
    speed_up.set(xlabel="worker processes, each with a core", ylabel="speed-up over one worker")
    speed_up.set_xticks(workers)
    _from_zero(speed_up)
    for axis in (time, memory, speed_up):
        _finish(axis)
    figure.savefig(path, dpi=130)


def devices(found: Mapping[str, Any], path: Path) -> None:
    """Time of the same step when it is divided among devices that share the cores.

    Args:
      found: ``devices`` of the file.
      path: of the PNG.
    """
    figure = new_figure(5.2, 4.2)
    axis = figure.subplots()
    for curve, colour in zip(found["jobs"], PALETTE):
        counts = [side["devices"] for side in curve["devices"]]
        times = [side["time_relative_to_one"] for side in curve["devices"]]
        _measured(axis, counts, times, colour, curve["job"])
    axis.axhline(1.0, **EXPECTED, label="no overhead")
    axis.set_xticks(counts)
    _from_zero(axis)
    axis.set_xlabel(f"devices that divide {found['crystals_a_step']} crystals among them")
    axis.set_ylabel("time of a step, relative to one device")
    cores = found["cores"]
    axis.set_title(
        f"All devices share the same {cores} core{'s' if cores > 1 else ''}:\n"
        "this is the overhead of dividing a step, not the speed of more hardware",
        fontsize=9,
    )
    _finish(axis)
    figure.savefig(path, dpi=130)


def _measured(
    axis: Axes,
    x: Sequence[float],
    values: Sequence[Mapping[str, float]],
    colour: str,
    label: str,
) -> None:
    """Medians over ``x``, with bars from the least to the greatest."""
    middle, low, high = ([value[k] for value in values] for k in ("median", "min", "max"))
    spread = [np.subtract(middle, low), np.subtract(high, middle)]
    axis.errorbar(
        x, middle, spread, marker="o", markersize=4, capsize=3, linewidth=1.4, color=colour,
        label=label,
    )  # fmt: skip


def _proportional(axis: Axes, x: Sequence[float], values: Sequence[Mapping[str, float]]) -> None:
    """The line through the last point that proportional values would lie on; named once."""
    names = axis.get_legend_handles_labels()[1]
    label = "proportional" if "proportional" not in names else None
    ends = np.array([x[0], x[-1]])
    axis.plot(ends, values[-1]["median"] * ends / x[-1], **EXPECTED, label=label)


def _in_plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10, … : powers of ten alone may be but one or two."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_locator(NullLocator())


def _scaled(value: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: number * factor for name, number in value.items()}


def _from_zero(axis: Axes) -> None:
    """Let the upright axis start at 0, with room above the highest value."""
    axis.set_ylim(0, 1.05 * axis.get_ylim()[1])


def _finish(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
