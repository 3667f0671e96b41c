"""The untagged stage: a student follows the teacher on crystals without labels, before any label.

The teacher's pull needs no label, so a student can follow it over far more crystals than there are
labels for. What it ends with is the start of every property that is then learned: it is kept in the
cache, under all that determines it, and found again.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax import processes
from crysgnn_jax.cache import default_cache_dir, locked, make_cache_dir
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.network import Network
from crysgnn_jax.models.registry import build_student
from crysgnn_jax.objectives.distillation import Pull
from crysgnn_jax.pretraining.registry import as_unlabelled
from crysgnn_jax.pretraining.teacher_embeddings import TeacherEmbeddings
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.logs import Progress
from crysgnn_jax.training.memory import Memory
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.pretraining_task import PretrainingTask, hold_out
from crysgnn_jax.training.property_task import Start
from crysgnn_jax.training.run import Run, Task, require_shared, train
from crysgnn_jax.training.settings import START_RATE, TrainingSettings


def untagged_stage(
    name: str,
    network: Network,
    model: Mapping[str, Any],
    store: GraphStore,
    rows: np.ndarray,
    teacher: str,
    embeddings: np.ndarray,
    memory: Memory | None = None,
    *,
    pull: Pull,
    epochs: int,
    seed: int,
    start: Start | None = None,
    devices: Devices,
    cache: Path | str | None = None,
    progress: Callable[[int, str], Progress],
) -> TrainedModel:
    """Train a student on the teacher's pull alone, or find it trained.

    Args:
      name: of the student, as of `registry.find_network`.
      network: what it is.
      model: settings of its module that differ from the defaults.
      store: the crystals, as graphs of the student's kind.
      rows: those to follow the teacher on.
      teacher: fingerprint of what the ``embeddings`` ``[all atoms of the store, d]`` are of.
      embeddings: the teacher's.
      memory: of the teacher; None where it is not known.
      pull: how far the student is from the teacher.
      epochs: passes over the crystals.
      seed: of weights and order.
      start: weights to start from; None for random ones.
      devices: where to train.
      cache: where it is kept; `default_cache_dir` where not given.
      progress: (epochs, title) → what the user sees.

    Raises:
      UserError: the student is a user's own and no student, or the cache cannot be written.
    """
    module = build_student(name, network, model, store.settings.cutoff)
    objectives = ((TeacherEmbeddings(embeddings.shape[1], pull), 1.0),)
    found = as_unlabelled(name, network, module, objectives)
    split = hold_out(rows, 0)
    settings = TrainingSettings(epochs=epochs, seed=seed)
    settings = settings.filled(found.network.recipe, len(split.train), len(devices))
    if start is not None:
        rate = START_RATE * settings.learning_rate
        settings = dataclasses.replace(settings, learning_rate=rate)
    task = PretrainingTask(objectives, embeddings, teacher, memory, start)
    run = Run(
        name=name,
        network=found.network,
        module=found.module,
        settings=settings,
        store=store,
        split=split,
        devices=devices,
        workdir=Path(),
        progress=progress(epochs, f"{name.rpartition(':')[2]} untagged"),
        about={"command": "untagged"},
    )
    return kept(run, task, "starts", cache)


def kept(run: Run, task: Task, kind: str, cache: Path | str | None) -> TrainedModel:
    """Train a run whose outcome other runs begin with, or find it trained: in the cache, under all
    that determines it.

    Args:
      run: with any workdir.
      task: what there is to learn.
      kind: of outcome, the name of its folder in the cache.
      cache: `default_cache_dir` where not given.

    Raises:
      UserError: the cache cannot be written, or as of `run.train`.
    """
    made_with = json.dumps(run.made_with(task), sort_keys=True)
    digest = hashlib.blake2b(made_with.encode(), digest_size=8).hexdigest()
    folder = (default_cache_dir() if cache is None else Path(cache)) / kind
    workdir = folder / f"{run.name.replace(':', '.')}-{digest}"
    try:
        make_cache_dir(folder.parent)
        folder.mkdir(exist_ok=True)
        # A run that finds another one training the same waits for it; and those of its processes
        # for the first.
        lock = workdir.with_name(workdir.name + ".lock")
        with locked(lock) if processes.is_first() else contextlib.nullcontext():
            settings = run.settings.untracked()
            train(dataclasses.replace(run, workdir=workdir, settings=settings), task)
            require_shared(workdir, "cache")
    except OSError as error:
        raise UserError(
            f"{folder}: what a student begins with cannot be kept there ({error.strerror}); name "
            "another `cache`"
        ) from None
    return TrainedModel.load(workdir, "start", run.network)
