"""What a student learns a property from: crystals with labels, and the teacher's view of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.batches.splits import Split, make_split
from crysgnn_jax.crystals.named import NAMED, unit_of
from crysgnn_jax.crystals.sources import UNLABELLED, Combined, Source, without_labels
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.network import Network
from crysgnn_jax.models.registry import OTHERS, STUDENTS, build, require_protocol
from crysgnn_jax.objectives.distillation import Pull, embedding_loss
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.logs import Progress
from crysgnn_jax.training.predictor import TrainedModel, take_over
from crysgnn_jax.training.property_task import PropertyTask, Start
from crysgnn_jax.training.run import Run
from crysgnn_jax.training.settings import PropertySettings, TrainingSettings

BuildGraphs = Callable[[Source, FeaturiserSettings], GraphStore]
"""Crystals → their graphs, built if need be."""


@dataclasses.dataclass(frozen=True)
class Student:
    """A property predictor to be trained.

    Attributes:
      name: as of `registry.find_network`.
      network: what it is.
      model: settings of its module that differ from the defaults.
      start: weights to start from; None for random ones.
    """

    name: str
    network: Network
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: Start | None = None

    @classmethod
    def fine_tuned(cls, teacher: TrainedModel, *, freeze: bool) -> "Student":
        """The teacher's encoder under a property head.

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
        start = Start(begin, teacher.fingerprint)
        return cls("fine-tuned", OTHERS["fine-tuned"], model, start)

    def starting_from(self, source: TrainedModel) -> "Student":
        """The same student, with the convolutions of a network trained without labels.

        Raises:
          UserError: the student starts from random weights, or from another network.
        """
        wanted = self.network.starts_from
        if wanted is None:
            raise UserError(f"`autoencoder`: {self.name} starts from random weights; leave it out")
        if source.name != wanted:
            raise UserError(
                f"`autoencoder` {source.path} holds {source.name}; {self.name} starts from {wanted}"
            )
        start = Start(take_over(source, "convolution_"), source.fingerprint)
        return dataclasses.replace(self, start=start)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A student, a property, and the crystals to learn it from; see `prepare`.

    Attributes:
      student: what is to learn.
      property: what to predict.
      store: the crystals, as graphs of the student's kind.
      labelled: rows of the store that have the property.
      teacher: to distil from; None for none.
      embeddings: ``[all atoms of the store, d]``, the teacher's; None without a teacher.
      unlabelled: rows of the store that take part in the teacher's pull alone; None for none.
    """

    student: Student
    property: str
    store: GraphStore
    labelled: np.ndarray
    teacher: TrainedModel | None = None
    embeddings: np.ndarray | None = None
    unlabelled: np.ndarray | None = None

    def split(self, rule: str, seed: int) -> Split:
        """The crystals with the label, divided by a rule, as of `splits.make_split`."""
        return make_split(self.store, self.labelled, rule, seed)

    def settings(
        self, training: TrainingSettings, learning: PropertySettings
    ) -> tuple[TrainingSettings, PropertySettings]:
        """Settings with nothing left open: the property's name and unit, the student's recipe, and
        no weight of the teacher where there is none."""
        recipe = self.student.network.recipe
        chosen = dataclasses.replace(learning, property=self.property, unit=unit_of(self.property))
        if self.teacher is None:
            chosen = dataclasses.replace(chosen, weight=0.0, pull=PropertySettings.pull)
        return training.filled(recipe), chosen.filled(recipe)

    def run(
        self,
        split: Split,
        rule: str,
        training: TrainingSettings,
        learning: PropertySettings,
        *,
        pull: Pull = embedding_loss,
        devices: Devices,
        workdir: Path,
        progress: Progress,
        about: Mapping[str, Any],
        overwrite: bool = False,
    ) -> tuple[Run, PropertyTask]:
        """What `run.train` takes.

        Args:
          split: of the store.
          rule: that it was made by.
          training: how to train; what is not given is the student's own.
          learning: what to learn, likewise.
          pull: the function that ``learning.pull`` names.
          devices: as of `Run`, and ``workdir``, ``progress``, ``about`` and ``overwrite`` likewise.

        Raises:
          UserError: the network is a user's own, or its settings are, and it is no student.
        """
        training, learning = self.settings(training, learning)
        student, network = self.student, self.student.network
        module = build(network.module, student.model, cutoff=self.store.settings.cutoff)
        # What the package comes with is known to fit, as it comes.
        if student.name not in STUDENTS or student.model:
            require_protocol(module, network.needs, student.name)
        run = Run(
            name=student.name,
            network=network,
            module=module,
            settings=training,
            store=self.store,
            split=split,
            devices=devices,
            workdir=workdir,
            progress=progress,
            about=about,
            overwrite=overwrite,
        )
        task = PropertyTask(
            learning,
            teacher_embeddings=self.embeddings,
            teacher=None if self.teacher is None else self.teacher.fingerprint,
            pull=pull,
            start=student.start,
            rule=rule,
            model=student.model,
            unlabelled=self.unlabelled,
        )
        return run, task


def prepare(
    student: Student,
    source: Source,
    property: str,
    build_graphs: BuildGraphs,
    devices: Devices,
    *,
    teacher: TrainedModel | None = None,
    distilled: bool = True,
    graphs: Mapping[str, Any] | None = None,
    unlabelled: Sequence[Source] = (),
) -> Lesson:
    """Graphs and, with a teacher, its embeddings.

    Args:
      student: what is to learn.
      source: crystals with labels.
      property: what to predict.
      build_graphs: crystals → graphs.
      devices: where the teacher runs.
      teacher: decides how crystals become graphs, unless the student does.
      distilled: whether to learn from the teacher; a twin that does not has the same graphs.
      graphs: fields of `FeaturiserSettings` that the user chose.
      unlabelled: crystals that take part in the teacher's pull alone. Those that are among the
        labelled too, by id and formula, are left out.

    Raises:
      UserError: no crystal has the property; the user chose other graphs than the teacher's, where
        they should be the same; or no unlabelled crystal is left.
    """
    featuriser = student_graphs(student.network, teacher, graphs or {})
    if unlabelled and distilled and teacher is not None:
        source = Combined([source, *map(without_labels, unlabelled)])
    store = build_graphs(source, featuriser)
    labelled = np.flatnonzero(np.isfinite(store.labels(property)))
    if not len(labelled):
        raise UserError(f"`property` {property}: no crystal of {store.source_name} has a value")
    if teacher is None or not distilled:
        return Lesson(student, property, store, labelled)
    embeddings = embeddings_of(teacher, source, store, build_graphs, devices)
    more = unlabelled_rows(store) if unlabelled else None
    return Lesson(student, property, store, labelled, teacher, embeddings, more)


def choose_property(data: str, source: Source, choice: str | None) -> str:
    """The label to predict, checked before any work is done.

    Args:
      data: name of the crystals, as the user gave it.
      source: the crystals.
      choice: the user's; None for the data set's own, or the only one there is.

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
        raise UserError(f"`data` {data} has the properties {listed}; choose with `property`")
    if choice not in names:
        raise UserError(f"`property` {choice}: {data} has {listed}")
    return choice


