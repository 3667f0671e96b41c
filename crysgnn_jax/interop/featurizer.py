"""Crystal embeddings as the features of a pipeline, in the way of matminer."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.interop.parameters import Parameters
from crysgnn_jax.interop.structures import Skipped, in_order, warn_of
from crysgnn_jax.training import shipped
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.workdir import RESULT


class CrystalFeaturizer(Parameters):
    """The crystal embeddings of a trained network, teacher or student, as features.

    It has the methods of matminer's featurizers, and those of a transformer of scikit-learn; it
    needs neither.

    Args:
      model: a `TrainedModel`, or a network's name or path as `load` takes it; the teacher that
        comes with the package where not given.
      cache: where graphs are kept, as of `build_store`.
      devices: how many local devices to use; all where not given.

    Attributes:
      skipped_: place and reason of each structure of the last call that could not be used.

    Example:
      >>> featurizer = CrystalFeaturizer()
      >>> featurizer.featurize(structure)          # a list of 64 numbers
      >>> table = featurizer.featurize_dataframe(table, "structure")
    """

    skipped_: Skipped

    def __init__(
        self,
        model: TrainedModel | Path | str = TEACHER,
        cache: Path | str | None = None,
        devices: int | None = None,
    ):
        self.model = model
        self.cache = cache
        self.devices = devices

    def featurize(self, structure: Any) -> list[float]:
        """The features of one structure; NaN, with a warning, where it cannot be used."""
        return self.transform([structure])[0].tolist()

    def featurize_many(self, structures: Sequence[Any]) -> list[list[float]]:
        """The features of structures, a list each: far faster than one by one."""
        return self.transform(structures).tolist()

    def featurize_dataframe(self, df: Any, col_id: str = "structure") -> Any:
        """A data frame with a column more for each feature.

        Args:
          df: of pandas.
          col_id: its column of structures.
        """
        features = self.transform(df[col_id].tolist())
        return df.assign(**dict(zip(self.feature_labels(), features.T)))

    def feature_labels(self) -> list[str]:
        """A name for each feature: ``crysgnn-mp 0``, …"""
        name = _loaded(self.model).path.stem
        return [f"{name} {k}" for k in range(_loaded(self.model).embedding_width())]

    def fit(self, structures: Any = None, y: Any = None) -> "CrystalFeaturizer":
        """Nothing is learned here."""
        return self

    def transform(self, structures: Sequence[Any]) -> np.ndarray:
        """The features of structures, ``[n, d]``; NaN, with a warning, of those that cannot be
        used."""
        model = _loaded(self.model)

        def compute(crystals: Any) -> Any:
            found = model.embed(crystals, cache=self.cache, devices=self.devices)
            return found.ids, found.crystals, found.skipped

        features, self.skipped_ = in_order(structures, model.embedding_width(), compute)
        warn_of(self.skipped_, "not featurized")
        return features

    def fit_transform(self, structures: Sequence[Any], y: Any = None) -> np.ndarray:
        """As `transform`."""
        return self.transform(structures)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """As `feature_labels`, for scikit-learn."""
        return np.array(self.feature_labels(), dtype=object)

    def citations(self) -> list[str]:
        """What to cite, as BibTeX."""
        return [
            "@inproceedings{das2023crysgnn, title={CrysGNN: Distilling pre-trained knowledge to "
            "enhance property prediction for crystalline materials}, author={Das, Kishalay and "
            "others}, booktitle={Proceedings of the AAAI Conference on Artificial Intelligence}, "
            "year={2023}}"
        ]

    def implementors(self) -> list[str]:
        """Who wrote it."""
        return ["the authors of crysgnn_jax"]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks for, and nobody else."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(two_d_array=False),
            no_validation=True,
            requires_fit=False,
        )


def _loaded(model: TrainedModel | Path | str) -> TrainedModel:
    if isinstance(model, TrainedModel):
        return model
    path = shipped.found(model).absolute()
    result = path / RESULT if path.is_dir() else path
    return _load(path, result.stat().st_mtime_ns if result.exists() else 0)


@functools.lru_cache(maxsize=4)
def _load(path: Path, written: int) -> TrainedModel:
    """A network, as it was when its result was written: a run may be trained anew."""
    return TrainedModel.load(path)
