"""What each atom of a crystal adds to a model's prediction.

An atom is *hidden* when its species is 0, the number that stands for padding, and for what a
network must guess: the atom stays where it is, and the network is told nothing of its element. The
*baseline* is the prediction for the crystal with all atoms hidden, so for its bare geometry; and
what is divided among the atoms is the prediction less the baseline.

It is divided by Owen values (`coalitions`), the Shapley values of atoms that are grouped by
element, over all sets of atoms that may be hidden. Hiding one atom at a time, which is occlusion
(Zeiler and Fergus 2014), does not add up to anything: what two atoms tell together would be counted
twice, or not at all. Integrated gradients (Sundararajan, Taly and Yan 2017) add up, and need a path
between elements, which are whole numbers: each network makes vectors of them in its own way, some
in several places, so that the path would have to be cut into every one of them. Owen values add up
whatever the network does inside, need nothing but its predictions, and are the same for every
module that takes a batch.

Equivalent atoms of a crystal (`graphs.reduction`) are hidden together, and share alike. So
contributions depend neither on the order of the atoms nor on how many cells they are written down
in. An atom's contribution is in units of the prediction itself, and

    prediction = baseline + mean over the atoms of their contributions.

They tell what the model has learned, which need not be why the crystal is as it is; and a crystal
with hidden atoms is one that the model was not trained on.

References: Shapley, Contributions to the Theory of Games II, 307 (1953); Owen, Essays in
Mathematical Economics and Game Theory, 76 (1977); Lundberg and Lee, NeurIPS 2017, for Shapley
values of models; Zeiler and Fergus, ECCV 2014; Sundararajan, Taly and Yan, ICML 2017.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crysgnn_jax import stopping
from crysgnn_jax.batches.budget import pack
from crysgnn_jax.batches.loader import group, lay_out, stack
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.training.coalitions import Game, game, n_sets
from crysgnn_jax.training.devices import Devices

if TYPE_CHECKING:  # it has a method that calls this
    from crysgnn_jax.training.predictor import TrainedModel

MOST = 50_000
"""Predictions that one crystal may need. A crystal of 10 elements with 4 kinds of atoms each needs
80,000; one of 5 elements with 40 kinds of atoms each, 6,560."""

_AT_A_TIME = 200_000
"""Predictions that are held at a time."""


class ElementShare(NamedTuple):
    """What an element adds to a prediction.

    Attributes:
      n_atoms: atoms of it.
      mean: of their contributions.
      share: what they add to the prediction: the sum of their contributions over all atoms.
    """

    n_atoms: int
    mean: float
    share: float


class Explanation(NamedTuple):
    """What each atom of a crystal adds to a model's prediction.

    Example:
      ``for z, x in zip(found.species, found.contributions): print(z, x, found.unit)``

    Attributes:
      id: of the crystal.
      species: ``[n_atoms]`` uint8, atomic numbers, in the order of its file.
      frac_coords: ``[n_atoms, 3]`` float64.
      lattice: ``[3, 3]`` float64, lattice vectors as rows, Å.
      contributions: ``[n_atoms]`` float64; their mean is the prediction less the baseline.
      baseline: prediction for the crystal with all its elements hidden.
      prediction: for the crystal as it is.
      property: name of what is predicted.
      unit: of the last four; "" for a pure number, or one that is not known.
      exact: whether contributions are the Owen values. Where an element has more than
        `coalitions.EXACT` kinds of atoms they are near them for its atoms, and exact for the
        element as a whole.
    """

    id: str
    species: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray
    contributions: np.ndarray
    baseline: float
    prediction: float
    property: str
    unit: str
    exact: bool

    @property
    def residual(self) -> float:
        """By how much the mean contribution misses the prediction less the baseline: rounding."""
        return float(np.mean(self.contributions)) - (self.prediction - self.baseline)

    def by_element(self) -> dict[int, ElementShare]:
        """Atomic number → what the element adds, the largest share first."""
        found = {}
        for number in np.unique(self.species).tolist():
            chosen = self.contributions[self.species == number]
            share = float(chosen.sum() / len(self.species))
            found[number] = ElementShare(len(chosen), float(chosen.mean()), share)
        return dict(sorted(found.items(), key=lambda item: -abs(item[1].share)))


def explain(
    model: "TrainedModel",
    structure: Any,
    *,
    devices: int | None = None,
    batch_size: int = 64,
    cache: Path | str | None = None,
) -> Explanation:
    """What each atom of one crystal adds to a model's prediction.

    Args:
      model: what predicts.
      structure: a crystal, as of `readers.read`: a path, a structure of ASE or pymatgen.
      devices: how many local devices to use; all where not given.
      batch_size: crystals of an average batch, a device.
      cache: where graphs are kept; `cache.default_cache_dir` where not given.

    Raises:
      UserError: the model predicts no property; the structure cannot be used, is several, or has
        too many kinds of atoms.

    Example:
      ``explain(model, "NaCl.cif").contributions``
    """
    model.require_property()
    source = read(structure)
    if len(source) > 1:
        raise UserError(
            f"{source.name} holds {len(source)} crystals; explain one, or all of them by "
            "crysgnn explain"
        )
    store = build_store(source, model.featuriser, cache_dir=cache)
    found, skipped = explain_store(model, store, Devices(devices), batch_size)
    if skipped:
        raise UserError(f"{skipped[0][0]}: {skipped[0][1]}")
    return found[0]


def explain_store(
    model: "TrainedModel",
    store: GraphStore,
    devices: Devices,
    batch_size: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Explanation], list[tuple[str, str]]]:
    """The same of every crystal of a store.

    Args:
      model: what predicts.
      store: the crystals.
      devices: where to run.
      batch_size: crystals of an average batch, a device.
      progress: called with the numbers of predictions done and in all.

    Returns:
      Explanations in the order of the store; and ``(id, reason)`` of each crystal that has too many
      kinds of atoms.

    Raises:
      UserError: the model predicts no property, or the store's graphs were built with other
        settings than the model's.
    """
    model.require_property()
    store.settings.require(model.featuriser, f"the network in {model.path}")
    games: dict[int, Game] = {}
    skipped = []
    for row in range(len(store)):
        sites = store.site_offsets[row : row + 2]
        species = tuple(store.site_species[sites[0] : sites[1]].tolist())
        needed = n_sets(species)
        if needed > MOST:
            reason = (
                f"its {len(species)} kinds of atoms of {len(set(species))} elements need up to "
                f"{needed} predictions, and {MOST} is the most; explain a simpler crystal"
            )
            skipped.append((str(store.ids[row]), reason))
        else:
            games[row] = game(species)
    if not games:
        return [], skipped
    values = _values(model, store, games, devices, batch_size, progress)
    return [_explanation(model, store, row, games[row], values[row]) for row in games], skipped


def mean_by_element(explanations: Iterable[Explanation]) -> dict[int, tuple[int, float]]:
    """Atomic number → in how many crystals it is, and the mean over these of what an atom of it
    contributes there."""
    found = defaultdict(list)
    for explanation in explanations:
        for number, share in explanation.by_element().items():
            found[number].append(share.mean)
    return {number: (len(found[number]), float(np.mean(found[number]))) for number in sorted(found)}


def _values(
    model: "TrainedModel",
    store: GraphStore,
    games: dict[int, Game],
    devices: Devices,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> dict[int, np.ndarray]:
    """Row of the store → predictions for the crystal with all but each set of its sites hidden."""
    rows = np.repeat(list(games), [len(found.sets) for found in games.values()])
    set_number = np.concatenate([np.arange(len(found.sets)) for found in games.values()])
    batcher, budget = lay_out(store, rows, model.network.needs, batch_size)

    def predict(variables: Any, graph: Any) -> Any:
        outputs: Any = model.module.apply(variables, graph, False)
        return outputs.prediction

    compiled = devices.compile(predict)
    variables = devices.replicate(model.variables)

    def batch(tasks: np.ndarray) -> Any:
        graph = batcher(rows[tasks])
        shown = [
            _of_nodes(store, row, games[row].sets[number], reduced=model.network.needs.reduced)
            for row, number in zip(rows[tasks].tolist(), set_number[tasks].tolist())
        ]
        species = graph.nodes["species"].copy()
        n_real = sum(map(len, shown))
        species[:n_real] *= np.concatenate([np.empty(0, bool), *shown])
        return graph._replace(nodes={**graph.nodes, "species": species})

    out = np.empty(len(rows))
    done = 0
    for first in range(0, len(rows), _AT_A_TIME):
        here = np.arange(first, min(first + _AT_A_TIME, len(rows)))
        packed = pack(batcher.sizes[rows[here]], budget.limits, here - first)
        for step in group([here[tasks] for tasks in packed], len(devices)):
            stopping.check()
            found = compiled(variables, devices.put(stack([batch(tasks) for tasks in step])))
            for tasks, values in zip(step, np.asarray(found)):
                out[tasks] = values[: len(tasks)]
                done += len(tasks)
            progress(done, len(rows))
    out = model.standardiser.invert(out)
    ends = np.cumsum([len(found.sets) for found in games.values()])
    return dict(zip(games, np.split(out, ends[:-1])))


def _of_nodes(store: GraphStore, row: int, of_sites: np.ndarray, *, reduced: bool) -> np.ndarray:
    """Values of the sites of a crystal as those of its nodes, ``[n_node]``."""
    if reduced:
        return of_sites
    return of_sites[store.site[store.node_offsets[row] : store.node_offsets[row + 1]]]


def _explanation(
    model: "TrainedModel", store: GraphStore, row: int, found: Game, values: np.ndarray
) -> Explanation:
    atoms = slice(store.node_offsets[row], store.node_offsets[row + 1])
    site = store.site[atoms]
    of_sites = found.weights @ values
    n_shown = found.sets.sum(axis=1)
    return Explanation(
        id=str(store.ids[row]),
        species=np.array(store.species[atoms]),
        frac_coords=np.array(store.frac_coords[atoms]),
        lattice=np.array(store.lattice[row]),
        contributions=(of_sites / np.bincount(site))[site] * len(site),
        baseline=float(values[np.argmin(n_shown)]),
        prediction=float(values[np.argmax(n_shown)]),
        property=model.property or "",
        unit=model.unit,
        exact=found.exact,
    )
