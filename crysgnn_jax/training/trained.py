"""A teacher that has been trained: loading it, and its embeddings of a whole store."""

import dataclasses
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

import jax
import jraph
import numpy as np

from crysgnn_jax.data.batches import Batcher, Sizes, choose_budget
from crysgnn_jax.data.settings import FeaturiserSettings
from crysgnn_jax.data.store import GraphStore
from crysgnn_jax.errors import UserError
from crysgnn_jax.models.teacher import Teacher
from crysgnn_jax.training.checkpoints import require_shapes, restore_best
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.inference import Evaluator
from crysgnn_jax.training.workdir import CHECKPOINTS, CONFIG, RESULT, read_json


@dataclasses.dataclass(frozen=True)
class TrainedTeacher:
    """A frozen teacher.

    Attributes:
      module: the network.
      variables: its best weights, as NumPy arrays.
      featuriser: how its crystals became graphs.
      fingerprint: hex digest of the weights and settings.
      path: where it came from.
    """

    module: Teacher
    variables: Any
    featuriser: FeaturiserSettings
    fingerprint: str
    path: Path

    @classmethod
    def load(cls, workdir: Path | str) -> "TrainedTeacher":
        """The best weights of a pre-training run.

        Raises:
          UserError: the directory holds no pre-training run or no checkpoint, or its weights do
            not fit the network that its ``config.json`` describes.
        """
        workdir = Path(workdir)
        if not (workdir / CONFIG).exists():
            raise UserError(
                f"--teacher {workdir}: no trained teacher there; make one with "
                f"python -m experiments.pretrain --workdir {workdir}"
            )
        made_with = read_json(workdir / CONFIG).get("made_with", {})
        if made_with.get("command") != "pretrain":
            raise UserError(f"--teacher {workdir} does not hold a pre-training run")
        if not (workdir / RESULT).exists():
            raise UserError(
                f"--teacher {workdir} has not been trained to its end; give its command again "
                "to finish it"
            )
        module = Teacher(**made_with["model"])
        variables = restore_best(workdir / CHECKPOINTS)
        require_shapes(variables, _shapes(module), workdir)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((made_with["model"], made_with["featuriser"])).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return cls(
            module,
            variables,
            FeaturiserSettings(**made_with["featuriser"]),
            digest.hexdigest(),
            workdir,
        )

    def embeddings(self, store: GraphStore, devices: Devices, batch_size: int) -> np.ndarray:
        """Embeddings of every atom of a store, ``[all atoms, width]`` float32, memory-mapped.

        Computed once, in evaluation mode, and kept beside the store under the teacher's
        fingerprint.

        Raises:
          UserError: the store's graphs were built with other settings than the teacher's.
        """
        store.settings.require(self.featuriser, f"the teacher in {self.path}")
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
        sizes = Sizes(store.n_nodes, store.n_edges)
        batcher = Batcher(store, choose_budget(sizes, batch_size))
        embed = lambda variables, graph: self.module.apply(variables, graph, method=Teacher.embed)
        evaluator = Evaluator(devices, embed, batcher, sizes.table)
        draft = path.with_suffix(".draft")
        shape = (int(store.node_offsets[-1]), self.module.width)
        out = np.lib.format.open_memmap(draft, "w+", np.float32, shape)
        variables = devices.replicate(self.variables)
        for step_rows, _, vectors in evaluator.batches(variables, np.arange(len(store))):
            for rows, values in zip(step_rows, np.asarray(vectors)):
                atoms = batcher.atoms(rows)
                out[atoms] = values[: len(atoms)]
        out.flush()
        os.replace(draft, path)


def _shapes(module: Teacher) -> Any:
    """Shapes of the teacher's weights, from a batch of one atom and no computation."""
    one, zero = np.ones(2, np.int32), np.zeros(1, np.int32)
    graph = jraph.GraphsTuple(
        nodes={"species": one},
        edges={"distances": np.zeros(1, np.float32)},
        receivers=zero + 1,
        senders=zero + 1,
        globals={},
        n_node=one,
        n_edge=np.array([0, 1], np.int32),
    )
    init = lambda key, graph: module.init(key, graph, True, n_block=1)
    return jax.eval_shape(init, jax.random.key(0), graph)
