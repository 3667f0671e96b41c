"""What the commands that train a property predictor share: flags, graphs, one run, its pictures.

Imported once a command's flags are known to be good: it imports JAX.
"""

import argparse
import csv
import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from crysgnn_jax.batches.splits import Split, make_split
from crysgnn_jax.commands import cli
from crysgnn_jax.crystals.named import NAMED, PROPERTY_UNITS, unit_of
from crysgnn_jax.crystals.sources import Source
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.protocol import Student
from crysgnn_jax.models.registry import STUDENTS, build, plain_settings, require_protocol
from crysgnn_jax.reporting.tables import text_table
from crysgnn_jax.training.checkpoints import restore_best
from crysgnn_jax.training.devices import AXIS, Devices
from crysgnn_jax.training.logs import MetricsLog, Progress
from crysgnn_jax.training.students import StudentSettings, train_student
from crysgnn_jax.training.trained import TrainedModel, take_over
from crysgnn_jax.training.workdir import CHECKPOINTS, CONFIG, Workdir, read_json, write_json


@dataclasses.dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
      begin: random initial variables → those to start from.
      fingerprint: of the network that they come from.
    """

    begin: Callable
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Run:
    """One property predictor to be trained.

    Attributes:
      command: that trains it.
      title: for the progress and the pictures.
      network: name of the student.
      student: what it is.
      model: settings of its module that differ from the defaults.
      settings: how to train it.
      data: as given by the user, and ``limit`` likewise.
      rule: of the split.
      store: the crystals, as graphs of the student's kind.
      split: of the store.
      devices: where to train.
      teacher: to distil from; None for none.
      teacher_embeddings: ``[all atoms of the store, d]``, the teacher's.
      start: weights to start from; None for random ones.
    """

    command: str
    title: str
    network: str
    student: Student
    model: Mapping[str, Any]
    settings: StudentSettings
    data: str
    limit: int | None
    rule: str
    store: GraphStore
    split: Split
    devices: Devices
    teacher: TrainedModel | None = None
    teacher_embeddings: np.ndarray | None = None
    start: Start | None = None

    def made_with(self, module: nn.Module) -> dict[str, Any]:
        """What determines the outcome, for ``config.json``."""
        return {
            "command": self.command,
            "network": self.network,
            "model": {**plain_settings(module), **self.model},
            "code": code_of(self.student.module) if self.network not in STUDENTS else None,
            "data": self.data,
            "limit": self.limit,
            "graphs": self.store.fingerprint,
            "featuriser": dataclasses.asdict(self.store.settings),
            "split": {"rule": self.rule, "ids": self.split.fingerprint(self.store)},
            "settings": dataclasses.asdict(self.settings),
            "teacher": self.teacher.fingerprint if self.teacher else None,
            "start": self.start.fingerprint if self.start else None,
            "devices": len(self.devices),
        }

    def execute(
        self,
        path: Path,
        *,
        overwrite: bool = False,
        quiet: bool = False,
        log_every: int = 50,
        checkpoint_seconds: float = 20.0,
    ) -> dict[str, Any]:
        """Train, or go on, or report what is finished: the content of ``result.json``, and
        ``files``, where it is."""
        module = build(
            self.student.module, self.model, cutoff=self.store.settings.cutoff, axis_name=AXIS
        )
        if self.network not in STUDENTS or self.model:
            require_protocol(module, self.network)
        with Workdir(path, self.made_with(module), overwrite=overwrite) as workdir:
            result = workdir.result
            if result is not None:
                if not quiet:
                    print(f"{path} holds a finished run")
                return {**result, "files": str(path)}
            if not quiet:
                cli.announce(self.devices)
            cli.write_skipped(self.store, path / "skipped.csv")
            result = train_student(
                self.store,
                self.split,
                workdir,
                self.student,
                module,
                self.settings,
                self.devices,
                Progress(self.settings.epochs, self.title, quiet=quiet),
                teacher_embeddings=self.teacher_embeddings,
                start=self.start.begin if self.start else None,
                log_every=log_every,
                checkpoint_seconds=checkpoint_seconds,
            )
            draw(path, result, self.title)
            if self.student.explanation is not None:
                explain(path, self.student)
            workdir.finish(result)
        return {**result, "files": str(path)}


def code_of(module: type) -> str:
    """Hex digest of the file that a user's own module is written in."""
    try:
        text = inspect.getsource(inspect.getmodule(module))
    except (OSError, TypeError):  # not written in a file
        text = repr(module)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def settings_of(
    args: argparse.Namespace,
    name: str,
    student: Student,
    property: str,
    weight: float,
    seed: int,
) -> StudentSettings:
    """The settings of a run: the flags that were given, else the student's own."""
    return StudentSettings(
        student=name,
        property=property,
        unit=unit_of(property),
        weight=weight,
        epochs=args.epochs,
        patience=args.patience,
        batch_size=args.batch_size or student.batch_size,
        learning_rate=args.learning_rate or student.learning_rate,
        seed=seed,
        loss=args.loss or student.loss,
        weight_decay=student.weight_decay if args.weight_decay is None else args.weight_decay,
        raw_targets=args.raw_targets,
    )


