"""A network that has been trained: loading it, and running it over crystals."""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import flax.linen as nn
import jax
import jraph
import numpy as np

from crysgnn_jax.batches.loader import Batcher, Loader, lay_out
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.members import require_trust
from crysgnn_jax.models.network import Network, Prediction
from crysgnn_jax.models.registry import build, find_network, smallest_batch
from crysgnn_jax.objectives.property import Standardiser
from crysgnn_jax.pretraining.registry import PRETRAINED
from crysgnn_jax.training import explanation, shipped
from crysgnn_jax.training.checkpoints import require_shapes, restore_best
from crysgnn_jax.training.devices import Compiled, Devices
from crysgnn_jax.training.evaluation import Evaluator, compiled, predicted, what_it_says
from crysgnn_jax.training.kept_embeddings import kept_embeddings, new_embeddings
from crysgnn_jax.training.memory import Memory
from crysgnn_jax.training.model_file import export, read_model
from crysgnn_jax.training.predictions import Predictions, assess, require_asked
from crysgnn_jax.training.property_task import Start, Variables, bare
from crysgnn_jax.training.reference import Reference
from crysgnn_jax.training.run import name_of_leaf
from crysgnn_jax.training.settings import LEVEL
from crysgnn_jax.training.workdir import (
    CHECKPOINTS,
    CONFIG,
    MEMORY,
    REFERENCE,
    RESULT,
    read_json,
    read_made_with,
)

BATCH_SIZE = 128
"""Crystals of an average batch when a network runs in evaluation mode."""


