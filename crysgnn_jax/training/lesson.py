"""What a student learns a property from: crystals with labels, and the teacher's view of them."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.batches.splits import Split, make_split
from crysgnn_jax.crystals.named import NAMED, unit_of
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import UNLABELLED, Combined, Source, without_labels
from crysgnn_jax.errors import UserError, warn_once
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.network import Network, Recipe
from crysgnn_jax.models.registry import OTHERS, build_student, plain_settings
from crysgnn_jax.objectives.distillation import Pull, embedding_loss
from crysgnn_jax.pretraining.registry import PRETRAINED
from crysgnn_jax.training import shipped
from crysgnn_jax.training.chgnet import CHGNET, CHGNetTeacher
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.embeddings_file import EmbeddingsFile
from crysgnn_jax.training.logs import Progress
from crysgnn_jax.training.memory import Memory, Seen
from crysgnn_jax.training.predictor import TrainedModel, about_start, start_of, take_over
from crysgnn_jax.training.property_task import PropertyTask, Start
from crysgnn_jax.training.run import Draw, Run, no_pictures, train
from crysgnn_jax.training.settings import (
    START_RATE,
    PropertySettings,
    TrainingSettings,
    UntaggedSettings,
)
from crysgnn_jax.training.taught import Taught, what_members_say
from crysgnn_jax.training.untagged import kept, untagged_stage
from crysgnn_jax.training.workdir import read_made_with

_log = logging.getLogger(__name__)

Teacher = TrainedModel | EmbeddingsFile | CHGNetTeacher
"""What can be distilled from."""

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
      start_is_default: whether nobody has asked for ``start``, so that one which comes with the
        package takes its place.
    """

    name: str
    network: Network
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: Start | None = None
    start_is_default: bool = False

    @property
    def has_learned(self) -> bool:
        """Whether it starts from what it has learned itself, without labels."""
        return self.start is not None and bool(self.start.about)

    @property
    def recipe(self) -> Recipe:
        """How it is trained: what it has learned without labels is changed at a lower rate."""
        recipe = self.network.recipe
        if not self.has_learned:
            return recipe
        return dataclasses.replace(recipe, learning_rate=START_RATE * recipe.learning_rate)

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
        start = Start(begin, teacher.fingerprint, about_start(teacher), memory=teacher.memory)
        return cls("fine-tuned", OTHERS["fine-tuned"], model, start)

    @classmethod
    def of_pretrained(cls, model: TrainedModel, *, freeze: bool) -> "Student":
        """A network that was trained before, to learn a property.

        Args:
          model: a teacher, or a CGCNN that was trained on another property, whose encoder then has
            a new head; or a student, as it is, of ``pretrain --network STUDENT`` or of an untagged
            stage.
          freeze: keep the teacher's encoder, and train the head alone.

        Raises:
          UserError: ``freeze`` for a student; or the network was trained on a property and has no
            encoder that can be taken over by itself.
        """
        if model.name in PRETRAINED or model.property is not None:
            return cls.fine_tuned(model, freeze=freeze)
        if freeze:
            raise UserError(
                f"`freeze`: {model.path} holds the student {model.name}; only a teacher's encoder "
                "can be kept as it is"
            )
        settings = {
            name: value
            for name, value in plain_settings(model.module).items()
            if value != getattr(type(model.module), name, None)
        }
        return cls(model.name, model.network, settings, start_of(model))

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
        start = Start(take_over(source, "convolution_"), source.fingerprint, memory=source.memory)
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
      unlabelled: rows of the store that came without labels; None for none.
      untagged: how the student is to follow the teacher before it sees a label; None where it does
        not, or has done so.
      taught: what members say of crystals without a label, see `taught_by`.
    """

    student: Student
    property: str
    store: GraphStore
    labelled: np.ndarray
    teacher: Teacher | None = None
    embeddings: np.ndarray | None = None
    unlabelled: np.ndarray | None = None
    untagged: UntaggedSettings | None = None
    taught: Taught | None = None

    def split(self, rule: str, seed: int) -> Split:
        """The crystals with the label, divided by a rule, as of `splits.make_split`."""
        return make_split(self.store, self.labelled, rule, seed)

    def settings(
        self,
        training: TrainingSettings,
        learning: PropertySettings,
        n_train: int,
        n_devices: int,
    ) -> tuple[TrainingSettings, PropertySettings]:
        """Settings with nothing left open: the property's name and unit, the student's recipe for
        so many training crystals and devices, and no weight of the teacher where there is none."""
        recipe = self.student.recipe
        known = unit_of(self.property)
        unit = known if learning.unit is None else learning.unit
        if known and unit != known and self.store.source_name in NAMED:
            raise UserError(
                f"`unit` {unit}: {self.property} of {self.store.source_name} is in {known}; leave "
                "it out"
            )
        chosen = dataclasses.replace(learning, property=self.property, unit=unit)
        if self.teacher is None:
            chosen = dataclasses.replace(chosen, weight=0.0, pull="released", taught_by=0)
        return training.filled(recipe, n_train, n_devices), chosen.filled(recipe)

    def learn(
        self,
        split: Split,
        rule: str,
        training: TrainingSettings,
        learning: PropertySettings,
        *,
        title: str,
        pull: Pull = embedding_loss,
        devices: Devices,
        workdir: Path,
        progress: Callable[[int, str], Progress],
        about: Mapping[str, Any],
        cache: Path | str | None = None,
        draw: Draw = no_pictures,
        overwrite: bool = False,
        named: Mapping[str, Any] | None = None,
        continued: bool = False,
    ) -> dict[str, Any]:
        """Take the student through all its stages, or find it trained: content of ``result.json``.

        Args:
          split: of the store.
          rule: that it was made by.
          training: how to train; what is not given is the student's own.
          learning: what to learn, likewise.
          title: of the run, for the user.
          pull: the function that ``learning.pull`` names.
          devices: as of `Run`, and ``workdir``, ``about``, ``overwrite``, ``named`` and
            ``continued`` likewise.
          progress: (epochs, title) → what the user sees of a stage.
          cache: where starts and members are kept, as of `untagged.kept`.
          draw: as of `run.train`.

        Raises:
          UserError: as of the stages, `run` and `run.train`.
        """
        if continued and learning.taught_by:
            raise UserError("`continued`: members would be trained anew; leave `taught_by` out")
        lesson = self.begun(split, training.seed, pull, devices, cache, progress)
        found = lesson.taught_by(
            split, rule, training, learning, pull, devices, cache, progress, about
        )
        run, task = found.run(
            split,
            rule,
            training,
            learning,
            pull=pull,
            devices=devices,
            workdir=workdir,
            progress=progress(training.epochs, title),
            about=about,
            overwrite=overwrite,
        )
        run = dataclasses.replace(run, named=named or {}, continued=continued)
        task = dataclasses.replace(task, seen=self.seen(split))
        return train(run, task, draw)

    def seen(self, split: Split) -> Seen | None:
        """What the teacher, or what the student starts from, has seen of the test crystals, with a
        warning; None for nothing, as far as is known."""
        memories = {
            "the teacher": _memory_of(self.teacher),
            "what the student starts from": self.student.start and self.student.start.memory,
        }
        found = {
            whose: memory.seen(self.store, split.test)
            for whose, memory in memories.items()
            if memory is not None
        }
        found = {whose: seen for whose, seen in found.items() if seen.by_formula}
        if not found:
            return None
        whose = max(found, key=lambda whose: found[whose].by_formula)
        warn_once(found[whose].in_words(whose))
        return found[whose]

    def not_tested(self, split: Split) -> np.ndarray:
        """Rows of the store, with labels and without, but those that are to be tested on, and
        whatever else has their reduced formula."""
        rows = np.flatnonzero(~_came_without(self.store))
        if self.unlabelled is not None:
            rows = np.concatenate([rows, self.unlabelled])
        formulas = self.store.reduced_formula
        tested = set(formulas[split.test].tolist())
        return rows[[formula not in tested for formula in formulas[rows].tolist()]]

    def begun(
        self,
        split: Split,
        seed: int,
        pull: Pull,
        devices: Devices,
        cache: Path | str | None,
        progress: Callable[[int, str], Progress],
    ) -> "Lesson":
        """The same lesson, its student having followed the teacher on crystals without labels,
        where it is to: on all of the store but what is to be tested on. Arguments as of `learn`;
        the seed is of the student's weights and order."""
        if self.untagged is None or self.teacher is None or self.embeddings is None:
            return self
        rows = self.not_tested(split)
        epochs = self.untagged.epochs_of(len(rows))
        if not epochs:
            return self
        start = untagged_stage(
            self.student.name,
            self.student.network,
            self.student.model,
            self.store,
            rows,
            self.teacher.fingerprint,
            self.embeddings,
            _memory_of(self.teacher),
            pull=pull,
            epochs=epochs,
            seed=seed,
            start=self.student.start,
            devices=devices,
            cache=cache,
            progress=progress,
        )
        student = dataclasses.replace(self.student, start=start_of(start))
        return dataclasses.replace(self, student=student, untagged=None)

    def taught_by(
        self,
        split: Split,
        rule: str,
        training: TrainingSettings,
        learning: PropertySettings,
        pull: Pull,
        devices: Devices,
        cache: Path | str | None,
        progress: Callable[[int, str], Progress],
        about: Mapping[str, Any],
    ) -> "Lesson":
        """The same lesson, with what ``learning.taught_by`` members say of the property of all
        crystals that have no label here: students like this one, distilled as it would be without
        them. Arguments as of `learn`."""
        n = learning.taught_by
        if not n or self.teacher is None:
            return self
        if learning.unlabelled_per_batch == 0:
            raise UserError(
                "`unlabelled_per_batch` 0: nothing would be learned from what members say; leave "
                "it or `taught_by` out"
            )
        rows = np.setdiff1d(self.not_tested(split), np.concatenate([split.train, split.validation]))
        if not len(rows):
            raise UserError(
                "`taught_by`: there are no crystals without a label that members could tell of; "
                "give `unlabelled`"
            )
        members = []
        for k in range(n):
            run, task = self.run(
                split,
                rule,
                dataclasses.replace(training, seed=n * training.seed + k),
                dataclasses.replace(learning, taught_by=0, unlabelled_per_batch=0),
                pull=pull,
                devices=devices,
                workdir=Path(),
                progress=progress(training.epochs, f"member {k + 1} of {n}"),
                about=about,
            )
            members.append(kept(run, task, "members", cache))
        said = np.stack([member.predict_store(self.store, devices).values for member in members])
        found = what_members_say(said[:, rows], rows, [member.fingerprint for member in members])
        return dataclasses.replace(self, taught=found)

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
        training, learning = self.settings(training, learning, len(split.train), len(devices))
        mixes = learning.unlabelled_per_batch and self.taught is None
        student, network = self.student, self.student.network
        module = build_student(student.name, network, student.model, self.store.settings.cutoff)
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
            teacher_embeddings=self.embeddings if learning.weight else None,
            teacher=self.teacher.fingerprint if self.teacher and learning.weight else None,
            pull=pull,
            start=student.start,
            rule=rule,
            model=student.model,
            unlabelled=self._mixed_in(split) if mixes else None,
            taught=self.taught,
            teacher_name=shipped.label_of(self.teacher.path) if self.teacher else "",
        )
        return run, task

    def _mixed_in(self, split: Split) -> np.ndarray | None:
        """Rows of the store that came without labels, but those with the reduced formula of a
        crystal that is to be tested on; None where there is no teacher to pull on them.

        Raises:
          UserError: there are none.
        """
        if self.teacher is None:
            return None
        known = np.array([], int) if self.unlabelled is None else self.unlabelled
        rows = np.intersect1d(known, self.not_tested(split))
        if not len(rows):
            raise UserError(
                "`unlabelled_per_batch`: there are no crystals without labels; give `unlabelled`"
            )
        return rows


