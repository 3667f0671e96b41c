"""Training, validation and test crystals: at random, by formula, by a column, or as before."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.errors import UserError, warn_once
from crysgnn_jax.graphs.store import GraphStore

FRACTIONS = (0.8, 0.1, 0.1)
"""Training, validation, test."""

NAMES = ("train", "validation", "test")

_COLUMN_VALUES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows of a store, disjoint.

    Attributes:
      train: ``[n_train]``, in ascending order, as are the others.
      validation: ``[n_validation]``
      test: ``[n_test]``
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def items(self):
        """Pairs of name and rows."""
        return [(name, getattr(self, name)) for name in NAMES]

    def ids(self, store: GraphStore) -> dict[str, list[str]]:
        """The content of ``splits.json``: name → ids."""
        return {name: store.ids[rows].tolist() for name, rows in self.items()}

    def with_fraction(self, fraction: float, seed: int) -> "Split":
        """The same validation and test crystals, and a random part of the training crystals, at
        least one; with the same seed, a smaller part lies within a larger."""
        if fraction == 1.0:
            return self
        n = max(1, round(fraction * len(self.train)))
        order = np.random.default_rng(seed).permutation(self.train)
        return dataclasses.replace(self, train=np.sort(order[:n]))

    def fingerprint(self, store: GraphStore) -> str:
        """Hex digest of the ids of each side."""
        return digest_of_ids(self.ids(store))


def digest_of_ids(ids: Any) -> str:
    """Hex digest of ids, in lists or in dicts of lists."""
    return hashlib.blake2b(json.dumps(ids).encode(), digest_size=16).hexdigest()


def make_split(store: GraphStore, rows: np.ndarray, rule: str, seed: int) -> Split:
    """Divide ``rows`` by a rule.

    Args:
      store: the crystals.
      rows: those to divide, such as the ones with a label.
      rule: ``random``; ``formula`` (no reduced formula on two sides); ``column:NAME``, a tag with
        the values train, val and test (others are left out); or the path of a ``splits.json``.
      seed: of the random rules, which give 80/10/10 %.

    Raises:
      UserError: the rule is unknown, a file or column does not fit, or a side would be empty.

    Example:
      ``make_split(store, np.arange(len(store)), "formula", seed=0).train``
    """
    rows = np.asarray(rows)
    if rule == "random":
        groups = np.arange(len(rows))
    elif rule == "formula":
        groups = np.unique(store.reduced_formula[rows], return_inverse=True)[1]
    if rule in ("random", "formula"):
        sides = _assign(groups, seed, FRACTIONS)
    elif rule.startswith("column:"):
        values = store.tags(rule.removeprefix("column:"))[rows]
        sides = np.array([_COLUMN_VALUES.get(str(value).lower(), "") for value in values])
    else:
        sides = _from_file(store, rows, Path(rule))
    split = Split(*(np.sort(rows[sides == name]) for name in NAMES))
    for name, part in split.items():
        if len(part) == 0:
            raise UserError(
                f"`split` {rule} leaves no crystal for {name} out of {len(rows)}; "
                "give more crystals or another split"
            )
    return split


def by_formula(
    store: GraphStore, rows: np.ndarray, fractions: tuple[float, float, float], seed: int
) -> Split:
    """Divide ``rows`` into given parts, any of which may be 0, with no reduced formula on two
    sides. With the same seed, a smaller part for training lies within a larger.

    Args:
      store: the crystals.
      rows: those to divide.
      fractions: training, validation, test; their sum is 1.
      seed: of the order in which formulas are drawn.
    """
    rows = np.asarray(rows)
    groups = np.unique(store.reduced_formula[rows], return_inverse=True)[1]
    sides = _assign(groups, seed, fractions)
    return Split(*(np.sort(rows[sides == name]) for name in NAMES))


def _assign(groups: np.ndarray, seed: int, fractions: tuple[float, float, float]) -> np.ndarray:
    """A side for each row: whole groups in random order, until each side has its share."""
    generator = np.random.default_rng(seed)
    counts = np.bincount(groups)
    order = generator.permutation(len(counts))
    # The middle of a group decides, so that a large group at a boundary goes to the nearer side.
    middle = (np.cumsum(counts[order]) - counts[order] / 2) / len(groups)
    side = np.searchsorted(np.cumsum(fractions)[:2], middle, side="right")
    side_of_group = np.empty(len(counts), dtype=int)
    side_of_group[order] = side
    return np.array(NAMES)[side_of_group[groups]]


def _from_file(store: GraphStore, rows: np.ndarray, path: Path) -> np.ndarray:
    try:
        saved = json.loads(path.read_text())
        side_of = {str(id): name for name in NAMES for id in saved[name]}
    except FileNotFoundError:
        raise UserError(
            f"`split` {path}: neither a rule (random, formula, column:NAME) nor a file"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"`split` {path}: not a splits.json with lists of ids under {', '.join(NAMES)} "
            f"({type(error).__name__}: {error})"
        ) from None
    unknown = side_of.keys() - set(store.ids.tolist())
    if len(unknown) == len(side_of):
        raise UserError(
            f"`split` {path}: none of its ids, such as {next(iter(side_of), '')!r}, is in the data"
        )
    sides = np.array([side_of.get(id, "") for id in store.ids[rows].tolist()])
    if missing := len(side_of) - np.count_nonzero(sides):
        warn_once(
            f"`split` {path}: {missing:,} of its {len(side_of):,} crystals are not among those "
            "with the label, and are left out: errors may be of fewer test crystals than those of "
            "other runs by this split"
        )
    return sides
