"""The pictures of one run: whatever its directory has something to draw of."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.models.registry import find_network
from crysgnn_jax.reporting.verdict import verdict
from crysgnn_jax.training.checkpoints import restore_best
from crysgnn_jax.training.logs import MetricsLog
from crysgnn_jax.training.workdir import CHECKPOINTS, METRICS, read_made_with


def draw_run(path: Path, result: Mapping[str, Any]) -> None:
    """Draw a run that has been trained.

    ``loss.png``, loss curves. Of a property predictor also ``parity.png``, prediction against
    target for the test crystals; and ``explanation.csv`` and ``explanation.png``, what the
    predictions rest on, where its network says so.

    Args:
      path: of the run.
      result: content of its ``result.json``.
    """
    # Not before training: matplotlib takes a second to import.
    from crysgnn_jax.reporting import figures

    made_with = read_made_with(path)
    lines = {"": MetricsLog(path / METRICS).read()}
    if result["task"] == "pretraining":
        names = ["loss", *made_with["settings"]["weights"]]
        figures.loss_curves(lines, path / "loss.png", names)
        return
    unit = result["unit"]
    names = ["loss", "mae", *(["embedding"] if result["distilled"] else [])]
    figures.loss_curves(lines, path / "loss.png", names, unit=unit)
    with open(path / "predictions.csv", newline="") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    targets, predictions = (
        np.array([float(row[name]) for row in test]) for name in ("target", "prediction")
    )
    figures.parity(
        targets,
        predictions,
        path / "parity.png",
        property=result["property"],
        unit=unit,
        of_mean=result["test_mae_of_mean"],
        title=title_of(made_with["network"], made_with["model"], distilled=result["distilled"]),
    )
    explanation = find_network(made_with["network"]).explanation
    if explanation is not None:
        params = restore_best(path / CHECKPOINTS)["params"]
        ranked = explanation(params.get("student", params))
        with open(path / "explanation.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["element_property", "mean_absolute_weight"])
            writer.writerows([name, f"{weight:.6g}"] for name, weight in ranked)
        figures.ranking(ranked, path / "explanation.png", label="mean |weight| of its features")


def verdict_of(path: Path, result: Mapping[str, Any]) -> list[str]:
    """What became of a run in a folder: a sentence, and a warning each, see `verdict.verdict`."""
    log = MetricsLog(path / METRICS)
    return verdict(result, log.read() if (path / METRICS).exists() else [])


def title_of(network: str, model: Mapping[str, Any], *, distilled: bool) -> str:
    """What a run is called in pictures and on a terminal: ``cgcnn distilled``.

    Args:
      network: its name.
      model: settings of its module.
      distilled: whether it had a teacher.
    """
    if network == "fine-tuned":
        return "fine-tuned head" if model.get("freeze_encoder") else "fine-tuned"
    return f"{network.rpartition(':')[2]} {'distilled' if distilled else 'vanilla'}"
