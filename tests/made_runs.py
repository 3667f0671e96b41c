"""Folders of runs, written by hand in a moment, for pages and pictures of them."""

import csv
import json

import numpy as np

from crysgnn_jax.crystals.table import write_table
from toys import caesium_chloride, perovskite, rocksalt

CRYSTALS = {
    "NaCl": (rocksalt(), 225),
    "CsCl": (caesium_chloride(), 221),
    "SrTiO3": (perovskite(), 221),
}


def write_run(path, *, n=40, finished=True, network="cgcnn", old=False, epochs=5, limit=None):
    """A property predictor's run of ``n`` crystals; ``old``: as they were before reports."""
    path.mkdir(parents=True)
    made_with = {
        "command": "distill",
        "data": "/somewhere/else/my_cifs",
        "limit": limit,
        "network": network,
        "model": {"width": 64},
        "settings": {"property": "band_gap", "unit": "eV", "weight": 0.0, "epochs": epochs},
    }
    config = {"made_with": made_with, "environment": {"jax": "0.5", "machine": "x86_64"}}
    (path / "config.json").write_text(json.dumps(config))
    lines = [
        {
            "epoch": epoch,
            "step": 4 * epoch,
            "train_loss": 2.0 / epoch,
            "train_mae": 1.5 / epoch,
            "validation_mae": 1.0 / min(epoch, 4) + (epoch > 4),
            "seconds": 1.0 * epoch,
            "time": 1.7e9 + epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not finished:
        return path
    generator = np.random.default_rng(0)
    targets = generator.uniform(0.0, 5.0, n)
    predictions = targets + generator.normal(0.0, 0.3, n)
    split = np.array(["train", "validation", "test", "test"])[np.arange(n) % 4]
    kinds = list(CRYSTALS)
    header = ["id", "split", "target", "prediction", "formula", "n_atoms", "space_group"]
    with open(path / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header[: 4 if old else 7])
        for k in range(n):
            crystal, group = CRYSTALS[kinds[k % 3]]
            row = [f"<c{k}>", split[k], targets[k], predictions[k]]
            row += [] if old else [kinds[k % 3], len(crystal.species), group]
            writer.writerow(row)
    tested = np.flatnonzero(split == "test")
    errors = np.abs(predictions - targets)[tested]
    if not old:
        worst = tested[np.argsort(-errors)][:10]
        crystals = [CRYSTALS[kinds[k % 3]][0] for k in worst]
        names = [f"<c{k}>" for k in worst]
        write_table(
            path / "worst.npz",
            [type(c)(id, c.species, c.frac_coords, c.lattice) for id, c in zip(names, crystals)],
        )
    (path / "skipped.csv").write_text("id,reason\nbad,it has no atoms\n")
    result = {
        "task": "student",
        "property": "band_gap",
        "unit": "eV",
        "n_train": int((split == "train").sum()),
        "n_test": len(tested),
        "test_mae": float(errors.mean()),
        "test_mae_of_mean": 1.25,
        "epochs": epochs,
        "best_epoch": min(4, epochs),
        "steps": 4 * epochs,
        "seconds": 12.0,
        "crystals_per_second": 1000.0,
        "parameters": 80925,
        "devices": "1 × cpu (cpu)",
    }
    (path / "result.json").write_text(json.dumps(result))
    return path


def write_pretraining(path):
    """A run without labels, of one objective."""
    path.mkdir(parents=True)
    made_with = {
        "data": ["bundled"],
        "network": "crysgnn",
        "model": {"width": 64},
        "settings": {"epochs": 2, "weights": {"masked_elements": 1.0}},
    }
    (path / "config.json").write_text(json.dumps({"made_with": made_with, "environment": {}}))
    told = {"masked_elements": 1.5, "masked_elements_trivial": 3.0, "masked_elements_accuracy": 0.6}
    measured = {f"validation_{name}": value for name, value in {"loss": 1.5, **told}.items()}
    lines = [
        {"epoch": epoch, "step": epoch, "seconds": 1.0, "train_loss": 2.0, **measured}
        for epoch in (1, 2)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = {
        "task": "pretraining",
        "n_validation": 20,
        "epochs": 2,
        "best_epoch": 1,
        "steps": 100,
        **measured,
    }
    (path / "result.json").write_text(json.dumps(result))
    return path
