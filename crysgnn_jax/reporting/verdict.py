"""What became of a run, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from crysgnn_jax.reporting.tables import number
from crysgnn_jax.training.memory import Seen

FEWEST_TESTED = 10
"""Test crystals below which an error says little of other crystals: with 9, the mean of the
absolute errors is known to a third of their spread."""

TAIL = 0.2
"""Share of the epochs over which a falling error is told."""


def verdict(result: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """What became of a run: a sentence, and then a warning each for what a reader should know
    before the numbers are used.

    Args:
      result: content of its ``result.json``.
      lines: of its ``metrics.jsonl``; none where they are not at hand.

    Example:
      ``verdict(model.result, [])[0]``
    """
    if result["task"] == "pretraining":
        return [
            _of_objectives(result),
            *_warnings_of_objectives(result),
            *_of_epochs(result, lines),
        ]
    return [_of_property(result), *_warnings_of_property(result), *_of_epochs(result, lines)]


def name_of_property(name: str) -> str:
    """A property as it is read: ``formation_energy_per_atom`` is "formation energy per atom"."""
    return name.replace("_", " ")


def against(value: float, baseline: float) -> str:
    """How an error compares to that of a constant answer: "71 % lower than", "3.2 times"."""
    if not baseline > 0:
        return "against"
    ratio = value / baseline
    if ratio >= 2:
        return f"{number(ratio)} times"
    percent = 100 * abs(1 - ratio)
    if round(percent) == 0:
        return "about the same as"
    return f"{percent:.0f} % {'lower' if ratio < 1 else 'higher'} than"


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".rstrip()


def _of_property(result: Mapping[str, Any]) -> str:
    unit, n = result["unit"], result["n_test"]
    mae, of_mean = result["test_mae"], result["test_mae_of_mean"]
    crystals = "1 test crystal" if n == 1 else f"{n:,} test crystals"
    return (
        f"The {name_of_property(result['property'])} of {crystals} is predicted with a mean "
        f"absolute error of {_with_unit(mae, unit)}, {against(mae, of_mean)} "
        f"{_with_unit(of_mean, unit)}, that of always predicting the mean of the training crystals."
    )


def _warnings_of_property(result: Mapping[str, Any]) -> list[str]:
    found = []
    n_train, n_test = result["n_train"], result["n_test"]
    if result["test_mae"] >= result["test_mae_of_mean"]:
        found.append(
            f"It is no better than the mean of its {n_train:,} training crystals: do not predict "
            "with it. More crystals or epochs may help."
        )
    elif result["test_mae"] >= result.get("test_mae_of_composition", float("inf")):
        found.append(
            "It is no better than what composition alone tells, "
            f"{_with_unit(result['test_mae_of_composition'], result['unit'])} (ridge regression on "
            "element features): structures have taught it nothing yet. More crystals or epochs may "
            "help."
        )
    if seen := result.get("teacher_has_seen"):
        found.append(
            f"{Seen(**seen).counted('What it learned from')}: its error on new crystals is larger. "
            "Keep them out of pre-training, or test on others."
        )
    if n_test < FEWEST_TESTED:
        found.append(
            f"Its error is of {n_test} test crystal{'s' if n_test != 1 else ''}, which is too few: "
            "on other crystals it may be quite another."
        )
    return found


def objectives_of(result: Mapping[str, Any]) -> dict[str, tuple[float, float | None, float | None]]:
    """Of a run without labels: objective → loss on the validation crystals, that of the best
    constant answer, and share of right answers, None where there is no such number."""
    prefix = "validation_"
    measured = {
        name[len(prefix) :]: value for name, value in result.items() if name.startswith(prefix)
    }
    ends = ("_trivial", "_accuracy")
    return {
        name: (value, measured.get(f"{name}_trivial"), measured.get(f"{name}_accuracy"))
        for name, value in measured.items()
        if name != "loss" and not name.endswith(ends)
    }


def _of_objectives(result: Mapping[str, Any]) -> str:
    n = result["n_validation"]
    crystals = "1 validation crystal" if n == 1 else f"{n:,} validation crystals"
    parts = []
    for name, (loss, trivial, accuracy) in objectives_of(result).items():
        part = f"{name.replace('_', ' ')}: loss {number(loss)}"
        if trivial is not None:
            part += (
                f", {against(loss, trivial)} that of the best constant answer, {number(trivial)}"
            )
        if accuracy is not None:
            part += f" ({100 * accuracy:.1f} % right)"
        parts.append(part)
    return f"Of {crystals}, after {result['best_epoch']} epochs: " + "; ".join(parts) + "."


def _warnings_of_objectives(result: Mapping[str, Any]) -> list[str]:
    return [
        f"It has learned nothing of {name.replace('_', ' ')}: one answer for all crystals is as "
        "good. More crystals or epochs may help."
        for name, (loss, trivial, _) in objectives_of(result).items()
        if trivial is not None and loss >= trivial
    ]


def _of_epochs(result: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    epochs, best = result["epochs"], result["best_epoch"]
    score = "validation_loss" if result["task"] == "pretraining" else "validation_mae"
    if best == epochs:
        fell = _fall(lines, score, epochs)
        found.append(
            f"The best epoch is the last one, {epochs}"
            + (f"; the validation error still fell by {fell} on the way there" if fell else "")
            + ". More epochs may help."
        )
    if result["steps"] <= epochs:
        found.append(
            "An epoch was a single step, which teaches little. More crystals, or a smaller batch "
            "size, may help."
        )
    return found


def _fall(lines: Sequence[Mapping[str, Any]], score: str, epochs: int) -> str:
    """By how much a score fell over the last fifth of the epochs, and over how many that is."""
    scores = {line["epoch"]: line[score] for line in lines if score in line}
    n = max(1, round(TAIL * epochs))
    before, after = scores.get(epochs - n), scores.get(epochs)
    if before is None or after is None or not 0 < after < before:
        return ""
    return f"{100 * (1 - after / before):.2g} % over {n} epoch{'s' if n > 1 else ''}"
