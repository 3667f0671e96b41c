"""The objectives by name. A new one takes a file beside this one, and a line here.

Without JAX, for the flags of the commands.
"""

OBJECTIVES = {
    "masked_elements": "crysgnn_jax.pretraining.masked_elements:MaskedElements",
    "hidden_scale": "crysgnn_jax.pretraining.hidden_scale:HiddenScale",
    "hidden_distances": "crysgnn_jax.pretraining.hidden_distances:HiddenDistances",
    "oxidation_states": "crysgnn_jax.pretraining.oxidation_states:OxidationStates",
    "connection": "crysgnn_jax.pretraining.connection:Connection",
    "feature": "crysgnn_jax.pretraining.element_features:ElementFeatures",
    "space_group": "crysgnn_jax.pretraining.space_group:SpaceGroup",
    "contrastive": "crysgnn_jax.pretraining.crystal_system:CrystalSystem",
}
"""Name in flags, losses and metrics → where it is."""

RELEASED = {
    "crysgnn": {"connection": 0.25, "feature": 0.25, "space_group": 0.25, "contrastive": 0.25},
    "crysae": {"connection": 0.9, "feature": 0.1},
}
"""Network → its objectives with their weights, as its authors trained it."""

CHEMISTRY = {
    "hidden_scale": 1.0,
    "masked_elements": 1.0,
    "hidden_distances": 1.0,
    "oxidation_states": 0.3,
}
"""Objectives that cannot be solved from an atom's own element and the pattern of its edges: what
they teach is which surroundings and distances go with which elements, and which elements make
each other neutral. They disturb the input in this order. With weight 1 for oxidation states,
students learn formation energies worse."""

RECIPES: dict[str, dict[str, float]] = {"chemistry": CHEMISTRY, **RELEASED, "none": {}}
"""Name → objectives with their weights."""


def recipe_of(network: str, recipe: str | None = None) -> str:
    """The key in `RECIPES` that a network is trained by.

    Args:
      network: name of it.
      recipe: ``chemistry``, or ``released`` for that of its authors; where not given, the
        auto-encoder, which is nothing without its own, has that, and every other ``chemistry``.

    Raises:
      ValueError: its authors did not train it without labels.
    """
    if recipe is None:
        recipe = "released" if network == "crysae" else "chemistry"
    if recipe != "released":
        return recipe
    if network not in RELEASED:
        raise ValueError(f"{network} has no released recipe")
    return network
