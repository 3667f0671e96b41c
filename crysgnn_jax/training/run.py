"""A run: a network, the crystals it learns from, and where; from settings to a finished folder."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np

from crysgnn_jax import processes
from crysgnn_jax.batches.loader import Loader
from crysgnn_jax.batches.splits import Split
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_csv, writing
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.network import Network
from crysgnn_jax.objectives.loss import Loss
from crysgnn_jax.training.checkpoints import Checkpoints
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.logs import Log, MetricsLog, NoLog, Progress, trackers_of
from crysgnn_jax.training.loop import STATISTICS_STEPS, Trainer
from crysgnn_jax.training.settings import TrainingSettings
from crysgnn_jax.training.step import (
    create_optimiser,
    create_state,
    make_statistics_step,
    make_train_step,
)
from crysgnn_jax.training.workdir import (
    CONFIG,
    NOTES,
    SKIPPED,
    Followed,
    Workdir,
    read_made_with,
    require_alike,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One network to be trained, and all that is at hand for it.

    Attributes:
      name: of the network, as the user calls it.
      network: what it is.
      module: the network, with its settings.
      settings: how to train it, with nothing left to the network's recipe.
      store: the crystals, as graphs of the network's kind.
      split: which of them to train on, choose by and test on.
      devices: where to train.
      workdir: where the run is written.
      progress: what the user sees.
      about: further facts for ``config.json``, such as the command and the data by name.
      overwrite: delete a run that is there.
      named: further facts for ``config.json`` by the names of their flags: where that came from of
        which a fingerprint alone decides the outcome, such as the teacher.
      continued: let a finished run go on for more epochs, from its best weights.
    """

    name: str
    network: Network
    module: nn.Module
    settings: TrainingSettings
    store: GraphStore
    split: Split
    devices: Devices
    workdir: Path
    progress: Progress
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    overwrite: bool = False
    named: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    continued: bool = False

    @property
    def learners(self) -> Devices:
        """The devices as the steps use them, each for as many batches as are accumulated."""
        return self.devices.times(self.settings.accumulate)

    @property
    def crystals_a_batch(self) -> int:
        """Crystals of an average batch: a device takes several of them where they are
        accumulated."""
        return -(-self.settings.batch_size // self.settings.accumulate)

    def made_with(self, task: "Task") -> dict[str, Any]:
        """What determines the outcome, for ``config.json``."""
        return {
            **self.about,
            "network": self.name,
            "graphs": self.store.fingerprint,
            "featuriser": dataclasses.asdict(self.store.settings),
            "devices": len(self.devices),
            **task.made_with(self),
        }


class Learner(NamedTuple):
    """What a task makes of a run: what is trained, by what, and what comes of it.

    Attributes:
      module: what is trained; it may hold more than the run's module.
      loss: of its outputs and a batch.
      loader: makes the steps' batches.
      start: random initial variables → those to start from; None to start from these.
      evaluate: variables, replicated → (score, metrics) on the validation crystals; the lowest
        score is the best.
      finish: the best variables, replicated → what ``result.json`` says of the task, once the
        task's own files are written.
    """

    module: nn.Module
    loss: Loss
    loader: Loader
    start: Callable[[Any], Any] | None
    evaluate: Callable[[Any], tuple[float, dict[str, float]]]
    finish: Callable[[Any], dict[str, Any]]


class Task(Protocol):
    """What there is to learn: `property_task.PropertyTask`, `pretraining_task.PretrainingTask`."""

    def made_with(self, run: Run) -> dict[str, Any]:
        """What of the task determines the outcome."""

    def in_words(self) -> str:
        """What is learned, or from whom, for the user."""

    def set_up(self, run: Run, workdir: Workdir) -> Learner:
        """What is to be trained, and by what; the task's own files go to the workdir."""


Draw = Callable[[Path, Mapping[str, Any]], None]
"""(path of a run, content of its ``result.json``) → pictures of it."""


def no_pictures(path: Path, result: Mapping[str, Any]) -> None:
    """A `Draw` that draws nothing."""


def train(run: Run, task: Task, draw: Draw = no_pictures) -> dict[str, Any]:
    """Train, or go on, or find the run finished: the content of ``result.json``.

    Args:
      run: the run.
      task: what there is to learn.
      draw: called before the run counts as finished.

    Raises:
      UserError: the workdir cannot be used or written to, or the loss became NaN or infinite.
      Stopped: a signal came, and the run was saved.
    """
    opened = _open(run, json.loads(json.dumps(run.made_with(task))))
    with opened as workdir, writing(run.workdir):
        if workdir.result is not None:
            run.progress.say(f"{workdir.path} holds a finished run")
            return workdir.result
        learner = task.set_up(run, workdir)
        steps = _steps_of_an_epoch(run, learner)
        run.progress.begin(_plan(run, task, workdir, steps), _beside(run, steps))
        log: Log = NoLog()
        if workdir.ours:
            write_left_out(run.store, workdir.path)
            trackers = trackers_of(run.settings, workdir.path, run.made_with(task))
            log = MetricsLog(workdir.metrics, trackers)
        result = _learn(run, learner, workdir, log, steps)

        def finish() -> dict[str, Any]:
            draw(workdir.path, result)
            workdir.finish(result)
            return result

        found: dict[str, Any] = processes.told(finish)
        return found


def _open(run: Run, made_with: dict[str, Any]) -> Workdir:
    """The run's directory, which the first of its processes writes to.

    Raises:
      UserError: as of `Workdir`; or the processes were to train different runs.
    """
    opened: list[Workdir] = []

    def claim() -> dict[str, Any]:
        workdir = Workdir(
            run.workdir,
            made_with,
            overwrite=run.overwrite,
            named=run.named,
            continued=run.continued,
        )
        opened.append(workdir)
        return {**workdir.state, "made_with": made_with}

    told = processes.told(claim)
    if opened:
        return opened[0]
    require_alike(told["made_with"], made_with, f"process {processes.number()}")
    return Followed(run.workdir, told)


def as_begun(devices: Devices, workdir: Path, *, anew: bool = False) -> Devices:
    """The devices as the run in a directory uses them: its steps go on having as many batches as
    they began with, on however many devices.

    Args:
      devices: that there are.
      workdir: which may hold a run.
      anew: the run is to be deleted.

    Raises:
      UserError: the run's settings are damaged.
    """

    def begun() -> int | None:
        if anew or not (workdir / CONFIG).exists():
            return None
        return read_made_with(workdir).get("devices")

    n = processes.told(begun)
    return devices if not isinstance(n, int) or n < 1 else devices.taking(n)


def require_shared(path: Path, parameter: str) -> None:
    """Check that a file or folder that the first process has made is there for the others.

    Args:
      path: of it.
      parameter: by which the user gave it, or what it lies in.

    Raises:
      UserError: it is not.
    """
    # A network file system may take its time to show what is new.
    end = time.monotonic() + (0 if processes.count() == 1 else SHOWN_AFTER)
    while not path.exists():
        if time.monotonic() > end:
            raise UserError(
                f"process {processes.number()} does not find {path}, which the first one has "
                f"written; name a `{parameter}` that all machines share"
            )
        time.sleep(0.5)


SHOWN_AFTER = 60.0
"""Seconds after which what one machine has written is to be seen on the others."""


_COUNTED = 200
"""Steps that are counted: of short epochs several, for they differ by one or two."""


def _steps_of_an_epoch(run: Run, learner: Learner) -> float:
    """How many steps an epoch has, on average: batches hold as many crystals as fit into their
    size, so that it is not the number of crystals by that of a batch. A function of the seed, and
    so the same for a run that goes on."""
    seed, rows = run.settings.seed, run.split.train
    counted: list[int] = []
    while sum(counted) < _COUNTED and len(counted) < run.settings.epochs:
        counted.append(len(learner.loader.epoch(rows, (seed, len(counted)))))
    return float(np.mean(counted))


def _learn(run: Run, learner: Learner, workdir: Workdir, log: Log, steps: float) -> dict[str, Any]:
    """Train, or go on from the last checkpoint; the content of ``result.json``.

    Args:
      steps: of an epoch. By them the learning rate knows when it is to have fallen to 0.
    """
    settings, devices = run.settings, run.learners
    before = workdir.continuations[-1] if workdir.continuations else None
    epochs = settings.epochs - (before["after_epoch"] if before else 0)
    optimiser = create_optimiser(
        settings.learning_rate,
        round(epochs * steps),
        weight_decay=settings.weight_decay,
    )
    trainer = Trainer(
        devices=devices,
        step=make_train_step(learner.module, learner.loss, optimiser),
        statistics_step=make_statistics_step(learner.module),
        loader=learner.loader,
        rows=run.split.train,
        evaluate=learner.evaluate,
        settings=settings,
        checkpoints=Checkpoints(workdir.checkpoints),
        saves=workdir.ours,
        log=log,
        progress=run.progress,
    )
    key = jax.random.key(settings.seed)
    example = learner.loader.batcher(run.split.train[:1])
    state = create_state(learner.module, optimiser, key, example)
    if learner.start is not None:
        begun = learner.start(state.variables)
        state = dataclasses.replace(state, params=begun["params"], batch_stats=begun["batch_stats"])
    state = processes.same_arrays(state)
    begun_with = jax.tree.map(np.asarray, state.params)
    try:
        found = trainer.fit(state, before["after_step"] if before else None)
    except BaseException:
        log.close(failed=True)
        raise
    log.close()
    finished = learner.finish(run.devices.replicate(found.variables))
    untouched = {}
    if names := unchanged(begun_with, found.variables["params"]):
        untouched = {"untouched": names}
    continued = {"continued": workdir.continuations} if before else {}
    # A task may say that some of what was trained is not a part of the network.
    return {**trainer.summary(found), **finished, **continued, **untouched}


def _plan(run: Run, task: Task, workdir: Workdir, steps_of_an_epoch: float) -> str:
    """What a run will do, in a line."""
    split, settings = run.split, run.settings
    crystals = f"{len(split.train):,} crystals to train on, {len(split.validation):,} to validate"
    if len(split.test):
        crystals += f", {len(split.test):,} to test"
    epochs = f"{settings.epochs} epoch{'s' if settings.epochs > 1 else ''}"
    if settings.patience is not None:
        epochs = f"at most {epochs}"
    n = round(steps_of_an_epoch)
    steps = f"{n:,} step{'s' if n > 1 else ''}"
    more = ""
    if workdir.continuations:
        last = workdir.continuations[-1]
        more = f" (from epoch {last['from_epoch']}, the best of the first {last['after_epoch']})"
    # A GPU that is not used should not go unnoticed.
    return f"{crystals}; {task.in_words()}; {epochs}{more} of {steps}, on {run.devices}"


def _beside(run: Run, steps: float) -> float:
    """How long validation and statistics take, as a part of what the steps of an epoch take: a
    pass without gradients takes about a third of one with them."""
    n_train = len(run.split.train)
    statistics = min(1.0, STATISTICS_STEPS / steps)
    return (statistics + len(run.split.validation) / n_train) / 3


def unchanged(before: Any, after: Any) -> list[str]:
    """Names of the parameters that training has left as they were: no gradient reached them."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after))
    return [name_of_leaf(path) for (path, x), y in pairs if np.array_equal(x, y)]


def name_of_leaf(path: Any) -> str:
    """``encoder/embedding/kernel``, of a path in a tree of variables."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def write_left_out(store: GraphStore, folder: Path) -> None:
    """List the crystals that could not be used, ``skipped.csv`` with id and reason, and what is to
    be known of others, ``notes.csv`` with id and note, if there is anything."""
    write_listing(store.skipped, "reason", folder / SKIPPED)
    if store.notes:
        write_listing(store.notes, "note", folder / NOTES)


def write_listing(entries: Sequence[tuple[str, str]], column: str, path: Path) -> None:
    """Write a CSV table of ids and texts.

    Raises:
      UserError: the disk is full, or cannot be written to.
    """
    write_csv(path, ["id", column], entries)
