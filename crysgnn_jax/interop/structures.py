"""Structures in a row, as other libraries hand them over: results stay in their order."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import read
from crysgnn_jax.errors import InvalidCrystal, NoUsableCrystal, UserError

SHOWN = 3
"""Structures whose reason a warning tells."""

Skipped = list[tuple[int, str]]
"""Place and reason of each structure that could not be used."""


def crystals_of(structures: Iterable[Any]) -> tuple[list[Crystal], Skipped]:
    """Crystals, whose ids are the places of the structures that they came from.

    Args:
      structures: each as of `readers.read`.

    Raises:
      UserError: one of them holds several crystals.
    """
    crystals, skipped = [], []
    for place, structure in enumerate(structures):
        try:
            source = read([structure])
            if len(source) != 1:
                raise UserError(f"`structures`: number {place} holds {len(source)} crystals")
            crystal = source.decode(source.items(0, 1)[0])
            crystals.append(dataclasses.replace(crystal, id=str(place)))
        except InvalidCrystal as error:
            skipped.append((place, error.reason))
    return crystals, skipped


def in_order(
    structures: Sequence[Any], width: int | None, compute: Callable[[list[Crystal]], Any]
) -> tuple[np.ndarray, Skipped]:
    """A row of results for each structure; NaN for one that cannot be used.

    Args:
      structures: as of `crystals_of`.
      width: of a row; None for one number each.
      compute: crystals → ids, values and what was skipped, as of `TrainedModel.predict`.

    Returns:
      ``[n]``, or ``[n, width]``, and what was skipped.
    """
    structures = list(structures)
    crystals, skipped = crystals_of(structures)
    shape = (len(structures),) if width is None else (len(structures), width)
    out = np.full(shape, np.nan)
    if crystals:
        try:
            ids, values, more = compute(crystals)
            out[[int(id) for id in ids.tolist()]] = values
        except NoUsableCrystal as error:
            more = error.skipped
        skipped += [(int(id), reason) for id, reason in more]
    return out, sorted(skipped)


def warn_of(skipped: Skipped, consequence: str) -> None:
    """A warning that counts what was skipped, and tells the first reasons."""
    if skipped:
        n = len(skipped)
        first = "; ".join(f"number {place}: {reason}" for place, reason in skipped[:SHOWN])
        more = f"; and {n - SHOWN} more" if n > SHOWN else ""
        warnings.warn(
            f"{n} structure{'s' if n > 1 else ''} {consequence} ({first}{more})", stacklevel=3
        )