class Embeddings(NamedTuple):
    """What a network makes of some crystals.

    Attributes:
      ids: ``[n]``, of the crystals, in the order of their source.
      n_atoms: ``[n]``, of each.
      atoms: ``[all atoms, d]`` float32, crystal after crystal.
      crystals: ``[n, d]`` float32, the mean over the atoms of each.
      skipped: ``(id, reason)`` of each crystal that could not be used.
    """

    ids: np.ndarray
    n_atoms: np.ndarray
    atoms: np.ndarray
    crystals: np.ndarray
    skipped: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A frozen network, with all that is needed to use it.

    Example:
      ``TrainedModel.load("runs/mine").predict("my_cifs/").values``

    Attributes:
      name: of the network: a key of `PRETRAINED`, or as of `registry.find_network`.
      module: the network.
      network: what it needs of batches.
      variables: its best weights, as NumPy arrays.
      featuriser: how its crystals became graphs.
      fingerprint: hex digest of the weights and settings.
      path: where it came from.
      property: what it predicts; None for one that was trained without labels.
      unit: of the prediction.
      standardiser: from its outputs to the prediction.
      result: what ``result.json`` says.
    """

    name: str
    module: nn.Module
    network: Network
    variables: Variables
    featuriser: FeaturiserSettings
    fingerprint: str
    path: Path
    property: str | None = None
    unit: str = ""
    standardiser: Standardiser = Standardiser(0.0, 1.0)
    result: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def load(
        cls, workdir: Path | str, parameter: str = "model", network: Network | None = None
    ) -> "TrainedModel":
        """The best weights of a finished run, or of converted weights.

        Args:
          workdir: of the run; or a file that `export` wrote.
          parameter: by which the user named it, for messages.
          network: what was trained; found by its name where not given.

        Raises:
          UserError: the directory holds no finished run or no checkpoint, or its weights do not
            fit the network that its ``config.json`` describes; or that is a module which this
            process has not imported: a directory from elsewhere does not run code.
        """
        workdir = shipped.found(workdir)
        file = read_model(workdir, parameter) if workdir.is_file() else None
        if file is None and not (workdir / CONFIG).exists():
            command = {
                "teacher": f"pretrain --workdir {workdir}",
                "autoencoder": f"pretrain --network crysae --workdir {workdir}",
                "start": f"pretrain --network STUDENT --workdir {workdir}",
            }
            hint = "make one with crysgnn " + command.get(parameter, "distill, or convert")
            twins = [
                name for name in ("distilled", "vanilla") if (workdir / name / CONFIG).exists()
            ]
            if twins:
                raise UserError(
                    f"`{parameter}` {workdir} holds twins; name "
                    + " or ".join(str(workdir / name) for name in twins)
                )
            if parameter == "model":
                known = [folder.name for folder in shipped.folders()] + _runs_in(Path("runs"))
                hint = f"there are {', '.join(known[:8])}; or {hint}"
            raise UserError(f"`{parameter}` {workdir}: no trained {parameter} there; {hint}")
        made_with = read_made_with(workdir) if file is None else file.made_with
        if "model" not in made_with:
            raise UserError(
                f"`{parameter}` {workdir} does not hold the run of a network; name its directory"
            )
        if file is None and not (workdir / RESULT).exists():
            raise UserError(
                f"`{parameter}` {workdir} has not been trained to its end; give its command again "
                "to finish it"
            )
        result = read_json(workdir / RESULT) if file is None else file.result
        try:
            name = made_with["network"]
            featuriser = FeaturiserSettings(**made_with["featuriser"])
            labelled = result["task"] == "student"
            about = {}
            if labelled:
                about = {
                    "property": result["property"],
                    "unit": result["unit"],
                    "standardiser": Standardiser(
                        float(result["target_mean"]), float(result["target_std"])
                    ),
                }
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"`{parameter}` {workdir}: its {CONFIG} or {RESULT} is damaged ({error!r}); train "
                "it again, with `overwrite`"
            ) from None
        if network is None:
            require_trust(name, parameter, workdir)
            network = PRETRAINED[name] if name in PRETRAINED else find_network(name)
        module = build(network.module, made_with["model"], cutoff=featuriser.cutoff)
        variables: Variables
        if file is not None:
            variables = file.variables
        elif (workdir / shipped.WEIGHTS).exists():
            variables = shipped.read_weights(workdir / shipped.WEIGHTS)
        else:
            variables = restore_best(workdir / CHECKPOINTS)
        if name not in PRETRAINED and (not labelled or made_with.get("teacher")):
            variables = bare(variables)  # of a `PretrainedStudent`, or a `ProjectedStudent`
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((name, made_with["model"], made_with["featuriser"])).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        if name in PRETRAINED:
            # Heads are for training alone, and there may be others by now.
            variables = {kind: {"encoder": tree["encoder"]} for kind, tree in variables.items()}
        require_shapes(variables, _shapes(module, network), workdir)
        return cls(
            name,
            module,
            network,
            variables,
            featuriser,
            digest.hexdigest(),
            workdir,
            **about,
            result=result,
        )

    def __repr__(self) -> str:
        unit = f" ({self.unit})" if self.unit else ""
        what = "no property" if self.property is None else self.property + unit
        return f"TrainedModel({shipped.label_of(self.path)!r}: {self.name}, {what})"

    def export(self, path: Path | str) -> None:
        """Write the network to one file, which `load` and the flags ``--model`` and ``--teacher``
        take.

        Args:
          path: of the file, such as ``model.safetensors``.

        Raises:
          UserError: the run that it came from is gone, or the file cannot be written.
        """
        export(self.path, Path(path))

    def embed_batch(self, variables: Variables, graph: jraph.GraphsTuple) -> jax.Array:
        """Atom embeddings of a batch in evaluation mode, ``[n_node, d]``."""
        if self.name in PRETRAINED:
            vectors: Any = self.module.apply(variables, graph, method="embed")
            return vectors
        return self._outputs(variables, graph).embeddings

    def embedding_width(self) -> int:
        """Length of an atom embedding."""
        graph = smallest_batch(self.network.needs)
        return jax.eval_shape(self.embed_batch, self.variables, graph).shape[-1]

    def _outputs(self, variables: Variables, graph: jraph.GraphsTuple) -> Prediction:
        outputs: Any = self.module.apply(variables, graph, False)
        return outputs

    def embeddings(
        self, store: GraphStore, devices: Devices, batch_size: int = BATCH_SIZE
    ) -> np.ndarray:
        """Embeddings of every atom of a store, ``[all atoms, d]`` float32, memory-mapped.

        Computed once, in evaluation mode, and kept beside the store under the network's
        fingerprint.

        Raises:
          UserError: the store's graphs were built with other settings than the network's.
        """
        store.settings.require(self.featuriser, f"the network in {shipped.label_of(self.path)}")
        return kept_embeddings(
            store,
            self.fingerprint,
            lambda file: self._compute(file, store, devices.alone(), batch_size),
        )

    def _compute(self, file: Path, store: GraphStore, devices: Devices, batch_size: int) -> None:
        rows = np.arange(len(store))
        batcher = self._batcher(store, rows, batch_size)
        program = self._program("embeddings", self.embed_batch, devices)
        evaluator = Evaluator(devices, program, Loader(batcher, devices))
        out: Any = None
        for step_rows, vectors in evaluator.batches(devices.replicate(self.variables), rows):
            if out is None:
                out = new_embeddings(file, store, vectors.shape[-1])
            for chosen, values in zip(step_rows, vectors):
                out[batcher.atoms(chosen)] = values[batcher.graphs.nodes_of_atoms(chosen)]
        out.flush()

    def _program(self, name: str, function: Callable, devices: Devices) -> Compiled:
        """A function of variables and batches, compiled for some devices: once for each shape of
        batches, however many stores they are of."""
        if (name, devices.key) not in self._programs:
            self._programs[name, devices.key] = compiled(devices, function, any_shape=True)
        return self._programs[name, devices.key]

    @functools.cached_property
    def _programs(self) -> dict[tuple[str, Any], Compiled]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """What is compiled stays in its process, where the network is pickled or copied."""
        return {name: value for name, value in vars(self).items() if name != "_programs"}

    def require_property(self) -> None:
        """
        Raises:
          UserError: the network predicts no property.
        """
        if self.property is None:
            raise UserError(
                f"`model` {shipped.label_of(self.path)} holds {self.name}, which was trained "
                "without labels and predicts no property; take a student, or fine-tune it"
            )

    @functools.cached_property
    def reference(self) -> Reference | None:
        """What it keeps of the crystals that it was trained and chosen on; None for nothing, as
        with weights that were converted.

        Raises:
          UserError: the file is damaged.
        """
        found = self._kept("reference", REFERENCE)
        return None if found is None else Reference.load(*found)

    @functools.cached_property
    def memory(self) -> Memory | None:
        """What it remembers of the crystals that it was trained on without labels; None for
        nothing.

        Raises:
          UserError: the file is damaged.
        """
        found = self._kept("memory", MEMORY)
        return None if found is None else Memory.load(*found)

    def _kept(self, part: str, name: str) -> tuple[Path, IO[bytes] | None] | None:
        """A file beside the weights, and its content where all is one file; None where there is
        none.

        Args:
          part: of a model of one file, as of `model_file.read_model`.
          name: of the file in a folder.
        """
        if self.path.is_file():
            content = getattr(read_model(self.path), part)
            return None if content is None else (self.path, io.BytesIO(content))
        path = self.path / name
        return (path, None) if path.exists() else None

    def outputs(
        self,
        store: GraphStore,
        devices: Devices,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What it says of every crystal of a store, and the crystals' embeddings.

        Args:
          store: the crystals.
          devices: where to run.
          batch_size: crystals of an average batch, a device.
          progress: is told how many crystals are done, and of how many.

        Returns:
          ``[n]`` float64, in the property's own unit; and ``[n, d]`` float32, the mean over the
          atoms of each.

        Raises:
          UserError: the network predicts no property, or the store's graphs were built with other
            settings than the network's.
        """
        self.require_property()
        store.settings.require(self.featuriser, f"the network in {shipped.label_of(self.path)}")
        batcher = self._batcher(store, np.arange(len(store)), batch_size)
        program = self._program("predictions", what_it_says(self.module), devices)
        raw, embeddings = predicted(
            program, self.variables, devices, Loader(batcher, devices), progress=progress
        )
        return self.standardiser.invert(raw), embeddings

    def predict_store(
        self,
        store: GraphStore,
        devices: Devices,
        batch_size: int = BATCH_SIZE,
        *,
        level: float = LEVEL,
        n_nearest: int = 1,
    ) -> Predictions:
        """The property of every crystal of a store; arguments as of `outputs` and `predict`.

        Raises:
          UserError: the network predicts no property, or the store's graphs were built with other
            settings than the network's.
        """
        require_asked(level, n_nearest)
        said, embeddings = self.outputs(store, devices, batch_size)
        return assess(
            store,
            np.arange(len(store)),
            said[None],
            [self.reference],
            embeddings,
            property=self.property or "",
            unit=self.unit,
            skipped=store.skipped,
            level=level,
            n_nearest=n_nearest,
        )

    def embed_store(
        self, store: GraphStore, devices: Devices, batch_size: int = BATCH_SIZE
    ) -> Embeddings:
        """Embeddings of every atom and crystal of a store.

        Raises:
          UserError: the store's graphs were built with other settings than the network's.
        """
        atoms = self.embeddings(store, devices, batch_size)
        crystals = per_crystal(atoms, store.n_nodes)
        return Embeddings(store.ids, store.n_nodes, atoms, crystals, store.skipped)

    def predict(
        self,
        data: Any,
        *,
        devices: int | None = None,
        batch_size: int = BATCH_SIZE,
        cache: Path | str | None = None,
        workers: int | None = 1,
        level: float = LEVEL,
        n_nearest: int = 1,
    ) -> Predictions:
        """The property of crystals, intervals that hold it, and the training crystals that they are
        most like, as far as the network keeps what that takes.

        Args:
          data: as of `readers.read`: a name or path, structures of ASE or pymatgen, a source.
          devices: how many local devices to use; all where not given.
          batch_size: crystals of an average batch, a device.
          cache: where graphs are kept; `cache.default_cache_dir` where not given.
          workers: processes that build graphs, see `build.build_store`.
          level: share of crystals like those of training that an interval is to hold, above 0 and
            below 1.
          n_nearest: training crystals to name of each, 0 for none.

        Raises:
          UserError: the network predicts no property; ``level`` or ``n_nearest`` is out of bounds;
            or as of `readers.read` and `build_store`.

        Example:
          ``model.predict([ase.build.bulk("Cu")]).values``
        """
        self.require_property()
        require_asked(level, n_nearest)
        _ = self.reference  # if it is damaged, that is told before graphs are made
        store = build_store(read(data), self.featuriser, cache_dir=cache, workers=workers)
        return self.predict_store(
            store, Devices(devices), batch_size, level=level, n_nearest=n_nearest
        )

    def embed(
        self,
        data: Any,
        *,
        devices: int | None = None,
        batch_size: int = BATCH_SIZE,
        cache: Path | str | None = None,
        workers: int | None = 1,
    ) -> Embeddings:
        """Atom and crystal embeddings of crystals; arguments as of `predict`.

        Example:
          ``teacher.embed("my_cifs/").crystals``
        """
        store = build_store(read(data), self.featuriser, cache_dir=cache, workers=workers)
        return self.embed_store(store, Devices(devices), batch_size)

    def explain(
        self,
        structure: Any,
        *,
        devices: int | None = None,
        batch_size: int = BATCH_SIZE,
        cache: Path | str | None = None,
    ) -> explanation.Explanation:
        """What each atom of one crystal adds to the prediction, see `explanation.explain`.

        Example:
          ``model.explain("NaCl.cif").contributions``
        """
        return explanation.explain(
            self, structure, devices=devices, batch_size=batch_size, cache=cache
        )

    def _batcher(self, store: GraphStore, rows: np.ndarray, batch_size: int) -> Batcher:
        return lay_out(store, rows, self.network.needs, batch_size)[0]


