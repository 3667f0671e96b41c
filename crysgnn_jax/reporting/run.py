"""The pictures of one run: whatever its directory has something to draw of."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crysgnn_jax.files import write_text
from crysgnn_jax.models.registry import find_network
from crysgnn_jax.reporting.records import Record, title_of
from crysgnn_jax.training.checkpoints import restore_best
from crysgnn_jax.training.workdir import CHECKPOINTS, REPORT

__all__ = ["draw_run", "title_of", "warning_of"]


def draw_run(path: Path, result: Mapping[str, Any]) -> None:
    """Draw a run that has been trained, and write its page.

    ``loss.png``, loss curves. Of a property predictor also ``parity.png``, prediction against
    target for the test crystals; and ``explanation.csv`` and ``explanation.png``, what the
    predictions rest on, where its network says so and training has made a difference there. Beside
    each picture lies the same as an SVG. And ``report.html``, all of it in one file.

    Args:
      path: of the run.
      result: content of its ``result.json``.
    """
    # Not before training: matplotlib takes a second to import.
    from crysgnn_jax.reporting import figures, report

    record = Record.read(path, result)
    figures.loss_curves(record, path / "loss.png")
    predicted = record.predicted
    if predicted is not None:
        test = predicted.of("test")
        figures.parity(
            test.targets,
            test.predictions,
            path / "parity.png",
            property=record.property,
            unit=record.unit,
            of_mean=result["test_mae_of_mean"],
            title=f"{record.title}, {record.data}",
        )
    ranked = _explanation(record)
    if ranked:
        with open(path / "explanation.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["element_property", "mean_absolute_weight"])
            writer.writerows([name, f"{weight:.6g}"] for name, weight in ranked)
        figures.ranking(
            ranked,
            path / "explanation.png",
            label="mean |weight| of its features",
            title=f"{record.title}, {record.data}",
        )
    write_text(path / REPORT, report.page_of(record, ranked))


def _explanation(record: Record) -> list[tuple[str, float]]:
    """What the predictions rest on, as the network tells; nothing where it does not."""
    if not record.property:
        return []
    explanation = find_network(record.made_with["network"]).explanation
    if explanation is None:
        return []
    params = restore_best(record.path / CHECKPOINTS)["params"]
    return list(explanation(params.get("student", params)))


def warning_of(name: str, result: Mapping[str, Any]) -> str | None:
    """A line for the user where a property predictor has learned less than one number.

    Args:
      name: of the predictor, such as ``vanilla``.
      result: content of its ``result.json``.

    Returns:
      None where it does better than always predicting the mean of its training crystals.
    """
    mae, of_mean, unit = (result[x] for x in ("test_mae", "test_mae_of_mean", "unit"))
    if mae < of_mean:
        return None
    return (
        f"warning: {name} is no better than the mean of its {result['n_train']} training crystals: "
        f"test MAE {mae:.4g}, of the mean {of_mean:.4g} {unit}".rstrip()
        + "; give it more crystals or epochs"
    )