def prepare(
    student: Student,
    source: Source,
    property: str,
    build_graphs: BuildGraphs,
    devices: Devices,
    *,
    teacher: Teacher | None = None,
    distilled: bool = True,
    graphs: Mapping[str, Any] | None = None,
    unlabelled: Sequence[Source] = (),
    pull: str = "released",
    untagged: UntaggedSettings | None = None,
    needs_unlabelled: bool = False,
    quiet: bool = False,
) -> Lesson:
    """Graphs and, with a teacher, its embeddings.

    Args:
      student: what is to learn.
      source: crystals with labels.
      property: what to predict.
      build_graphs: crystals → graphs.
      devices: where the teacher runs.
      teacher: decides how crystals become graphs, unless the student does, or the teacher is
        CHGNet or a file of embeddings.
      distilled: whether to learn from the teacher; a twin that does not has the same graphs.
      graphs: fields of `FeaturiserSettings` that the user chose.
      unlabelled: crystals without labels, to follow the teacher on, from the student's start that
        comes with the package if there is one. Those that are among the labelled too, by id and
        formula, are left out. Where none are given, that start is enough, and without one the
        student follows on the bundled crystals.
      pull: name of the teacher's pull.
      untagged: how to follow the teacher before any label; None for not at all.
      needs_unlabelled: whether unlabelled crystals are needed after the student's start too: for
        members to tell of, or in the steps. The bundled ones where none are given.
      quiet: show no progress.

    Raises:
      UserError: no crystal has the property; the user chose other graphs than the teacher's, where
        they should be the same; or no unlabelled crystal is left.
    """
    model = teacher if isinstance(teacher, TrainedModel) else None
    knows_others = teacher is not None and not isinstance(teacher, EmbeddingsFile)
    featuriser = student_graphs(student.network, model, graphs or {})
    others: list[Source] = []
    stage = untagged.filled(pull) if untagged and distilled and teacher is not None else None
    if stage and not unlabelled and stage.untagged_epochs is None and student.has_learned:
        stage = None
    if stage and knows_others and stage.untagged_epochs != 0:
        found = shipped_start(model, student, pull, featuriser) if model else None
        if found is not None:
            student = dataclasses.replace(student, start=start_of(found))
        if found is not None and stage.untagged_epochs is None and not unlabelled:
            stage = None
        elif not unlabelled:
            others = [read("bundled")]
    if needs_unlabelled and knows_others and not unlabelled:
        others = [read("bundled")]
    unlabelled = unlabelled or others
    if unlabelled and distilled and teacher is not None:
        source = Combined([source, *map(without_labels, unlabelled)])
    store = build_graphs(source, featuriser)
    labelled = np.flatnonzero(np.isfinite(store.labels(property)))
    if not len(labelled):
        raise UserError(f"`property` {property}: no crystal of {store.source_name} has a value")
    n_own = int(np.sum(~_came_without(store)))
    if len(labelled) < n_own:
        warn_once(
            f"{n_own - len(labelled):,} of {n_own:,} crystals have no {property}: training, "
            f"validation and test are on the other {len(labelled):,}"
        )
    if teacher is None or not distilled:
        return Lesson(student, property, store, labelled)
    embeddings = embeddings_of(teacher, source, store, build_graphs, devices, quiet=quiet)
    more = unlabelled_rows(store) if unlabelled else None
    if more is not None and not len(more):
        if not others:
            raise UserError(
                "`unlabelled`: none of its crystals can be used, or all are among those with "
                "labels (by id and formula); give others"
            )
        more = None
    return Lesson(student, property, store, labelled, teacher, embeddings, more, stage)