class FineTuned(NamedTuple):
    """A pre-trained encoder under CGCNN's property head, to be trained as a CGCNN.

    Attributes:
      student: what it needs of batches.
      model: settings of `CGCNN` that make its encoder the pre-trained one.
      start: the encoder's weights.
    """

    student: Student
    model: dict[str, Any]
    start: Start


def fine_tuned(teacher: TrainedModel, *, freeze: bool) -> FineTuned:
    """The predictor that fine-tuning trains.

    Args:
      teacher: has an encoder of gated convolutions.
      freeze: keep the encoder as it is, and train the head alone.

    Raises:
      UserError: the teacher has no such encoder.
    """
    begin = take_over(teacher)
    model = {
        "width": teacher.module.width,
        "n_convolutions": teacher.module.n_convolutions,
        "embedding_bias": "bias" in teacher.variables["params"]["encoder"]["embedding"],
        "freeze_encoder": freeze,
    }
    return FineTuned(STUDENTS["cgcnn"], model, Start(begin, teacher.fingerprint))


def autoencoder_start(path: Path | None, student: Student, name: str) -> Start | None:
    """Convolutions for a student that starts from those of an auto-encoder.

    Args:
      path: of the auto-encoder; None for `cli.AUTOENCODER`, where there is one.
      student: what it starts from.
      name: of the student.

    Raises:
      UserError: a path is given for a student that starts from random weights, or it holds
        another network.
    """
    if student.starts_from is None:
        if path is not None:
            raise UserError(f"--autoencoder: {name} starts from random weights; leave it out")
        return None
    if path is None and not (cli.AUTOENCODER / CONFIG).exists():
        print(
            f"{name} starts from random convolutions, for there is no {student.starts_from} in "
            f"{cli.AUTOENCODER}; make one with python -m experiments.pretrain --teacher "
            f"{student.starts_from}",
            file=sys.stderr,
        )
        return None
    source = TrainedModel.load(path or cli.AUTOENCODER, "--autoencoder")
    if source.network != student.starts_from:
        raise UserError(
            f"--autoencoder {source.path} holds {source.network}; {name} starts from "
            f"{student.starts_from}"
        )
    return Start(take_over(source, "convolution_"), source.fingerprint)


def choose_property(data: str, source: Source, choice: str | None) -> str:
    """The label to predict, checked before any work is done.

    Raises:
      UserError: the data have no such label, or several and none was chosen.
    """
    names = list(source.label_names)
    if choice is None and data in NAMED:
        choice = NAMED[data].default_property
    if choice is None and len(names) == 1:
        choice = names[0]
    listed = ", ".join(names) or "none"
    if choice is None:
        raise UserError(f"--data {data} has the properties {listed}; choose with --property")
    if choice not in names:
        raise UserError(f"--property {choice}: {data} has {listed}")
    return choice


def student_graphs(
    args: argparse.Namespace, student: Student, teacher: TrainedModel | None
) -> FeaturiserSettings:
    """How the student's crystals become graphs: its own way, or else as the teacher's.

    Raises:
      UserError: a flag asks for other graphs than the teacher's, where they should be the same.
    """
    if student.graphs:
        return cli.featuriser_of(args, FeaturiserSettings(**student.graphs))
    base = teacher.featuriser if teacher else FeaturiserSettings()
    featuriser = cli.featuriser_of(args, base)
    if teacher is not None:
        featuriser.require(teacher.featuriser, f"the teacher in {teacher.path}")
    return featuriser


