"""What a trained network keeps of the crystals that it was trained and chosen on: enough to say,
of another crystal, how far off the prediction may be, and whether it is like any of them."""

import dataclasses
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from crysgnn_jax.array_files import Damaged, read_arrays
from crysgnn_jax.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from crysgnn_jax.crystals.formula import readable
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.primitive import n_primitive
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.training import shipped
from crysgnn_jax.training.similarity import closest

N_KEPT = 10_000
"""Training crystals of which the embeddings are kept; of more, so many drawn at random."""

N_COMPONENTS = 16
"""Principal components of the embeddings that are kept."""

FAR = 0.99
"""Share of the validation crystals that lie nearer to a training crystal than one that is called
far from all of them."""


class Facts(NamedTuple):
    """What is plain to see of crystals.

    Attributes:
      ids: ``[n]``
      formulas: ``[n]``, reduced, as chemists write them.
      elements: ``[n, 101]`` bool, which elements each holds.
      n_atoms: ``[n]``, of the cells; of a large one, of its primitive cell.
      volume: ``[n]``, Å³ an atom.
    """

    ids: np.ndarray
    formulas: np.ndarray
    elements: np.ndarray
    n_atoms: np.ndarray
    volume: np.ndarray

    @classmethod
    def of(cls, store: GraphStore, rows: np.ndarray, *, large: float = np.inf) -> "Facts":
        """Of crystals of a store.

        Args:
          store: the crystals.
          rows: ``[n]``, which of them.
          large: atoms. Of a cell with more of them, those of its primitive cell are counted: a
            perfect supercell is what its cell is.
        """
        elements = np.zeros((len(store), MAX_ATOMIC_NUMBER + 1), dtype=bool)
        elements[np.repeat(np.arange(len(store)), store.n_nodes), store.species] = True
        n_atoms = np.array(store.n_nodes[rows])
        volume = np.abs(np.linalg.det(store.lattice[rows])) / n_atoms
        for place in np.flatnonzero(n_atoms > large).tolist():
            n_atoms[place] = n_primitive(store, int(rows[place]))
        formulas = np.array([readable(str(name)) for name in store.reduced_formula[rows]], str)
        return cls(np.asarray(store.ids[rows]), formulas, elements[rows], n_atoms, volume)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Of the training and validation crystals of a network.

    Distances are those of crystal embeddings, the mean over a crystal's atoms, standardised by the
    training crystals and in their first `N_COMPONENTS` principal components; the unit is their
    root-mean-square distance from the mean: two training crystals are √2 apart on average (in the
    square).

    Attributes:
      n_train: number of training crystals.
      elements: ``[101]``, training crystals that hold each element.
      most_atoms: of a training crystal's cell.
      volume: ``[2]``, Å³ an atom, least and most of a training crystal.
      axes: ``[d + 1, k]`` float32: embeddings ``[n, d]``, with a column of ones after them, times
        this are coordinates.
      ids: ``[m]``, of the training crystals that are kept.
      targets: ``[m]``, their labels.
      coordinates: ``[m, k]`` int8, in ``1 / steps``.
      steps: ``[k]`` float32.
      validation_ids: ``[v]``
      validation_targets: ``[v]``
      validation_predictions: ``[v]``
      far: distance to the nearest training crystal beyond which a crystal is called far, see `FAR`;
        infinite where there were too few validation crystals to tell.
    """

    n_train: np.ndarray
    elements: np.ndarray
    most_atoms: np.ndarray
    volume: np.ndarray
    axes: np.ndarray
    ids: np.ndarray
    targets: np.ndarray
    coordinates: np.ndarray
    steps: np.ndarray
    validation_ids: np.ndarray
    validation_targets: np.ndarray
    validation_predictions: np.ndarray
    far: np.ndarray

    @classmethod
    def of(
        cls,
        store: GraphStore,
        train: np.ndarray,
        validation: np.ndarray,
        embeddings: dict[str, np.ndarray],
        targets: np.ndarray,
        predictions: np.ndarray,
    ) -> "Reference":
        """What is to be kept of a run.

        Args:
          store: its crystals.
          train: rows of the training crystals.
          validation: rows of the validation crystals.
          embeddings: of crystals, ``train`` ``[len(kept(train)), d]`` and ``validation``
            ``[len(validation), d]``.
          targets: ``[len(store)]``, labels.
          predictions: ``[len(validation)]``
        """
        axes = _principal_axes(embeddings["train"])
        exact = _along(embeddings["train"], axes)
        steps = np.maximum(np.abs(exact).max(axis=0), 1e-30).astype(np.float32) / 127
        coordinates = np.round(exact / steps).astype(np.int8)
        far = np.inf
        if len(validation) >= 1 / (1 - FAR):
            apart = closest(_along(embeddings["validation"], axes), coordinates * steps, 1)[1]
            far = float(np.quantile(apart, FAR))
        rows = kept(train)
        facts = Facts.of(store, train)
        return cls(
            n_train=np.array(len(train)),
            elements=facts.elements.sum(axis=0),
            most_atoms=np.array(facts.n_atoms.max()),
            volume=np.array([facts.volume.min(), facts.volume.max()]),
            axes=axes,
            ids=np.asarray(store.ids[rows]),
            targets=targets[rows].astype(np.float32),
            coordinates=coordinates,
            steps=steps,
            validation_ids=np.asarray(store.ids[validation]),
            validation_targets=targets[validation],
            validation_predictions=predictions,
            far=np.array(far),
        )

    def save(self, path: Path) -> None:
        """Write it to a ``.npz``."""
        np.savez_compressed(
            path, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        )

    @classmethod
    def load(cls, path: Path, content: IO[bytes] | None = None) -> "Reference":
        """What `save` wrote.

        Args:
          path: of the file.
          content: of it, where it lies within another one.

        Raises:
          UserError: the file is damaged.
        """
        try:
            arrays = read_arrays(path if content is None else content)
            if "n_atoms" in arrays:  # as it was first written: the fewest, and the most
                arrays["most_atoms"] = arrays.pop("n_atoms")[1]
            return cls(**arrays)
        except (OSError, Damaged, TypeError, IndexError) as error:
            remedy = shipped.remedy_for(path)
            raise UserError(f"{path} is damaged ({error}); {remedy}") from None

    def nearest(self, embeddings: np.ndarray, n: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The training crystals that are most like others.

        Args:
          embeddings: ``[q, d]``, of crystals.
          n: how many of each.

        Returns:
          Rows of `ids`, and distances, each ``[q, n]``, the nearest first.
        """
        return closest(_along(embeddings, self.axes), self.coordinates * self.steps, n)

    def strange(self, facts: Facts, distances: np.ndarray) -> list[str]:
        """What the training crystals had nothing like, of each of some crystals; "" where it is
        one like them.

        Args:
          facts: of the crystals.
          distances: ``[n]``, of each to the nearest training crystal.
        """
        unseen = facts.elements & (self.elements == 0)
        low, high = self.volume
        out = []
        for row, (n_atoms, volume) in enumerate(zip(facts.n_atoms, facts.volume)):
            said = []
            if unseen[row].any():
                names = " ".join(SYMBOLS[number] for number in np.flatnonzero(unseen[row]))
                said.append(f"no training crystal holds {names}")
            if n_atoms > self.most_atoms:
                said.append(f"{n_atoms} atoms, in training {self.most_atoms} at most")
            if not low <= volume <= high:
                said.append(f"{volume:.3g} Å³ an atom, in training {low:.3g} to {high:.3g}")
            if distances[row] > self.far:
                said.append(
                    f"{distances[row]:.2g} from the nearest training crystal, {100 * FAR:g} % of "
                    f"the validation crystals within {float(self.far):.2g}"
                )
            out.append("; ".join(said))
        return out


def kept(train: np.ndarray) -> np.ndarray:
    """Rows of the training crystals whose embeddings a `Reference` keeps, in ascending order."""
    if len(train) <= N_KEPT:
        return np.sort(train)
    return np.sort(np.random.default_rng(0).choice(train, N_KEPT, replace=False))


def _principal_axes(embeddings: np.ndarray) -> np.ndarray:
    """``[d + 1, k]``: from embeddings, and 1, to the coordinates of `Reference`."""
    mean = embeddings.mean(axis=0, dtype=np.float64)
    std = embeddings.std(axis=0, dtype=np.float64)
    scale = np.where(std > 1e-6 * max(std.max(), 1e-30), std, np.inf)  # a constant tells nothing
    standardised = (embeddings - mean) / scale
    _, _, axes = np.linalg.svd(standardised.T @ standardised)
    chosen = (axes[:N_COMPONENTS] / scale).T
    n_varying = max(int(np.isfinite(scale).sum()), 1)
    chosen = np.concatenate([chosen, -(mean @ chosen)[None]]) / np.sqrt(n_varying)
    return chosen.astype(np.float32)


def _along(embeddings: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return embeddings @ axes[:-1] + axes[-1]
