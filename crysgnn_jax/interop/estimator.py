"""A property predictor as scikit-learn has them: fit, predict, score."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax import api
from crysgnn_jax.errors import UserError
from crysgnn_jax.interop.parameters import Parameters
from crysgnn_jax.interop.structures import Skipped, crystals_of, in_order, warn_of
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.settings import TEACHER

TARGET, SIDE = "target", "side"
"""Label and tag of the crystals that are trained on."""


class CrystalRegressor(Parameters):
    """A student, distilled from a teacher, with the methods of a regressor of scikit-learn.

    It works in ``cross_val_score``, ``GridSearchCV`` and pipelines; scikit-learn itself is not
    needed. The epoch is chosen on a part of the crystals that it is fitted to.

    Args:
      student: as of `train`.
      teacher: as of `train`; None for a student alone.
      epochs: passes over the crystals.
      validation_fraction: part of the crystals that the epoch is chosen by, at least one.
      seed: of weights, order and which crystals these are.
      unit: of the property.
      settings: further settings of `train` by name, such as ``{"learning_rate": 0.002}``.
      workdir: where the run is written; where not given, it is not kept.
      cache: where graphs are kept, as of `build_store`.
      devices: how many local devices to use; all where not given.
      quiet: show no progress.

    Attributes:
      model_: the `TrainedModel`, once it is fitted.
      skipped_: place and reason of each structure of the last call that could not be used.

    Example:
      >>> regressor = CrystalRegressor(epochs=60).fit(structures, energies)
      >>> regressor.predict(others)            # [n]
      >>> cross_val_score(CrystalRegressor(), structures, energies, cv=5)
    """

    model_: TrainedModel
    skipped_: Skipped

    def __init__(
        self,
        student: Any = "cgcnn",
        teacher: Any = TEACHER,
        epochs: int = 60,
        validation_fraction: float = 0.1,
        seed: int = 0,
        unit: str = "",
        settings: Mapping[str, Any] | None = None,
        workdir: Path | str | None = None,
        cache: Path | str | None = None,
        devices: int | None = None,
        quiet: bool = True,
    ):
        self.student = student
        self.teacher = teacher
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.unit = unit
        self.settings = settings
        self.workdir = workdir
        self.cache = cache
        self.devices = devices
        self.quiet = quiet

    def fit(self, structures: Sequence[Any], y: Any) -> "CrystalRegressor":
        """Train on structures and their property; what cannot be used is left out, with a warning.

        Args:
          structures: n of them, each as of `read`.
          y: ``[n]``, the property.

        Raises:
          UserError: they are not as many as ``y`` or too few, a value is not finite, or as of
            `train`.
        """
        structures = list(structures)
        try:
            values = np.asarray(y, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError("`y`: a value is not a number; give a number each") from None
        if values.shape != (len(structures),):
            raise UserError(
                f"`y` is {list(values.shape)}, of {len(structures)} structures; give a number each"
            )
        if not np.isfinite(values).all():
            raise UserError("`y`: a value is not finite; leave such structures out")
        if not 0 < self.validation_fraction < 1:
            raise UserError(
                f"`validation_fraction` {self.validation_fraction}: give a number between 0 and 1"
            )
        crystals, self.skipped_ = crystals_of(structures)
        warn_of(self.skipped_, "left out of the training")
        if len(crystals) < 2:
            raise UserError(f"`structures`: {len(crystals)} can be used, and 2 are needed")
        n_validation = max(1, round(self.validation_fraction * len(crystals)))
        order = np.random.default_rng(self.seed).permutation(len(crystals))
        held_out = set(order[:n_validation].tolist())
        labelled = [
            dataclasses.replace(
                crystal,
                labels={TARGET: values[int(crystal.id)]},
                tags={SIDE: "val" if place in held_out else "train"},
            )
            for place, crystal in enumerate(crystals)
        ]
        # A run is tested too, and here it is the caller who does: one crystal stands in.
        one = labelled[order[0]]
        labelled.append(dataclasses.replace(one, id=f"{one.id} again", tags={SIDE: "test"}))
        with tempfile.TemporaryDirectory(prefix="crysgnn-") as folder:
            self.model_ = api.train(
                self.student,
                labelled,
                TARGET,
                workdir=Path(folder) / "run" if self.workdir is None else self.workdir,
                teacher=self.teacher,
                split=f"column:{SIDE}",
                cache=self.cache,
                devices=self.devices,
                quiet=self.quiet,
                epochs=self.epochs,
                seed=self.seed,
                unit=self.unit,
                **(self.settings or {}),
            )
        return self

    def predict(self, structures: Sequence[Any]) -> np.ndarray:
        """The property of structures, ``[n]``; NaN, with a warning, of those that cannot be used.

        Raises:
          UserError: it has not been fitted.
        """
        if not hasattr(self, "model_"):
            raise UserError("the regressor has not been fitted; call fit first")

        def compute(crystals: Any) -> Any:
            found = self.model_.predict(crystals, cache=self.cache, devices=self.devices)
            return found.ids, found.values, found.skipped

        values, self.skipped_ = in_order(structures, None, compute)
        warn_of(self.skipped_, "not predicted")
        return values

    def score(self, structures: Sequence[Any], y: Any) -> float:
        """R² of the predictions of those structures that can be used: 1 less the sum of squared
        errors over that of the differences from the mean."""
        predictions, values = self.predict(structures), np.asarray(y, dtype=np.float64)
        usable = np.isfinite(predictions)
        errors, values = (values - predictions)[usable], values[usable]
        spread = np.sum(np.square(values - values.mean())) if len(values) else 0.0
        return float(1.0 - np.sum(np.square(errors)) / spread) if spread > 0 else float("nan")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks for, and nobody else."""
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(two_d_array=False),
            no_validation=True,
        )
