"""CrysGNN in JAX: pre-train on untagged crystals, distil into any property predictor.

    import crysgnn_jax as cg

    teacher = cg.pretrain("my_cifs/", workdir="runs/teacher")
    model = cg.train("cgcnn", "labelled.npz", "band_gap", teacher=teacher, workdir="runs/gap")
    model.predict("others/").values

What a network of one's own needs is here too: `Prediction`, `Network`, `Needs`, `Recipe`, and
`Batch`, `Rows` and `Links`, through which it sees a batch. Each name is imported when it is first
asked for, so that the package itself costs nothing.
"""
# ruff: noqa: F401

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:  # for type checkers and editors; the same names as in `_HOME`
    from crysgnn_jax.api import build_store, check, load, pretrain, train
    from crysgnn_jax.batches.needs import Needs
    from crysgnn_jax.batches.splits import make_split
    from crysgnn_jax.batches.views import Batch, Links, Rows
    from crysgnn_jax.crystals.crystal import Crystal
    from crysgnn_jax.crystals.readers import crystal_list, read
    from crysgnn_jax.errors import InvalidCrystal, UserError
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.interop.ase_calculator import PropertyCalculator
    from crysgnn_jax.interop.estimator import CrystalRegressor
    from crysgnn_jax.interop.featurizer import CrystalFeaturizer
    from crysgnn_jax.models.network import Network, Prediction
    from crysgnn_jax.models.recipe import Recipe
    from crysgnn_jax.objectives.distillation import (
        ProjectedStudent,
        distil,
        embedding_loss,
        standardised_loss,
    )
    from crysgnn_jax.objectives.property import Standardiser, property_loss
    from crysgnn_jax.pretraining.objective import Objective
    from crysgnn_jax.pretraining.registry import objectives_of
    from crysgnn_jax.training.committee import Committee
    from crysgnn_jax.training.embeddings_file import EmbeddingsFile
    from crysgnn_jax.training.predictions import Predictions
    from crysgnn_jax.training.predictor import TrainedModel
    from crysgnn_jax.training.settings import PropertySettings, TrainingSettings, UntaggedSettings

_HOME = {
    "api": "build_store check load pretrain train",
    "batches.needs": "Needs",
    "batches.splits": "make_split",
    "batches.views": "Batch Links Rows",
    "crystals.crystal": "Crystal",
    "crystals.readers": "crystal_list read",
    "errors": "InvalidCrystal UserError",
    "graphs.settings": "FeaturiserSettings",
    "interop.ase_calculator": "PropertyCalculator",
    "interop.estimator": "CrystalRegressor",
    "interop.featurizer": "CrystalFeaturizer",
    "models.network": "Network Prediction",
    "models.recipe": "Recipe",
    "objectives.distillation": "ProjectedStudent distil embedding_loss standardised_loss",
    "objectives.property": "Standardiser property_loss",
    "pretraining.objective": "Objective",
    "pretraining.registry": "objectives_of",
    "training.committee": "Committee",
    "training.embeddings_file": "EmbeddingsFile",
    "training.predictions": "Predictions",
    "training.predictor": "TrainedModel",
    "training.settings": "PropertySettings TrainingSettings UntaggedSettings",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = ["__version__", *_MODULE]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
