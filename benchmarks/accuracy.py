"""How accurate a trained CGCNN is, beside the same network trained in PyTorch.

    python -m benchmarks.accuracy
    python -m benchmarks.accuracy --data crystals.npz --sizes 4000,1000,1000

What makes a step fast must not make it worse. Both sides train the published CGCNN on the same
crystals for as many epochs; the epoch is chosen on the validation crystals, the test crystals are
looked at once. See NOTES.md.
"""

import argparse
import copy
import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, steps
from benchmarks.parser import Parser
from benchmarks.timing import Worker
from crysgnn_jax.batches.splits import Split
from crysgnn_jax.commands import cli, flags
from crysgnn_jax.crystals.readers import open_source
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import open_store
from crysgnn_jax.reporting.tables import text_table

PROJECT, PEER = "this project", "PyTorch"


class ProjectTraining:
    """Trains as the commands do, on their graphs: with ties kept, and reduced by symmetry."""

    def __init__(self, path: Path):
        self._store = open_store(path)

    def train(
        self, targets: str, split: Split, epochs: int, batch_size: int, learning_rate: float,
        seed: int,
    ) -> dict[str, float]:  # fmt: skip
        """Train once.

        Returns:
          ``test`` and ``validation``, mean absolute errors of the chosen epoch, and ``seconds``.
        """
        from crysgnn_jax.models.registry import build, find_network
        from crysgnn_jax.training.devices import Devices
        from crysgnn_jax.training.logs import Progress
        from crysgnn_jax.training.property_task import PropertyTask
        from crysgnn_jax.training.run import Run, train
        from crysgnn_jax.training.settings import PropertySettings, TrainingSettings

        network = find_network("cgcnn")
        training = TrainingSettings(
            epochs=epochs,
            patience=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
        )
        learning = PropertySettings(property=targets, weight=0.0)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            run = Run(
                name="cgcnn",
                network=network,
                module=build(network.module, {}, cutoff=self._store.settings.cutoff),
                settings=training.filled(network.recipe, len(split.train)),
                store=self._store,
                split=split,
                devices=Devices(1),
                workdir=Path(folder),
                progress=Progress(epochs, "cgcnn", quiet=True),
            )
            found = train(run, PropertyTask(learning.filled(network.recipe)))
        seconds = time.perf_counter() - start
        return {
            "test": found["test_mae"],
            "validation": found["validation_mae"],
            "seconds": seconds,
        }