def _runs_in(folder: Path) -> list[str]:
    """Finished runs that predict a property, under a folder."""
    found = sorted(path.parent for path in folder.glob("**/predictions.csv"))
    return [str(path) for path in found if (path / RESULT).exists()]


def take_over(source: TrainedModel, parts: str = "") -> Callable:
    """Start from the encoder of a trained network.

    Args:
      source: a network with a `CrystalEncoder`, such as a teacher.
      parts: beginning of the names of the encoder's layers to take; all of them by default.

    Returns:
      Initial variables of a network with such an encoder → the same with these layers replaced.

    Raises:
      UserError: the source has no such encoder; at call time, its layers have other shapes.
    """
    if source.name not in (*PRETRAINED, "cgcnn"):
        raise UserError(
            f"{source.path} holds {source.name}, whose encoder cannot be taken over by itself; "
            f"take {', '.join(PRETRAINED)} or cgcnn"
        )
    given = {name: tree["encoder"] for name, tree in source.variables.items()}

    def start(variables: Variables) -> Variables:
        out = {}
        for collection, tree in variables.items():
            encoder = dict(tree["encoder"])
            chosen = {
                name for name in encoder.keys() | given[collection].keys() if name.startswith(parts)
            }
            for name in sorted(chosen):
                _require_alike(encoder.get(name), given[collection].get(name), name, source)
                encoder[name] = given[collection][name]
            out[collection] = {**tree, "encoder": encoder}
        return out

    return start