def student_graphs(
    network: Network, teacher: TrainedModel | None, chosen: Mapping[str, Any]
) -> FeaturiserSettings:
    """How the student's crystals become graphs: its own way, or else as the teacher's.

    Raises:
      UserError: the user chose other graphs than the teacher's, where they should be the same.
    """
    if network.needs.graphs:
        return FeaturiserSettings(**{**network.needs.graphs, **chosen})
    base = teacher.featuriser if teacher else FeaturiserSettings()
    featuriser = dataclasses.replace(base, **chosen)
    if teacher is not None:
        featuriser.require(teacher.featuriser, f"the teacher in {teacher.path}")
    return featuriser


def embeddings_of(
    teacher: TrainedModel,
    source: Source,
    store: GraphStore,
    build_graphs: BuildGraphs,
    devices: Devices,
) -> np.ndarray:
    """The teacher's embeddings of the atoms of a student's store, ``[all atoms, d]``.

    Where the student's graphs are of another kind, the teacher sees the same crystals as graphs
    of its own.

    Raises:
      UserError: the teacher's graphs cannot be made of a crystal that the student's can.
    """
    theirs = store
    if store.settings != teacher.featuriser:
        theirs = build_graphs(source, teacher.featuriser)
    embeddings = teacher.embeddings(theirs, devices)
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


def unlabelled_rows(store: GraphStore) -> np.ndarray:
    """Rows of a store that came without labels, and are not among the others by id and formula.

    Raises:
      UserError: there are none.
    """
    came_without = np.zeros(len(store), dtype=bool)
    if UNLABELLED in store.tag_names:
        came_without = store.tags(UNLABELLED) != ""
    # A combined source puts its member's name before an id that is there already.
    ids = [id.rpartition(f"({UNLABELLED})/")[2] for id in store.ids.tolist()]
    known = {
        (ids[row], store.reduced_formula[row]) for row in np.flatnonzero(~came_without).tolist()
    }
    rows = [
        row
        for row in np.flatnonzero(came_without).tolist()
        if (ids[row], store.reduced_formula[row]) not in known
    ]
    if not rows:
        raise UserError(
            "`unlabelled`: none of its crystals can be used, or all are among those with labels "
            "(by id and formula); give others"
        )
    return np.array(rows)
