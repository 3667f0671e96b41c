"""The pictures of one run: whatever its directory has something to draw of."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.models.registry import find_network
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