class PeerTraining:
    """Trains as the published code does: Adam with one learning rate, no schedule."""

    def __init__(self, path: Path):
        self._store = open_store(path)

    def train(
        self, targets: str, split: Split, epochs: int, batch_size: int, learning_rate: float,
        seed: int,
    ) -> dict[str, float]:  # fmt: skip
        """As `ProjectTraining.train`."""
        import torch

        from benchmarks import torch_peers

        start = time.perf_counter()
        torch.manual_seed(seed)
        generator = np.random.default_rng(seed)
        labels = self._store.labels(targets)
        mean, std = labels[split.train].mean(), labels[split.train].std()
        standardised = (labels - mean) / std
        batch = lambda rows: torch_peers.make_batch(
            self._store, rows, standardised, with_pairs=False
        )
        pieces = lambda rows: np.array_split(rows, -(-len(rows) // batch_size))
        held_out = {name: [batch(rows) for rows in pieces(getattr(split, name))]
                    for name in ("validation", "test")}  # fmt: skip
        model = torch_peers.CGCNN()
        optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)

        def error(batches: Sequence[Any]) -> float:
            model.eval()
            with torch.no_grad():
                errors = [(model(given)[0] - given.targets).abs() for given in batches]
            model.train()
            return std * float(torch.cat(errors).mean())

        best, weights = np.inf, None
        for _ in range(epochs):
            for rows in pieces(generator.permutation(split.train)):
                optimiser.zero_grad()
                torch_peers.property_loss(model, batch(rows)).backward()
                optimiser.step()
            if (found := error(held_out["validation"])) < best:
                best, weights = found, copy.deepcopy(model.state_dict())
        model.load_state_dict(weights)
        test = error(held_out["test"])
        return {"test": test, "validation": best, "seconds": time.perf_counter() - start}


def _whole_numbers(text: str) -> list[int]:
    """Numbers from 0 on, separated by commas."""
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers")
    return [int(word) for word in words]


def parser() -> Parser:
    """The command's flags."""
    out = Parser("accuracy", __doc__)
    number = flags.positive(int)
    flags.add_labelled_data_flag(out)
    out.add_argument(
        "--property",
        default="formation_energy_per_atom",
        metavar="NAME",
        help="default formation_energy_per_atom",
    )
    out.add_argument(
        "--sizes",
        type=_whole_numbers,
        default=[2000, 500, 500],
        metavar="A,B,C",
        help="crystals to train on, to choose by and to test on (default 2000,500,500)",
    )
    out.add_argument(
        "--seeds",
        type=_whole_numbers,
        default=[0, 1, 2],
        metavar="A,B",
        help="of the crystals, the weights and the order (default 0,1,2)",
    )
    out.add_argument("--epochs", type=number, default=30, metavar="N", help="default 30")
    out.add_argument("--batch-size", type=number, default=256, metavar="N", help="default 256")
    out.add_argument(
        "--learning-rate",
        type=flags.positive(float),
        default=0.01,
        metavar="X",
        help="default 0.01; this project's is the highest of its schedule",
    )
    out.add_argument("--no-peer", action="store_true", help="this project alone")
    out.add_argument(
        "--threads", type=number, default=2, metavar="N", help="cores of each side (default 2)"
    )
    out.add_argument(
        "--output",
        type=Path,
        default=report.RESULTS / "accuracy.json",
        metavar="FILE",
        help="default results/benchmarks/accuracy.json",
    )
    return out


def execute(args: argparse.Namespace) -> None:
    """Measure, write the file and print a table."""
    if len(args.sizes) != 3 or min(args.sizes) == 0:
        raise UserError("--sizes takes three numbers of crystals, such as 2000,500,500")
    if not args.no_peer and importlib.util.find_spec("torch") is None:
        raise UserError("the peer needs torch: pip install -e '.[bench]', or give --no-peer")
    others = report.OtherWork()
    source = open_source(args.data)
    with tempfile.TemporaryDirectory() as cache:
        settings = {PROJECT: FeaturiserSettings(), PEER: FeaturiserSettings(ties="cut")}
        stores = {
            side: build_store(source, graphs, cache_dir=cache)
            for side, graphs in settings.items()
            if side == PROJECT or not args.no_peer
        }
        splits = [draw_split(stores[PROJECT], args.property, args.sizes, s) for s in args.seeds]
        results = {}
        for side, store in stores.items():
            factory = ProjectTraining if side == PROJECT else PeerTraining
            allocator = steps.PROJECT_ALLOCATOR if side == PROJECT else steps.PEER_ALLOCATOR
            worker = Worker(factory, (store.path,), allocator=allocator, threads=args.threads)
            how = args.epochs, args.batch_size, args.learning_rate
            runs = [
                worker.call("train", args.property, split, *how, seed)
                for split, seed in zip(splits, args.seeds)
            ]
            worker.close()
            results[side] = summary(runs)
    about = {
        "data": Path(args.data).name,
        "property": args.property,
        "sizes": args.sizes,
        "seeds": args.seeds,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "threads": args.threads,
    }
    report.write(args.output, {**about, "sides": results}, others)
    shown = lambda found: f"{found['mean']:.4f} ± {found['std']:.4f}"
    rows = [
        [side, shown(found["test_mae"]), f"{found['seconds']['mean']:.0f}"]
        for side, found in results.items()
    ]
    print(text_table(["side", "test MAE", "s a training"], rows))


def draw_split(store, name: str, sizes: Sequence[int], seed: int) -> Split:
    """Crystals that have the label and 12 neighbours an atom, which the published codes need.

    Raises:
      UserError: there are fewer.
    """
    n_neighbours = store.settings.n_neighbours
    usable = np.isfinite(store.labels(name))
    usable &= np.minimum.reduceat(store.degree, store.node_offsets[:-1]) >= n_neighbours
    rows = np.flatnonzero(usable)
    if len(rows) < sum(sizes):
        raise UserError(f"--sizes asks for {sum(sizes)} crystals; {len(rows)} can be used")
    chosen = np.random.default_rng(seed).permutation(rows)[: sum(sizes)]
    return Split(*map(np.sort, np.split(chosen, np.cumsum(sizes)[:-1])))


def summary(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Each seed's errors, and mean and standard deviation over them."""
    out: dict[str, Any] = {"runs": runs}
    for name, key in (("test_mae", "test"), ("validation_mae", "validation")):
        values = np.array([run[key] for run in runs])
        std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        out[name] = {"mean": round(float(values.mean()), 5), "std": round(std, 5)}
    out["seconds"] = {"mean": round(float(np.mean([run["seconds"] for run in runs])), 1)}
    return out


if __name__ == "__main__":
    cli.run(sys.modules[__name__])
