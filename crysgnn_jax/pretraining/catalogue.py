"""The objectives by name. A new one takes a file beside this one, and a line here.

Without JAX, for the flags of the commands.
"""

OBJECTIVES = {
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
