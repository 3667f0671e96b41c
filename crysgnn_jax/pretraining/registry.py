"""The networks that learn without labels, and the objectives of their authors."""

from collections.abc import Mapping
from typing import Any

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.errors import UserError
from crysgnn_jax.members import find_member
from crysgnn_jax.models.network import Network, Recipe
from crysgnn_jax.pretraining import catalogue
from crysgnn_jax.pretraining.objective import Weighted
from crysgnn_jax.pretraining.teacher import CrysAE, Teacher

_RECIPE = Recipe(learning_rate=0.01, batch_size=128)

PRETRAINED: dict[str, Network] = {
    "crysgnn": Network(Teacher, Needs(reduced=True), _RECIPE),
    "crysae": Network(CrysAE, Needs(reduced=True), _RECIPE),
}
"""Name → network. Its method ``embed(graph, train)`` gives the atom embeddings alone."""

_SETTINGS: dict[str, dict[str, Any]] = {"crysgnn": {}, "crysae": {"by_crystal": True}}
"""Network → settings of its objectives."""


def objectives_of(
    network: str, weights: Mapping[str, float] | None = None, **settings: Any
) -> Weighted:
    """The objectives of a network's authors, and further ones of the package.

    Args:
      network: name in `PRETRAINED`.
      weights: by name, where they are to differ; one of weight 0 is measured and not learned.
      settings: of those objectives that have them, such as ``temperature``.

    Raises:
      UserError: there is no such objective, none has a weight, or none has such a setting.

    Example:
      ``objectives_of("crysgnn", {"contrastive": 0.0})``
    """
    released = catalogue.RELEASED[network]
    unused = dict(settings)
    chosen = []
    for name, weight in {**released, **(weights or {})}.items():
        if name not in catalogue.OBJECTIVES:
            raise UserError(f"`objectives` {name}: there is {', '.join(catalogue.OBJECTIVES)}")
        kind = find_member(catalogue.OBJECTIVES[name], "objectives", "")
        known = {**(_SETTINGS[network] if name in released else {}), **settings}
        own = {name: known[name] for name in known if name in kind.__dataclass_fields__}
        unused = {name: value for name, value in unused.items() if name not in own}
        chosen.append((kind(**own), weight))
    for name in unused:
        raise UserError(f"`{name}`: no objective of {network} has it; leave it out")
    if not any(weight > 0 for _, weight in chosen):
        raise UserError("`objectives`: there is none of a weight above 0")
    return tuple(chosen)


RELEASED: dict[str, Weighted] = {name: objectives_of(name) for name in PRETRAINED}
"""Network → the objectives that its authors trained it by."""