def start_of(model: TrainedModel) -> Start:
    """Start a student from one like it that was trained before.

    Without labels: what no gradient had reached, such as its property head, stays as it is drawn
    for the run. On a property: all of it is taken over, with the scale of that property, so that it
    begins by predicting what it predicted before.

    Raises:
      UserError: at the start, where its layers have other shapes.
    """
    names = model.result.get("untouched", ()) if model.property is None else ()
    untouched = {f"params/{name.removeprefix('student/')}" for name in names}

    def begin(variables: Variables) -> Variables:
        given = dict(jax.tree_util.tree_leaves_with_path(dict(model.variables)))

        def taken(path: Any, leaf: Any) -> Any:
            name = name_of_leaf(path)
            if name in untouched:
                return leaf
            _require_alike(leaf, given.get(path), name, model)
            return given[path]

        return jax.tree_util.tree_map_with_path(taken, dict(variables))

    standardiser = model.standardiser if model.property is not None else None
    return Start(begin, model.fingerprint, about_start(model), standardiser, model.memory)


def about_start(model: TrainedModel) -> dict[str, Any]:
    """What ``result.json`` is to say of a network that another starts from."""
    told = ("epochs", "n_train", "validation_loss", "seconds", "devices")
    about = {name: model.result[name] for name in told if name in model.result}
    return {"from": model.path.name, **about}


def _require_alike(ours: Any, theirs: Any, name: str, source: TrainedModel) -> None:
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    if shapes(ours) != shapes(theirs):
        raise UserError(
            f"{source.path}: its {name} is not shaped like this network's; build both with the "
            "same width, cutoff and number of convolutions"
        )


def per_crystal(values: np.ndarray, n_nodes: np.ndarray) -> np.ndarray:
    """Mean over the atoms of each crystal: ``[all atoms, d]``, ``[n]`` → ``[n, d]`` float32."""
    starts = np.cumsum(n_nodes) - n_nodes
    return (np.add.reduceat(values, starts, axis=0) / n_nodes[:, None]).astype(np.float32)


def _shapes(module: nn.Module, network: Network) -> Mapping[str, Any]:
    """Shapes of a network's weights, without any computation."""
    init = lambda key: module.init(key, smallest_batch(network.needs), True)
    return jax.eval_shape(init, jax.random.key(0))
