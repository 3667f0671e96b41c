"""Training from Python, in one call each: what the commands do, without their flags."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import flax.linen as nn

from crysgnn_jax.batches.splits import make_split
from crysgnn_jax.crystals.excluded import excluded, formulas_excluded
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import Source, require_tag
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs import build
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models import registry
from crysgnn_jax.models.network import Network
from crysgnn_jax.objectives.distillation import Pull, name_of_pull
from crysgnn_jax.pretraining.objective import Weighted
from crysgnn_jax.pretraining.registry import graphs_of, objectives_of, recipe_named, without_labels
from crysgnn_jax.pretraining.teacher_embeddings import TeacherEmbeddings
from crysgnn_jax.reporting.check import Check, check_store
from crysgnn_jax.reporting.run import draw_run, title_of, verdict_of
from crysgnn_jax.settings import require_bounds, settings_of
from crysgnn_jax.training import lesson, run, shipped
from crysgnn_jax.training.committee import Committee, is_several, workdirs
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.logs import Progress
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.pretraining_task import PretrainingTask, hold_out, rows_without
from crysgnn_jax.training.settings import (
    TEACHER,
    PropertySettings,
    TrainingSettings,
    UntaggedSettings,
)

__all__ = ["build_store", "check", "load", "make_split", "pretrain", "train"]


def build_store(
    data: Any,
    settings: FeaturiserSettings | None = None,
    *,
    cache: Path | str | None = None,
    workers: int | None = 1,
    strict: bool = False,
) -> GraphStore:
    """The graphs of crystals: those in the cache, or else new ones.

    Args:
      data: as of `read`: a name or path, structures of ASE or pymatgen, a source.
      settings: how to make the graphs.
      cache: directory of stores; the user's cache folder where not given.
      workers: processes to build with; with 1 none is started, with None one for each core.
      strict: refuse crystals of which any cannot be used.

    Raises:
      UserError: there are no crystals, none or (``strict``) not all of them can be used, or the
        cache cannot be written.

    Example:
      >>> store = build_store("my_cifs/")
      >>> store.distances          # [all edges] float32, Å
    """
    return build.build_store(
        read(data),
        settings or FeaturiserSettings(),
        cache_dir=cache,
        workers=workers,
        strict=strict,
    )


def check(
    data: Any,
    property: str | None = None,
    *,
    against: Any = None,
    graphs: FeaturiserSettings | None = None,
    cache: Path | str | None = None,
    workers: int | None = 1,
) -> Check:
    """What is to be known of crystals and labels before training: what is skipped, strange, or
    there twice, and what to do about it.

    Args:
      data: as of `read`: a name or path, structures of ASE or pymatgen, a source.
      property: the only label to look at; all of them where not given.
      against: other crystals, as of `read`, or the directory of a run: what they have too is told.
      graphs: how to make the graphs, by which structures are compared.
      cache: as of `build_store`, and ``workers`` likewise.

    Raises:
      UserError: as of `build_store`; there is no such label; or ``against`` cannot be read.

    Example:
      >>> found = check("my_cifs/")
      >>> print(found)             # as crysgnn check does
      >>> found.advice             # a line each
      >>> found.write("findings")  # check.json, check.png, …
    """
    return check_store(build_store(data, graphs, cache=cache, workers=workers), property, against)


@overload
def load(workdir: Path | str = TEACHER, *, network: Network | None = None) -> TrainedModel: ...


@overload
def load(workdir: list[Path | str], *, network: Network | None = None) -> Committee: ...


def load(
    workdir: Path | str | list[Path | str] = TEACHER, *, network: Network | None = None
) -> Any:
    """The network of a finished run, of converted weights, or one that comes with the package.

    Args:
      workdir: of the run; or the name of a network that comes with the package, of which the
        teacher ``crysgnn-mp`` is what is loaded where nothing is given. Several of the same
        property, as a list or as a path with a wildcard, are a `Committee`; of files, a wildcard
        takes those that end in ``.safetensors``.
      network: what was trained there; found by its name where not given.

    Raises:
      UserError: there is no such run, or its weights do not fit the network.

    Example:
      >>> model = load("formation_energy")
      >>> found = model.predict("my_cifs/")
      >>> found.values             # [n], in found.unit
      >>> load("runs/*/distilled").predict("my_cifs/").uncertainty
    """
    names = workdir if isinstance(workdir, list) else [workdir]
    if isinstance(workdir, list) or is_several(workdir):
        return Committee(TrainedModel.load(path, network=network) for path in workdirs(names))
    return TrainedModel.load(names[0], network=network)


def pretrain(
    data: Any = "bundled",
    *,
    workdir: Path | str,
    network: str = "crysgnn",
    recipe: str | None = None,
    objectives: Weighted | Mapping[str, float] | None = None,
    follow: TrainedModel | Path | str | None = None,
    exclude: Sequence[Any] = (),
    model: Mapping[str, Any] | None = None,
    graphs: FeaturiserSettings | None = None,
    cache: Path | str | None = None,
    workers: int | None = 1,
    devices: int | None = None,
    quiet: bool = False,
    overwrite: bool = False,
    continued: bool = False,
    **settings: Any,
) -> TrainedModel:
    """Train a network on crystals without labels, go on with an interrupted run, or load a finished
    one.

    Args:
      data: crystals, as of `read`.
      workdir: where the run is written.
      network: ``crysgnn``, the teacher; ``crysae``, the crystal auto-encoder; or a student, which
        then learns without a teacher, to be fine-tuned.
      recipe: ``chemistry``, or ``released`` for that of the network's authors; ``chemistry`` where
        not given, but for the auto-encoder.
      objectives: what it learns, where it is not the recipe: pairs of an `Objective` and its
        weight, or weights by name for those of the package that are to differ.
      follow: a teacher whose atom embeddings the network learns to tell, instead of the objectives,
        or beside them where ``recipe`` or ``objectives`` is given: a student's start.
      exclude: crystals, each as of `read`, whose reduced formulas are left out of ``data``: those
        that students will be tested on; or a ``.json`` file of their ids, such as a student's
        ``splits.json``, see `excluded`.
      model: settings of its module, such as ``{"width": 64}``.
      graphs: how to make the graphs.
      cache: as of `build_store`, and ``workers`` likewise.
      devices: how many local devices to use; all where not given.
      quiet: show no progress.
      overwrite: delete a run that is there.
      continued: let a finished run go on from its best weights, to as many ``epochs`` as are given.
      settings: fields of `TrainingSettings`, such as ``epochs=20``.

    Raises:
      UserError: a value cannot be used, or the loss became NaN or infinite.

    Example:
      >>> teacher = pretrain("my_cifs/", workdir="runs/teacher", epochs=20)
      >>> teacher.embed("others/").atoms   # [all atoms, 64]
      >>> start = pretrain("my_cifs/", network="cgcnn", follow=teacher, workdir="runs/start")
    """
    teacher = None if follow is None else _model(follow, "teacher")
    if teacher is not None and recipe is None and objectives is None:
        objectives = ()
    if objectives is None or isinstance(objectives, Mapping):
        only = teacher is not None and recipe is None
        objectives = objectives_of("none" if only else recipe_named(network, recipe), objectives)
    if teacher is not None:
        objectives = ((TeacherEmbeddings(teacher.embedding_width()), 1.0), *objectives)
    (training,) = _settings(settings, TrainingSettings(epochs=20))
    featuriser = graphs or graphs_of(network)
    source = read(data)
    found = without_labels(
        network, objectives, model, cutoff=featuriser.cutoff, released=recipe == "released"
    )
    left_out = formulas_excluded([excluded(each, source) for each in exclude])
    store = build_store(source, featuriser, cache=cache, workers=workers)
    chosen = run.as_begun(Devices(devices), Path(workdir), anew=overwrite)
    split = hold_out(rows_without(store, left_out), training.seed)
    chosen.require(len(split.train))
    training = training.filled(found.network.recipe, len(split.train), len(chosen))
    following: dict[str, Any] = {}
    if teacher is not None:
        make = lambda source, settings: build_store(source, settings, cache=cache, workers=workers)
        told = lesson.embeddings_of(teacher, source, store, make, chosen)
        following = {
            "teacher_embeddings": told,
            "teacher": teacher.fingerprint,
            "teacher_memory": teacher.memory,
        }
    run.train(
        run.Run(
            name=found.name,
            network=found.network,
            module=found.module,
            settings=training,
            store=store,
            split=split,
            devices=chosen,
            workdir=Path(workdir),
            progress=Progress(training.epochs, network, quiet=quiet),
            about={"command": "pretrain", "data": [source.name], "limit": None},
            overwrite=overwrite,
            named=_named({"follow": teacher, "exclude": exclude}),
            continued=continued,
        ),
        PretrainingTask(objectives, **following),
        draw_run,
    )
    run.require_shared(Path(workdir), "workdir")
    return TrainedModel.load(workdir)


def train(
    network: str | type[nn.Module] | Network,
    data: Any,
    property: str | None = None,
    *,
    workdir: Path | str,
    teacher: TrainedModel | Path | str | None = None,
    pull: str | Pull = "standardised",
    unlabelled: Any = (),
    autoencoder: TrainedModel | Path | str | None = None,
    split: str = "random",
    model: Mapping[str, Any] | None = None,
    graphs: Mapping[str, Any] | None = None,
    cache: Path | str | None = None,
    workers: int | None = 1,
    devices: int | None = None,
    quiet: bool = False,
    overwrite: bool = False,
    continued: bool = False,
    **settings: Any,
) -> TrainedModel:
    """Train a property predictor, with a teacher or without; go on with an interrupted run, load a
    finished one.

    The epoch is chosen on the validation crystals, and the test crystals are looked at once: the
    errors are in ``result`` of what is returned, with those of always predicting the mean of the
    training crystals and of composition alone; a line says so where the network is no better.

    Args:
      network: ``cgcnn``, ``crysxpp``, ``gatgnn``, ``alignn``, a Flax module class of your own that
        returns a `Prediction`, or a `Network`.
      data: crystals with labels, as of `read`.
      property: the label to predict; where there is but one, or the data set has one of its own, it
        need not be given.
      workdir: where the run is written.
      teacher: what to distil from: a network trained without labels, its run, ``crysgnn-mp``, an
        ``.npz`` of atom embeddings made elsewhere, see `EmbeddingsFile`, or ``chgnet``, which has
        seen labels of the Materials Project.
      pull: how the teacher pulls: a name, or a function (student, teacher, batch) → scalar.
      unlabelled: crystals to follow the teacher on before any label, as of `read`, or several such;
        where not given, the student has the start that comes with the package, if there is one, or
        else follows on the bundled crystals; and always on those of ``data`` that are not tested.
      autoencoder: for ``crysxpp``, whose convolutions to start from.
      split: ``random`` or ``formula``, ``column:NAME``, or the ``splits.json`` of another run.
      model: settings of the module, such as ``{"width": 32}``.
      graphs: fields of `FeaturiserSettings` that are to differ from the teacher's or the network's.
      cache: as of `build_store`, and ``workers`` likewise.
      devices: how many local devices to use; all where not given.
      quiet: show no progress.
      overwrite: delete a run that is there.
      continued: let a finished run go on from its best weights, to as many ``epochs`` as are given.
      settings: fields of `TrainingSettings`, `PropertySettings` and `UntaggedSettings`, such as
        ``epochs=60``, ``unit="K"`` of a property of your own, or ``weight=0.1``, the weight of the
        teacher's pull beside the labels.

    Raises:
      UserError: a value cannot be used, or the loss became NaN or infinite.

    Example:
      >>> model = train("cgcnn", "table.npz", "band_gap", teacher=teacher, workdir="runs/mine")
      >>> model.result["test_mae"], model.unit
    """
    name, found = registry.name_of(network)
    student = lesson.Student(name, found, dict(model or {}))
    if autoencoder is not None:
        student = student.starting_from(_model(autoencoder, "autoencoder"))
    pull_name, pull = name_of_pull(pull)
    training, learning, untagged = _settings(
        settings,
        TrainingSettings(patience=30),
        PropertySettings(pull=pull_name),
        UntaggedSettings(),
    )
    source = read(data)
    label = lesson.choose_property(source.name, source, property)
    require_tag(source, split)
    chosen = run.as_begun(Devices(devices), Path(workdir), anew=overwrite)
    prepared = lesson.prepare(
        student,
        source,
        label,
        lambda source, settings: build_store(source, settings, cache=cache, workers=workers),
        chosen,
        teacher=_teacher(teacher),
        graphs=graphs,
        unlabelled=_sources(unlabelled),
        pull=pull_name,
        untagged=untagged,
        distilled=learning.weight != 0,
        needs_unlabelled=learning.needs_unlabelled(),
        quiet=quiet,
    )
    named: dict[str, Any] = {"autoencoder": autoencoder}
    if prepared.teacher is not None:
        epochs = untagged.untagged_epochs
        named |= {"teacher": prepared.teacher, "unlabelled": unlabelled, "untagged_epochs": epochs}
    parts = prepared.split(split, training.seed)
    chosen.require(len(parts.train))
    result = prepared.learn(
        parts,
        split,
        training,
        learning,
        title=title_of(name, student.model, distilled=prepared.teacher is not None),
        pull=pull,
        devices=chosen,
        workdir=Path(workdir),
        progress=functools.partial(Progress, quiet=quiet),
        about={"command": "train", "data": source.name, "limit": None},
        cache=cache,
        draw=draw_run,
        overwrite=overwrite,
        named=_named(named),
        continued=continued,
    )
    run.require_shared(Path(workdir), "workdir")
    for warning in verdict_of(Path(workdir), result)[1:]:
        Progress(training.epochs, name, quiet=quiet).say(f"warning: {name}: {warning}")
    return TrainedModel.load(workdir, network=found)


def _model(given: TrainedModel | Path | str, parameter: str) -> TrainedModel:
    return given if isinstance(given, TrainedModel) else TrainedModel.load(given, parameter)


def _teacher(given: TrainedModel | Path | str | None) -> lesson.Teacher | None:
    return lesson.load_teacher(given) if isinstance(given, (str, Path)) else given


IN_MEMORY = "what was in memory"
"""Stands in a run's ``config.json`` for what has no name: a run by that file alone is refused."""


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config.json`` says by the names of flags, of those that were given: numbers and paths
    as they are, and a list of paths; networks by theirs."""

    def words(value: Any) -> Any:
        if isinstance(value, (list, tuple)) and all(isinstance(x, (str, Path)) for x in value):
            return [str(x) for x in value]
        if isinstance(value, lesson.Teacher):
            return shipped.label_of(value.path)
        if isinstance(value, int):
            return value
        return str(value) if isinstance(value, (str, Path)) else IN_MEMORY

    found = {name: words(value) for name, value in given.items() if value is not None}
    return {name: value for name, value in found.items() if value != []}


def _sources(data: Any) -> list[Source]:
    """What `read` makes of ``data``, one by one where there are several."""
    if isinstance(data, (list, tuple)) and all(isinstance(part, (str, Path)) for part in data):
        return [read(part) for part in data]
    return [read(data)]


def _settings(given: Mapping[str, Any], *defaults: Any) -> list[Any]:
    """Dataclasses of settings with the values given by name.

    Raises:
      UserError: none of them has a setting of that name, or a value is out of bounds.
    """
    names = [{field.name for field in settings_of(type(one))} for one in defaults]
    for name in given:
        if not any(name in known for known in names):
            listed = ", ".join(sorted(set().union(*names)))
            raise UserError(f"`{name}`: there is no such setting; there is {listed}")
    out = [
        dataclasses.replace(one, **{name: given[name] for name in given if name in known})
        for one, known in zip(defaults, names)
    ]
    for one in out:
        require_bounds(one)
    return out
