"""A network that has been trained: loading it, and running it over a whole store."""

import dataclasses
import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jraph
import numpy as np

from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.models.protocol import Student
from crysgnn_jax.models.registry import TEACHERS, build, find_student, smallest_batch
from crysgnn_jax.objectives.property import Standardiser
from crysgnn_jax.training.checkpoints import require_shapes, restore_best
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.inference import Evaluator, Layout, layout
from crysgnn_jax.training.students import Variables, bare
from crysgnn_jax.training.workdir import CHECKPOINTS, CONFIG, RESULT, read_json


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A frozen network, with all that is needed to use it.

    Attributes:
      network: its name, a key of `registry.TEACHERS` or as of `registry.find_student`.
      module: the network.
      student: what it needs of batches.
      variables: its best weights, as NumPy arrays.
      featuriser: how its crystals became graphs.
      fingerprint: hex digest of the weights and settings.
      path: where it came from.
      property: what it predicts; None for one that was trained without labels.
      unit: of the prediction.
      standardiser: from its outputs to the prediction.
    """

    network: str
    module: nn.Module
    student: Student
    variables: Variables
    featuriser: FeaturiserSettings
    fingerprint: str
    path: Path
    property: str | None = None
    unit: str = ""
    standardiser: Standardiser = Standardiser(0.0, 1.0)

    @classmethod
    def load(cls, workdir: Path | str, flag: str = "--teacher") -> "TrainedModel":
        """The best weights of a finished run, or of converted weights.

        Args:
          workdir: of the run.
          flag: by which the user named it, for messages.

        Raises:
          UserError: the directory holds no finished run or no checkpoint, or its weights do not
            fit the network that its ``config.json`` describes.
        """
        workdir = Path(workdir)
        if not (workdir / CONFIG).exists():
            command = {
                "--teacher": f"pretrain --workdir {workdir}",
                "--autoencoder": f"pretrain --teacher crysae --workdir {workdir}",
            }
            hint = "make one with python -m experiments." + command.get(flag, "distill, or convert")
            raise UserError(f"{flag} {workdir}: no trained {flag.removeprefix('--')} there; {hint}")
        made_with = read_json(workdir / CONFIG).get("made_with", {})
        if "model" not in made_with:
            raise UserError(
                f"{flag} {workdir} does not hold the run of a network; name its directory"
            )
        if not (workdir / RESULT).exists():
            raise UserError(
                f"{flag} {workdir} has not been trained to its end; give its command again "
                "to finish it"
            )
        result = read_json(workdir / RESULT)
        network = made_with.get("network", "crysgnn")
        featuriser = FeaturiserSettings(**made_with["featuriser"])
        if network in TEACHERS:
            student = Student(TEACHERS[network], reduced=True)
        else:
            student = find_student(network)
        module = build(student.module, made_with["model"], cutoff=featuriser.cutoff)
        variables = restore_best(workdir / CHECKPOINTS)
        if network not in TEACHERS and made_with.get("teacher"):
            variables = bare(variables)  # it was trained inside a `ProjectedStudent`
        require_shapes(variables, _shapes(module, network), workdir)
        about = {}
        if network not in TEACHERS:
            about = {
                "property": result["property"],
                "unit": result["unit"],
                "standardiser": Standardiser(result["target_mean"], result["target_std"]),
            }
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((network, made_with["model"], made_with["featuriser"])).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return cls(
            network, module, student, variables, featuriser, digest.hexdigest(), workdir, **about
        )

    def embed(self, variables: Variables, graph: jraph.GraphsTuple) -> jax.Array:
        """Atom embeddings of a batch in evaluation mode, ``[n_node, d]``."""
        return self._embed(self.module, variables, graph)

    def _embed(self, module: nn.Module, variables: Variables, graph: jraph.GraphsTuple):
        if self.network in TEACHERS:
            return module.apply(variables, graph, method="embed")
        return module.apply(variables, graph, False).embeddings

    def embeddings(self, store: GraphStore, devices: Devices, batch_size: int) -> np.ndarray:
        """Embeddings of every atom of a store, ``[all atoms, d]`` float32, memory-mapped.

        Computed once, in evaluation mode, and kept beside the store under the network's
        fingerprint.

        Raises:
          UserError: the store's graphs were built with other settings than the network's.
        """
        store.settings.require(self.featuriser, f"the network in {self.path}")
        path = store.path / "embeddings" / f"{self.fingerprint}.npy"
        try:
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                # A run that finds another one computing the same waits for it.
                with open(path.with_suffix(".lock"), "w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    if not path.exists():
                        self._compute(path, store, devices, batch_size)
            return np.load(path, mmap_mode="r")
        except OSError as error:
            raise UserError(
                f"{path.parent}: the teacher's embeddings cannot be kept there "
                f"({error.strerror}); name another --cache"
            ) from None

    def _compute(self, path: Path, store: GraphStore, devices: Devices, batch_size: int) -> None:
        rows = np.arange(len(store))
        plan, batcher = self._layout(store, rows, batch_size)
        embed = lambda variables, graph: self._embed(plan.module, variables, graph)
        evaluator = Evaluator(devices, embed, batcher, plan.sizes)
        draft = path.with_suffix(".draft")
        out = None
        for step_rows, vectors in evaluator.batches(devices.replicate(self.variables), rows):
            if out is None:
                shape = (int(store.node_offsets[-1]), vectors.shape[-1])
                out = np.lib.format.open_memmap(draft, "w+", np.float32, shape)
            for chosen, values in zip(step_rows, np.asarray(vectors)):
                out[batcher.atoms(chosen)] = values[plan.graphs.nodes_of_atoms(chosen)]
        out.flush()
        os.replace(draft, path)

    def require_property(self) -> None:
        """
        Raises:
          UserError: the network predicts no property.
        """
        if self.property is None:
            raise UserError(
                f"--model {self.path} holds {self.network}, which was trained without labels and "
                "predicts no property; take a student, or fine-tune it"
            )

    def predict(self, store: GraphStore, devices: Devices, batch_size: int) -> np.ndarray:
        """The property of every crystal of a store, ``[len(store)]``, in its own unit.

        Raises:
          UserError: the network predicts no property, or the store's graphs were built with other
            settings than the network's.
        """
        self.require_property()
        store.settings.require(self.featuriser, f"the network in {self.path}")
        rows = np.arange(len(store))
        plan, batcher = self._layout(store, rows, batch_size)
        outputs = lambda variables, graph: plan.module.apply(variables, graph, False).prediction
        evaluator = Evaluator(devices, outputs, batcher, plan.sizes)
        return self.standardiser.invert(
            evaluator.per_crystal(devices.replicate(self.variables), rows)
        )

    def _layout(
        self, store: GraphStore, rows: np.ndarray, batch_size: int
    ) -> tuple[Layout, Batcher]:
        plan = layout(self.student, self.module, store, rows, batch_size)
        columns = self.student.edge_columns
        return plan, Batcher(store, plan.budget, graphs=plan.graphs, edge_columns=columns)


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
    if source.network not in (*TEACHERS, "cgcnn"):
        raise UserError(
            f"{source.path} holds {source.network}, whose encoder cannot be taken over by itself; "
            f"take {', '.join(TEACHERS)} or cgcnn"
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


def _shapes(module: nn.Module, network: str) -> Mapping[str, Any]:
    """Shapes of a network's weights, without any computation."""
    call = {"n_block": 1} if network in TEACHERS else {}
    init = lambda key: module.init(key, smallest_batch(), True, **call)
    return jax.eval_shape(init, jax.random.key(0))
