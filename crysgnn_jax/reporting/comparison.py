"""The comparison table: students with and without a teacher, over properties and seeds."""

import csv
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from crysgnn_jax.files import whole
from crysgnn_jax.reporting.published import PUBLISHED, PUBLISHED_FOR
from crysgnn_jax.reporting.tables import formatted

VANILLA, DISTILLED, FINE_TUNED = "vanilla", "distilled", "fine-tuned"

FINE_TUNED_STUDENT = "teacher"
"""Stands for the student where the teacher's own encoder is fine-tuned."""


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One training run of the table.

    Attributes:
      property: that it predicts.
      fraction: of the training crystals that it sees.
      student: name, or `FINE_TUNED_STUDENT`.
      seed: of weights, split and order.
      variant: `VANILLA`, `DISTILLED` or `FINE_TUNED`.
    """

    property: str
    fraction: float
    student: str
    seed: int
    variant: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came out of a cell.

    Attributes:
      test_mae: in the property's unit.
      of_mean: test MAE of always predicting the mean of the training crystals.
      n_train: training crystals.
      unit: of the property.
    """

    test_mae: float
    of_mean: float
    n_train: int
    unit: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A property and student at one size of the training set, over seeds.

    Attributes:
      property: name.
      unit: its unit.
      fraction: of the training crystals.
      n_train: training crystals, on average over seeds.
      student: name.
      errors: variant → ``[n_seeds]`` test MAE, NaN where a run failed.
      of_mean: ``[n_seeds]`` test MAE of always predicting the mean of the training crystals.
      gain: %, by how much distillation lowers the mean error; NaN if it was not measured.
      p_value: of a two-sided paired t-test over the seeds; NaN with fewer than two.
      published: vanilla and distilled errors of the paper, if there are any.
    """

    property: str
    unit: str
    fraction: float
    n_train: float
    student: str
    errors: dict[str, np.ndarray]
    of_mean: np.ndarray
    gain: float
    p_value: float
    published: tuple[float, float] | None


def summarise(outcomes: dict[Cell, Outcome]) -> list[Row]:
    """Cells → rows, in the order of the cells."""
    groups: dict[tuple[str, float, str], dict[Cell, Outcome]] = {}
    for cell, outcome in outcomes.items():
        key = (cell.property, cell.fraction, cell.student)
        groups.setdefault(key, {})[cell] = outcome
    return [_row(*key, group) for key, group in groups.items()]


def _row(property: str, fraction: float, student: str, group: dict[Cell, Outcome]) -> Row:
    seeds = sorted({cell.seed for cell in group})
    errors = {}
    for variant in dict.fromkeys(cell.variant for cell in group):
        of = {cell.seed: x.test_mae for cell, x in group.items() if cell.variant == variant}
        errors[variant] = np.array([of.get(seed, math.nan) for seed in seeds])
    gain = p_value = math.nan
    if VANILLA in errors and DISTILLED in errors:
        both = np.isfinite(errors[VANILLA]) & np.isfinite(errors[DISTILLED])
        before, after = errors[VANILLA][both], errors[DISTILLED][both]
        if len(before):
            gain = 100.0 * float(1.0 - after.mean() / before.mean())
        # Equal differences have no spread to judge them by.
        if len(before) > 1 and np.ptp(before - after) > 1e-9 * before.mean():
            # Takes half a second to import, which a run without a comparison need not wait for.
            from scipy import stats

            p_value = float(stats.ttest_rel(before, after).pvalue)
    some = next(iter(group.values()))
    means = {cell.seed: x.of_mean for cell, x in group.items()}
    of_mean = np.array([means[seed] for seed in seeds])
    n_train = float(np.mean([x.n_train for x in group.values()]))
    published = PUBLISHED.get((property, student))
    return Row(
        property, some.unit, fraction, n_train, student, errors, of_mean, gain, p_value, published
    )


def no_better_than_mean(rows: Iterable[Row]) -> list[str]:
    """A line for each student and variant whose mean error is no lower than that of predicting the
    mean of the training crystals, over the seeds that finished."""
    out = []
    for row in rows:
        for variant, errors in row.errors.items():
            known = np.isfinite(errors)
            if known.any() and errors[known].mean() >= row.of_mean[known].mean():
                title = variant if row.student == FINE_TUNED_STUDENT else f"{row.student} {variant}"
                out.append(
                    f"Warning: {title}, {row.property}, {row.n_train:.0f} training crystals, is no "
                    "better than their mean; give it more crystals or epochs."
                )
    return out


def mean_and_deviation(errors: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (n − 1) over the seeds that finished; the deviation of one is 0,
    the mean of none NaN."""
    known = errors[np.isfinite(errors)]
    if len(known) == 0:
        return math.nan, math.nan
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0


