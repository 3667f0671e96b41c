"""Crystals that another set, or another run, has too."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crysgnn_jax.batches.splits import NAMES
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.crystals.sources import formulas_of
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.store import GraphStore

SPLITS = "splits.json"


class Overlap(NamedTuple):
    """What some crystals have in common with others.

    Attributes:
      name: of the others.
      ids: side of the other run's split, or ``all``, → crystals that are there by id.
      formulas: crystals whose reduced formula the others have; None where only their ids are known.
    """

    name: str
    ids: Mapping[str, list[str]]
    formulas: list[str] | None

    @property
    def n_ids(self) -> int:
        """Crystals that are there by id."""
        return sum(map(len, self.ids.values()))


def overlap(store: GraphStore, other: Any) -> Overlap:
    """What the crystals of a store have in common with others.

    Args:
      store: of the crystals.
      other: a run's directory or its ``splits.json``, for a comparison by id; or crystals as of
        `read`, for one by id and by reduced formula.

    Raises:
      UserError: there is no such thing, or it cannot be read.
    """
    own = store.ids.tolist()
    path = Path(other) if isinstance(other, (str, Path)) else None
    if path is not None and (path / SPLITS).is_file():
        path = path / SPLITS
    if path is not None and path.name == SPLITS and path.is_file():
        try:
            sides = json.loads(path.read_text(encoding="utf-8"))
            theirs = {name: {str(id) for id in sides[name]} for name in NAMES}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"`against` {path}: not a {SPLITS} with lists of ids under {', '.join(NAMES)} "
                f"({type(error).__name__}: {error})"
            ) from None
        found = {name: [id for id in own if id in ids] for name, ids in theirs.items()}
        return Overlap(str(other), found, None)
    source = read(other)
    ids, formulas = source.ids(), set(formulas_of(source))
    known = set() if ids is None else set(ids.tolist())
    shared = [id for id, formula in zip(own, store.reduced_formula.tolist()) if formula in formulas]
    return Overlap(source.name, {"all": [id for id in own if id in known]}, shared)