def shipped_start(
    teacher: TrainedModel, student: Student, pull: str, featuriser: FeaturiserSettings
) -> TrainedModel | None:
    """What comes with the package of a student that has followed this teacher, if it does."""
    chosen = student.start is not None and not student.start_is_default
    if chosen or student.model or pull != "standardised":
        return None
    for folder in shipped.folders():
        made_with = read_made_with(folder)
        if (
            made_with.get("network") == student.name
            and "property" not in made_with["settings"]
            and made_with.get("teacher") == teacher.fingerprint
            and FeaturiserSettings(**made_with["featuriser"]) == featuriser
        ):
            return TrainedModel.load(folder, "start", student.network)
    return None


def load_teacher(given: Path | str, parameter: str = "teacher") -> Teacher:
    """What to distil from: a network by name or workdir, a file of embeddings, ``.npz``, or
    ``chgnet``.

    Raises:
      UserError: as of `TrainedModel.load`, `EmbeddingsFile.load` and `CHGNetTeacher.load`.
    """
    if Path(given).suffix == ".npz":
        return EmbeddingsFile.load(given)
    if str(given) == CHGNET and not shipped.found(given).exists():
        _log.warning(
            "the teacher chgnet was trained on energies, forces, stresses and magnetic moments of "
            "the Materials Project: what it teaches knows those labels, and a test on crystals "
            "that it has seen is none"
        )
        return CHGNetTeacher.load()
    teacher = TrainedModel.load(given, parameter)
    warn_of_labels(teacher)
    return teacher


