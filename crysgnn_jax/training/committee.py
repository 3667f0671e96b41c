"""Several networks of the same property, asked together."""

import glob
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.crystals.readers import read
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.model_file import SUFFIX
from crysgnn_jax.training.predictions import Predictions, assess, require_asked
from crysgnn_jax.training.predictor import BATCH_SIZE, TrainedModel
from crysgnn_jax.training.settings import LEVEL
from crysgnn_jax.training.shipped import label_of
from crysgnn_jax.training.workdir import CONFIG, RESULT

MakeStore = Callable[[FeaturiserSettings], GraphStore]
"""How graphs are to be made → the graphs of the crystals in question."""


class Committee:
    """Networks of the same property: their mean, and their spread as its uncertainty.

    Args:
      members: one network at least.

    Raises:
      UserError: there are none, they do not predict the same property in the same unit, two of
        them are one: their spread would be nothing; or what one keeps of its training is damaged.

    Example:
      ``Committee([load("runs/a"), load("runs/b")]).predict("my_cifs/").uncertainty``

    Attributes:
      members: the networks.
      property: what they predict.
      unit: of the prediction.
    """

    def __init__(self, members: Iterable[TrainedModel]):
        self.members = list(members)
        if not self.members:
            raise UserError("`model`: there is no network to ask")
        for member in self.members:
            member.require_property()
        first = self.members[0]
        self.property, self.unit = first.property or "", first.unit
        for member in self.members[1:]:
            if (member.property, member.unit) != (first.property, first.unit):
                said = " and ".join(
                    f"{label_of(m.path)} {m.property} {m.unit}".rstrip() for m in (first, member)
                )
                raise UserError(f"`model`: {said} cannot be averaged; ask for one of them")
        known: dict[str, TrainedModel] = {}
        for member in self.members:
            if (same := known.setdefault(member.fingerprint, member)) is not member:
                raise UserError(
                    f"`model`: {same.path} and {member.path} are the same network; name one of them"
                )
        # Here, so that a damaged one is found before graphs are made.
        self._references = [member.reference for member in self.members]

    def __repr__(self) -> str:
        return f"Committee({self.property!r}, {len(self.members)} members)"

    def predict_graphs(
        self,
        make: MakeStore,
        devices: Devices,
        batch_size: int = BATCH_SIZE,
        *,
        level: float = LEVEL,
        n_nearest: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Predictions:
        """The property of crystals, from their graphs.

        A crystal that one of the members cannot take is left out for all.

        Args:
          make: makes the graphs; called once for each kind that the members need.
          devices: where to run.
          batch_size: crystals of an average batch, a device.
          level: share of crystals that an interval is to hold.
          n_nearest: training crystals to name of each, of the first member.
          progress: is told how many crystals are done, and of how many.

        Raises:
          UserError: ``level`` or ``n_nearest`` is out of bounds.
        """
        require_asked(level, n_nearest)
        made = {kind: make(kind) for kind in dict.fromkeys(m.featuriser for m in self.members)}
        stores = [made[member.featuriser] for member in self.members]
        n = sum(map(len, stores))
        said, embeddings, done = [], np.empty((0, 0)), 0
        for k, (member, store) in enumerate(zip(self.members, stores)):
            told = None
            if progress is not None:
                told = lambda i, _, before=done, report=progress: report(before + i, n)
            values, vectors = member.outputs(store, devices, batch_size, told)
            done += len(store)
            said.append(dict(zip(store.ids.tolist(), values)))
            embeddings = vectors if k == 0 else embeddings
        ids = stores[0].ids.tolist()
        known = [row for row, id in enumerate(ids) if all(id in found for found in said)]
        rows = np.array(known, int)
        left_out = dict(pair for store in stores for pair in store.skipped)
        return assess(
            stores[0],
            rows,
            np.array([[found[ids[row]] for row in known] for found in said]),
            self._references,
            embeddings[rows],
            property=self.property,
            unit=self.unit,
            skipped=list(left_out.items()),
            level=level,
            n_nearest=n_nearest,
        )

    def predict(
        self,
        data: Any,
        *,
        devices: int | None = None,
        batch_size: int = BATCH_SIZE,
        cache: Path | str | None = None,
        workers: int | None = 1,
        level: float = LEVEL,
        n_nearest: int = 1,
    ) -> Predictions:
        """The property of crystals; arguments as of `TrainedModel.predict`."""
        source = read(data)
        return self.predict_graphs(
            lambda settings: build_store(source, settings, cache_dir=cache, workers=workers),
            Devices(devices),
            batch_size,
            level=level,
            n_nearest=n_nearest,
        )


def is_several(name: Path | str) -> bool:
    """Whether a path stands for several: it has a wildcard, and is not one itself."""
    return glob.has_magic(str(name)) and not Path(name).exists()


def unfinished(names: Iterable[Path | str]) -> list[Path]:
    """The runs that wildcards fit and `workdirs` leaves out, for they are not finished."""
    found = {Path(path) for name in names if is_several(name) for path in glob.glob(str(name))}
    return sorted(p for p in found if (p / CONFIG).exists() and not (p / RESULT).exists())


def workdirs(names: Iterable[Path | str], parameter: str = "model") -> list[Path]:
    """The runs that names stand for, each once; of a wildcard, those that are finished, and files
    of models.

    Args:
      names: directories, files that `export` wrote, names of the package's networks, or wildcards
        such as ``runs/*/distilled`` and ``models/*.safetensors``.
      parameter: by which the user gave them, for messages.

    Raises:
      UserError: a wildcard fits no finished run and no file of a model.
    """
    out: list[Path] = []
    for name in names:
        if not is_several(name):
            out.append(Path(name))
            continue
        found = [Path(path) for path in sorted(glob.glob(str(name)))]
        finished = [path for path in found if _is_trained(path)]
        if not finished:
            fits = "fits no finished run" if found else "fits nothing"
            raise UserError(
                f"`{parameter}` {name}: {fits}; name the directories of runs, or files of models "
                f"that end in {SUFFIX}"
            )
        out += finished
    return list(dict.fromkeys(out))


def _is_trained(path: Path) -> bool:
    if path.is_file():
        return path.suffix == SUFFIX
    return (path / CONFIG).exists() and (path / RESULT).exists()