def mean_and_spread(errors: np.ndarray) -> str:
    """``0.1081 ± 0.0012``: mean and standard deviation over the seeds that finished."""
    mean, spread = mean_and_deviation(errors)
    n_known = np.isfinite(errors).sum()
    if n_known < 2:
        return f"{mean:.4g}" if n_known else "–"
    # Both to the spread's second digit.
    digits = max(0, 1 - math.floor(math.log10(spread))) if spread > 0 else 4
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def markdown(rows: Sequence[Row], notes: Iterable[str] = ()) -> str:
    """A table for each size of the training set: property rows, student columns."""
    parts = []
    for fraction in sorted({row.fraction for row in rows}, reverse=True):
        shown = [row for row in rows if row.fraction == fraction]
        parts += [f"## {100 * fraction:g} % of the training crystals\n", _pivot(shown)]
    return "\n".join([*parts, "", *notes]) + "\n"


def _pivot(rows: Sequence[Row]) -> str:
    students = list(dict.fromkeys(row.student for row in rows))
    has_published = {row.student for row in rows if row.published}
    sources = dict.fromkeys(PUBLISHED_FOR[row.property] for row in rows if row.published)
    header = ["property (unit)", "training crystals", "their mean"]
    for student in students:
        if student == FINE_TUNED_STUDENT:
            header.append("teacher's encoder, fine-tuned")
            continue
        header += [f"{student} vanilla", "distilled", "gain", "p"]
        if student in has_published:
            header.append(f"{student} published for {' and '.join(sources)}")
    lines = [header, ["---"] * len(header)]
    for property in dict.fromkeys(row.property for row in rows):
        by_student = {row.student: row for row in rows if row.property == property}
        some = next(iter(by_student.values()))
        line = [property + (f" ({some.unit})" if some.unit else ""), f"{some.n_train:.0f}"]
        line.append(mean_and_spread(some.of_mean))
        for student in students:
            line += _cells(by_student.get(student), student, student in has_published)
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: Row | None, student: str, has_published: bool) -> list[str]:
    show = lambda variant: "–" if row is None else mean_and_spread(row.errors.get(variant, _NONE))
    if student == FINE_TUNED_STUDENT:
        return [show(FINE_TUNED)]
    out = [
        show(VANILLA),
        show(DISTILLED),
        formatted(row.gain if row else None, "+.1f") + " %",
        formatted(row.p_value if row else None, ".2g"),
    ]
    if has_published:
        out.append("{} → {}".format(*row.published) if row and row.published else "–")
    return [cell.replace("– %", "–") for cell in out]


_NONE = np.array([])


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line a property, size, student and variant, with every seed's error."""
    with whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            "property,unit,train_fraction,n_train,student,variant,n_seeds,test_mae_mean,"
            "test_mae_std,test_mae_of_mean,gain_percent,p_value,published_test_mae,test_mae_of_each_seed".split(
                ","
            )
        )
        text = lambda value: "" if math.isnan(value) else f"{value:.6g}"
        for row in rows:
            for variant, errors in row.errors.items():
                n_known = int(np.isfinite(errors).sum())
                mean, spread = mean_and_deviation(errors)
                is_distilled = variant == DISTILLED
                published: float | str = ""
                if row.published and variant in (VANILLA, DISTILLED):
                    published = row.published[is_distilled]
                writer.writerow(
                    [
                        row.property,
                        row.unit,
                        f"{row.fraction:g}",
                        f"{row.n_train:.0f}",
                        row.student,
                        variant,
                        n_known,
                        text(mean),
                        text(spread if n_known > 1 else math.nan),
                        text(mean_and_deviation(row.of_mean)[0]),
                        text(row.gain) if is_distilled else "",
                        text(row.p_value) if is_distilled else "",
                        published,
                        " ".join(text(error) or "failed" for error in errors),
                    ]
                )