def labelled_split(store: GraphStore, property: str, rule: str, seed: int) -> Split:
    """The crystals with the label, divided by the rule.

    Raises:
      UserError: no crystal has the label, or as in `make_split`.
    """
    rows = np.flatnonzero(np.isfinite(store.labels(property)))
    if not len(rows):
        raise UserError(f"--property {property}: no crystal of {store.source_name} has a value")
    return make_split(store, rows, rule, seed)


def embeddings_for(
    args: argparse.Namespace,
    teacher: TrainedModel,
    source: Source,
    property: str,
    store: GraphStore,
    devices: Devices,
) -> np.ndarray:
    """The teacher's embeddings of the atoms of a student's store, ``[all atoms, d]``.

    Where the student's graphs are of another kind, the teacher sees the same crystals as graphs
    of its own.
    """
    theirs = store
    if store.settings != teacher.featuriser:
        theirs = cli.graphs(args, source, teacher.featuriser, label=property)
    embeddings = teacher.embeddings(theirs, devices, EMBEDDING_BATCH)
    if theirs is store or np.array_equal(theirs.ids, store.ids):
        return embeddings
    # A crystal that one kind of graph cannot hold shifts the others.
    place = {id: row for row, id in enumerate(theirs.ids.tolist())}
    missing = [id for id in store.ids.tolist() if id not in place]
    if missing:
        raise UserError(
            f"the teacher cannot use {missing[0]}, of which the student's graph can be made; "
            "leave it out of the data"
        )
    rows = [place[id] for id in store.ids.tolist()]
    offsets = theirs.node_offsets
    return np.concatenate([embeddings[offsets[row] : offsets[row + 1]] for row in rows])


EMBEDDING_BATCH = 128
"""Crystals of an average batch when a network runs in evaluation mode."""


def draw(path: Path, result: dict[str, Any], title: str) -> None:
    """The pictures of a run: loss curves, and prediction against target on the test crystals."""
    # Not before training: matplotlib takes a second to import.
    from crysgnn_jax.reporting.figures import loss_curves, parity

    metrics = ["loss", "mae", *(["embedding"] if result["distilled"] else [])]
    lines = MetricsLog(path / "metrics.jsonl").read()
    loss_curves({"": lines}, path / "loss.png", metrics, unit=result["unit"])
    with open(path / "predictions.csv", newline="") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    parity(
        np.array([float(row["target"]) for row in test]),
        np.array([float(row["prediction"]) for row in test]),
        path / "parity.png",
        property=result["property"],
        unit=result["unit"],
        title=title,
    )


def explain(path: Path, student: Student) -> None:
    """What the predictions rest on, as a ranked table and a bar chart."""
    from crysgnn_jax.reporting.figures import ranking

    params = restore_best(path / CHECKPOINTS)["params"]
    ranked = student.explanation(params.get("student", params))
    with open(path / "explanation.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["element_property", "mean_absolute_weight"])
        writer.writerows([name, f"{weight:.6g}"] for name, weight in ranked)
    ranking(ranked, path / "explanation.png", label="mean |weight| of its features")


def report(results: Mapping[str, dict[str, Any]], base: Path) -> None:
    """Print one row: the errors side by side."""
    some = next(iter(results.values()))
    mae = {name: f"{result['test_mae']:.4g}" for name, result in results.items()}
    files = str(base) if len(results) > 1 else some["files"]
    variants = [name for name in ("vanilla", "distilled", "fine-tuned") if name in results]
    shown = ["vanilla", "distilled"] if "fine-tuned" not in results else variants
    print(
        text_table(
            ["property", "unit", *(f"{name} test MAE" for name in shown), "crystals/s", "files"],
            [
                [
                    some["property"],
                    some["unit"] or ("1" if some["property"] in PROPERTY_UNITS else "–"),
                    *(mae.get(name, "–") for name in shown),
                    " / ".join(f"{r['crystals_per_second']:.0f}" for r in results.values()),
                    files,
                ]
            ],
        )
    )


def record(path: Path, results: Mapping[str, dict[str, Any]]) -> None:
    """One file with everything that a reader of a published number asks for."""
    runs = {
        name: {"result": result, "config": read_json(Path(result["files"]) / CONFIG)}
        for name, result in results.items()
    }
    write_json(path, {"command": cli.command(), "runs": runs})
