"""CHGNet, a foundation model of energies and forces, as a teacher.

Deng et al., Nature Machine Intelligence 5, 1031 (2023); its weights come with the package `chgnet`.
It was trained on energies, forces, stresses and magnetic moments of relaxations of the Materials
Project: unlike CrysGNN, it knows labels, of the crystals that a student is tested on too.
"""

import contextlib
import dataclasses
import hashlib
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.bars import Bar
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import UserError
from crysgnn_jax.extras import imported
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.training.kept_embeddings import kept_embeddings, new_embeddings

_log = logging.getLogger(__name__)

CHGNET = "chgnet"
"""By which a user names it."""

MAX_ATOMIC_NUMBER = 94
"""Of the elements that it knows."""

WIDTH = 64
"""Of its atom features."""

_PIECE = 16
"""Crystals that it sees at once."""

_TOLD = 3
"""Crystals that it cannot take of which the reason is told."""


@dataclasses.dataclass(frozen=True)
class CHGNetTeacher:
    """CHGNet's atom features as what is distilled.

    Attributes:
      model: the network, as its package loads it.
      fingerprint: hex digest of what the features are of: network, and version of the package.
      path: its name, where other teachers have a place.

    Example:
      ``CHGNetTeacher.load().embeddings(store)``
    """

    model: Any
    fingerprint: str
    path: Path = Path(CHGNET)

    @classmethod
    def load(cls) -> "CHGNetTeacher":
        """The network that the package loads where no other is named.

        Raises:
          UserError: the package is not installed.
        """
        package = imported("chgnet", "chgnet", "`teacher` chgnet")
        network = imported("chgnet.model", "chgnet", "`teacher` chgnet")
        with contextlib.redirect_stdout(io.StringIO()):  # where it says how large it is
            model = network.CHGNet.load(verbose=False)
        known = (CHGNET, package.__version__, model.version, "atom_fea")
        digest = hashlib.blake2b(repr(known).encode(), digest_size=16).hexdigest()
        return cls(model, digest)

    def embeddings(self, store: GraphStore, *, quiet: bool = False) -> np.ndarray:
        """Its features of every atom of a store, ``[all atoms, 64]`` float32, memory-mapped.

        They are those that it tells magnetic moments from, after the last but one of its
        convolutions: what ``predict_structure(…, return_atom_feas=True)`` gives. Computed once, and
        kept beside the store. NaN in crystals that it cannot take, with an atom that has no
        neighbour within 6 Å, or with an element beyond plutonium.

        Args:
          store: the crystals, as graphs of whatever kind: it makes its own.
          quiet: show no progress.

        Raises:
          UserError: it can take none of the crystals, or they cannot be kept beside the store.
        """
        found = kept_embeddings(
            store, self.fingerprint, lambda file: self._compute(file, store, quiet)
        )
        ids = store.ids[~np.isfinite(found[store.node_offsets[:-1], 0])].tolist()
        if len(ids) == len(store):
            raise UserError(f"`teacher` chgnet can take no crystal of {store.source_name}")
        if ids:
            _log.warning(
                "chgnet cannot take %d of %d crystals, and does not pull on them: %s",
                *(len(ids), len(store), ", ".join(ids)),
            )
        return found

    def _compute(self, file: Path, store: GraphStore, quiet: bool) -> None:
        out = new_embeddings(file, store, WIDTH)
        refused: list[str] = []
        bar = None
        if not quiet and sys.stderr.isatty():
            bar = Bar("atom features of chgnet", len(store), "crystals", sys.stderr)
        elif not quiet:
            print(f"atom features of chgnet: {len(store)} crystals", file=sys.stderr, flush=True)
        for first in range(0, len(store), _PIECE):
            graphs, rows = [], []
            last = min(first + _PIECE, len(store))
            with warnings.catch_warnings():
                # Of PyTorch and pymatgen, about what chgnet does and does not need.
                warnings.simplefilter("ignore", UserWarning)
                for row in range(first, last):
                    crystal = store.crystal(row)
                    try:
                        graphs.append(self._graph(crystal))
                        rows.append(row)
                    except ValueError as error:
                        refused.append(f"{crystal.id}: {error}")
                        out[store.node_offsets[row] : store.node_offsets[row + 1]] = np.nan
                for row, features in zip(rows, self._features(graphs)):
                    out[store.node_offsets[row] : store.node_offsets[row + 1]] = features
            if bar is not None:
                bar.update(last)
        if bar is not None:
            bar.close()
        for line in refused[:_TOLD]:
            _log.warning("chgnet cannot take %s", line)
        if len(refused) > _TOLD:
            _log.warning("… and %d more", len(refused) - _TOLD)
        out.flush()

    def _graph(self, crystal: Crystal) -> Any:
        """
        Raises:
          ValueError: it cannot take the crystal.
        """
        highest = int(crystal.species.max())
        if highest > MAX_ATOMIC_NUMBER:
            raise ValueError(f"it has atomic number {highest}, beyond {MAX_ATOMIC_NUMBER}")
        from pymatgen.core import Structure  # which chgnet needs, and brings

        return self.model.graph_converter(
            Structure(crystal.lattice, crystal.species.tolist(), crystal.frac_coords),
            graph_id=crystal.id,
        )

    def _features(self, graphs: list[Any]) -> list[np.ndarray]:
        """``[n_atoms, 64]`` of each graph."""
        if not graphs:
            return []
        found = self.model.predict_graph(graphs, task="e", return_atom_feas=True, batch_size=_PIECE)
        # Of a single graph it gives what it gives, and no list.
        return [one["atom_fea"] for one in (found if isinstance(found, list) else [found])]