def warn_of_labels(teacher: TrainedModel) -> None:
    """Warn of a network that has seen labels, and so may know those that are tested on."""
    if teacher.property is not None:
        _log.warning(
            "the teacher %s was trained on %s: what it teaches knows those labels, and a test on "
            "crystals that it has seen is none",
            *(shipped.label_of(teacher.path), teacher.property),
        )


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
    if not names:
        n = len(source)
        raise UserError(
            f"`data` {data} has {n} structure{'s' if n != 1 else ''} and no labels; those of CIF "
            "files stand in an id_prop.csv beside them, in rows of ID,VALUE; without labels there "
            "are pretrain, predict and embed"
        )
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
    teacher: Teacher,
    source: Source,
    store: GraphStore,
    build_graphs: BuildGraphs,
    devices: Devices,
    *,
    quiet: bool = False,
) -> np.ndarray:
    """The teacher's embeddings of the atoms of a student's store, ``[all atoms, d]``; NaN in
    crystals that CHGNet cannot take.

    Where the student's graphs are of another kind, the teacher sees the same crystals as graphs
    of its own.

    Raises:
      UserError: the teacher's graphs cannot be made of a crystal that the student's can, or a file
        of embeddings lacks it.
    """
    if isinstance(teacher, EmbeddingsFile):
        return teacher.of(_own_ids(store), store.n_nodes)
    if isinstance(teacher, CHGNetTeacher):
        return teacher.embeddings(store, quiet=quiet)
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


def _memory_of(teacher: Teacher | None) -> Memory | None:
    """What a teacher was trained on without labels; None where that is not known."""
    return teacher.memory if isinstance(teacher, TrainedModel) else None


def unlabelled_rows(store: GraphStore) -> np.ndarray:
    """Rows of a store that came without labels, and are not among the others by id and formula."""
    came_without = _came_without(store)
    names = list(zip(_own_ids(store), store.reduced_formula.tolist()))
    known = {names[row] for row in np.flatnonzero(~came_without).tolist()}
    rows = [row for row in np.flatnonzero(came_without).tolist() if names[row] not in known]
    return np.array(rows, dtype=np.int64)


def _own_ids(store: GraphStore) -> list[str]:
    """Ids as they were in each source: a combined one puts its member's name before an id that is
    there already."""
    return [id.rpartition(f"({UNLABELLED})/")[2] for id in store.ids.tolist()]


def _came_without(store: GraphStore) -> np.ndarray:
    if UNLABELLED not in store.tag_names:
        return np.zeros(len(store), dtype=bool)
    return store.tags(UNLABELLED) != ""
