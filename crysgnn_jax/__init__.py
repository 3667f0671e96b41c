"""CrysGNN in JAX: pre-train on untagged crystals, distil into any property predictor."""

__version__ = "0.1.0"
