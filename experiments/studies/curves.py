"""Learning curves: the error over the number of labels, with the teacher and without.

python -m experiments.studies.curves ../data --output runs/studies/curves

CGCNN vanilla and distilled, and the teacher itself under a property head, all of it fine-tuned or
the head alone, on the same crystals. ``../data`` is as of `experiments.studies.gain`, whose runs of
the same cells are found where ``--output`` is the same. Runs are made once; ``--collect`` writes
the record and the picture of those that are there.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator

from crysgnn_jax.commands import cli, distill, finetune
from crysgnn_jax.files import write_json
from crysgnn_jax.reporting.figures import COLUMN, new_figure
from crysgnn_jax.training.settings import TEACHER
from experiments.studies.runs import Job, about, add_flags, epochs_for

SIZES = (100, 300, 1000, 3000, 10_000, "all")
PROPERTIES = {
    "formation_energy_per_atom": "formation energy (eV/atom)",
    "band_gap": "band gap (eV)",
}
WAYS = {
    "vanilla": ("CGCNN vanilla", "#0072b2", "o"),
    "distilled": ("CGCNN distilled", "#d55e00", "s"),
    "tuned": ("teacher, fine-tuned", "#009e73", "^"),
    "frozen": ("teacher frozen, head trained", "#cc79a7", "v"),
}
N_ALL = 23_721


def job(data: Path, output: Path, way: str, property: str, n: int | str, seed: int) -> Job:
    """One point of one curve."""
    epochs = epochs_for(N_ALL if n == "all" else int(n))
    split = data / "studies" / "splits" / f"{n}_{seed}.json"
    flags = ["--data", data / "studies" / "mp.npz", "--property", property, "--split", split,
             "--seed", seed, "--epochs", epochs, "--patience", epochs]  # fmt: skip
    path = output / f"mp-{property}-{n}-{seed}-cgcnn" / way
    if way in ("vanilla", "distilled"):
        more = ["--vanilla"] if way == "vanilla" else ["--weight", 0.1]
        return Job(path, distill, ["--student", "cgcnn", *flags, *more])
    more = ["--freeze"] if way == "frozen" else []
    return Job(path, finetune, ["--teacher", TEACHER, *flags, *more])


def worth(sizes: np.ndarray, vanilla: np.ndarray, error: float) -> float | None:
    """How many labels a vanilla student takes for an error, by the straight lines between its
    points in logarithms; None outside of them."""
    if not vanilla.min() <= error <= vanilla.max():
        return None
    order = np.argsort(vanilla)
    return float(np.exp(np.interp(np.log(error), np.log(vanilla[order]), np.log(sizes[order]))))


def draw(record: dict[str, Any], path: Path) -> None:
    """A panel a property."""
    names = list(record["curves"])
    figure = new_figure(2 * COLUMN, 3.6)
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for way, (label, colour, marker) in WAYS.items():
            points = [x for x in record["curves"][name] if x["way"] == way]
            if points:
                n, mean, spread = zip(*[(x["n_train"], x["mean"], x["deviation"]) for x in points])
                axis.errorbar(n, mean, spread, color=colour, marker=marker, markersize=4,
                              capsize=2, linewidth=1.2, label=label)  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="labels to learn from",
                 ylabel=f"test MAE\n{PROPERTIES[name]}")  # fmt: skip
        axis.set_xticks(sorted({x["n_train"] for x in record["curves"][name]}))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="y", which="minor", labelsize=7)
        axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    figure.suptitle(
        "Materials Project, 2,000 test crystals of formulas seen nowhere else", fontsize=10
    )
    figure.savefig(path, dpi=300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--properties", nargs="+", default=list(PROPERTIES), choices=PROPERTIES)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--sizes", type=lambda text: text if text == "all" else int(text), nargs="+",
        default=list(SIZES), choices=SIZES, help="numbers of labels"
    )  # fmt: skip
    add_flags(parser, "curves")
    args = parser.parse_args()
    curves: dict[str, list[dict[str, Any]]] = {}
    for n in args.sizes:
        for name in args.properties:
            for way in args.ways:
                jobs = [job(args.data, args.output, way, name, n, seed) for seed in args.seeds]
                if not args.collect:
                    for one in jobs:
                        print(
                            name, n, way, one.path.parent.name, one.result()["test_mae"], flush=True
                        )
                made = [one for one in jobs if (one.path / "result.json").exists()]
                if made:
                    found = [one.result() for one in made]
                    errors = np.array([x["test_mae"] for x in found])
                    deviation = float(errors.std(ddof=1)) if len(errors) > 1 else 0.0
                    curves.setdefault(name, []).append(
                        {"way": way, "n_train": found[0]["n_train"], "mean": float(errors.mean()),
                         "deviation": deviation, "test": errors.tolist(),
                         "epochs": found[0]["epochs"], "commit": made[0].commit()}
                    )  # fmt: skip
    for points in curves.values():
        vanilla = [x for x in points if x["way"] == "vanilla"]
        sizes, errors = (np.array([x[key] for x in vanilla]) for key in ("n_train", "mean"))
        for x in points:
            if x["way"] != "vanilla" and len(vanilla) > 1:
                x["vanilla_labels"] = worth(sizes, errors, x["mean"])
    record = {**about(), "curves": curves}
    if args.collect:
        write_json(args.record, record)
        draw(record, args.record.with_suffix(".png"))
    for name, points in curves.items():
        for x in points:
            print(
                name,
                x["n_train"],
                x["way"],
                f"{x['mean']:.4g} ± {x['deviation']:.2g}",
                x.get("vanilla_labels"),
            )  # noqa: E501


if __name__ == "__main__":
    cli.run_study(main)
