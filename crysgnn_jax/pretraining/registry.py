"""The networks that learn without labels, and the objectives of their authors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.members import find_member
from crysgnn_jax.models.network import Network, Recipe
from crysgnn_jax.models.registry import STUDENTS, build, find_network
from crysgnn_jax.pretraining import catalogue
from crysgnn_jax.pretraining.objective import Weighted
from crysgnn_jax.pretraining.teacher import CrysAE, PretrainedStudent, Teacher

_RECIPE = Recipe(learning_rate=0.01, batch_size=128)

PRETRAINED: dict[str, Network] = {
    "crysgnn": Network(Teacher, Needs(reduced=True), _RECIPE),
    "crysae": Network(CrysAE, Needs(reduced=True), _RECIPE),
}
"""Name → network. Its method ``embed(graph, train)`` gives the atom embeddings alone."""

_SETTINGS: dict[str, dict[str, Any]] = {"crysae": {"by_crystal": True}}
"""Recipe → settings of its objectives."""


def recipe_named(network: str, recipe: str | None) -> str:
    """The recipe of a network, see `catalogue.recipe_of`.

    Raises:
      UserError: there is no such recipe, or the network's authors had none.
    """
    if recipe not in (None, "released", *catalogue.RECIPES):
        raise UserError(f"`recipe` {recipe}: there is chemistry and released")
    try:
        return catalogue.recipe_of(network, recipe)
    except ValueError:
        raise UserError(
            f"`recipe` released: {network} was not trained without labels by its authors; leave it "
            "out"
        ) from None


def objectives_of(
    recipe: str, weights: Mapping[str, float] | None = None, **settings: Any
) -> Weighted:
    """The objectives of a recipe, and further ones of the package.

    Args:
      recipe: ``chemistry``; ``crysgnn`` or ``crysae``, that of the network's authors; or ``none``.
      weights: by name, where they are to differ; one of weight 0 is measured and not learned.
      settings: of those objectives that have them, such as ``temperature``.

    Raises:
      UserError: there is no such recipe or objective, none has a weight, or none has such a
        setting.

    Example:
      ``objectives_of("chemistry", {"space_group": 0.1})``
    """
    if recipe not in catalogue.RECIPES:
        raise UserError(f"`recipe` {recipe}: there is {', '.join(catalogue.RECIPES)}")
    own = catalogue.RECIPES[recipe]
    unused = dict(settings)
    chosen = []
    for name, weight in {**own, **(weights or {})}.items():
        if name not in catalogue.OBJECTIVES:
            raise UserError(f"`objectives` {name}: there is {', '.join(catalogue.OBJECTIVES)}")
        kind = find_member(catalogue.OBJECTIVES[name], "objectives", "")
        known = {**(_SETTINGS.get(recipe, {}) if name in own else {}), **settings}
        fitting = {name: known[name] for name in known if name in kind.__dataclass_fields__}
        unused = {name: value for name, value in unused.items() if name not in fitting}
        chosen.append((kind(**fitting), weight))
    for name in unused:
        raise UserError(f"`{name}`: no objective of {recipe} has it; leave it out")
    if not any(weight > 0 for _, weight in chosen):
        raise UserError("`objectives`: there is none of a weight above 0")
    return tuple(chosen)


RELEASED: dict[str, Weighted] = {name: objectives_of(name) for name in PRETRAINED}
"""Network → the objectives that its authors trained it by."""


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """A network that is to learn without labels.

    Attributes:
      name: of the network.
      network: its needs and how it is trained.
      module: what is trained, with the objectives.
    """

    name: str
    network: Network
    module: nn.Module


def graphs_of(name: str, chosen: Mapping[str, Any] | None = None) -> FeaturiserSettings:
    """How crystals become graphs for a network, with the settings that were chosen.

    Args:
      name: as of `without_labels`.
      chosen: fields of `FeaturiserSettings`.
    """
    own = {} if name in PRETRAINED else _student(name).needs.graphs
    return FeaturiserSettings(**{**own, **(chosen or {})})


def without_labels(
    name: str,
    objectives: Weighted,
    model: Mapping[str, Any] | None = None,
    *,
    cutoff: float,
    released: bool = False,
) -> Unlabelled:
    """A network and its heads for these objectives.

    Args:
      name: in `PRETRAINED`, or of a student, as of `find_network`: then the student itself is
        trained, from its atom embeddings.
      objectives: what it learns.
      model: settings of its module that differ from the defaults.
      cutoff: Å, of the graphs.
      released: whether the teacher's embeddings have length 1, as its authors have it.

    Raises:
      UserError: there is no such network, or it has no such setting.
    """
    heads = tuple(objective for objective, _ in objectives)
    model = dict(model or {})
    if name in PRETRAINED:
        network = PRETRAINED[name]
        if name == "crysgnn" and not released:
            model.setdefault("unit_length", False)
            recipe = dataclasses.replace(network.recipe, learning_rate=0.005)
            network = dataclasses.replace(network, recipe=recipe)
        module = build(network.module, model, cutoff=cutoff, objectives=heads)
        return Unlabelled(name, network, module)
    network = _student(name)
    return as_unlabelled(name, network, build(network.module, model, cutoff=cutoff), objectives)


def _student(name: str) -> Network:
    if ":" in name or name in STUDENTS:
        return find_network(name)
    there = ", ".join([*PRETRAINED, *STUDENTS])
    raise UserError(f"`network` {name}: there is {there}, or package.module:ClassName")


def as_unlabelled(
    name: str, network: Network, student: nn.Module, objectives: Weighted
) -> Unlabelled:
    """A student, to be trained by its atom embeddings.

    Args:
      name: of the student.
      network: what it is.
      student: its module.
      objectives: what it learns.
    """
    # Without decay: its property head, which learns nothing, stays as it was drawn.
    recipe = dataclasses.replace(network.recipe, batch_size=128, weight_decay=0.0)
    heads = tuple(objective for objective, _ in objectives)
    network = dataclasses.replace(network, recipe=recipe)
    return Unlabelled(name, network, PretrainedStudent(student, heads))
