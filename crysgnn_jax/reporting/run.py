"""The pictures of one run: whatever its directory has something to draw of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crysgnn_jax.files import write_csv, write_text
from crysgnn_jax.models.registry import find_network
from crysgnn_jax.reporting.records import Record, title_of
from crysgnn_jax.reporting.verdict import verdict
from crysgnn_jax.training.checkpoints import restore_best
from crysgnn_jax.training.logs import MetricsLog
from crysgnn_jax.training.workdir import CHECKPOINTS, METRICS, REPORT

__all__ = ["draw_run", "title_of", "verdict_of"]


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
        write_csv(
            path / "explanation.csv",
            ["element_property", "mean_absolute_weight"],
            ([name, f"{weight:.6g}"] for name, weight in ranked),
        )
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


def verdict_of(path: Path, result: Mapping[str, Any]) -> list[str]:
    """What became of a run in a folder: a sentence, and a warning each, see `verdict.verdict`."""
    log = MetricsLog(path / METRICS)
    return verdict(result, log.read() if (path / METRICS).exists() else [])
