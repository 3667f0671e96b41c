"""Crystals for tests of curation, of which some are bad, slow or deadly."""

import dataclasses
import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import InvalidCrystal


@dataclasses.dataclass(frozen=True)
class Item:
    """A CsCl-type crystal.

    Attributes:
      id: of it.
      edge: Å, of its cube.
      fault: what is wrong with it.
      delay: seconds that reading it takes.
      log: file that is told of each reading.
      cells: cubes in a row.
    """

    id: str
    edge: float
    fault: str | None = None
    delay: float = 0.0
    log: Path | None = None
    cells: int = 1


def decode(item):
    time.sleep(item.delay)
    if item.log is not None:
        with open(item.log, "a") as file:
            file.write(f"{item.id}\n")
    if item.fault == "unreadable":
        raise InvalidCrystal(item.id, "it cannot be read")
    if item.fault == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.fault == "deadly once" and not item.log.with_suffix(".dead").exists():
        item.log.with_suffix(".dead").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    coords = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    coords = np.concatenate([coords + [k, 0, 0] for k in range(item.cells)]) / [item.cells, 1, 1]
    lattice = item.edge * np.diag([item.cells, 1, 1])
    labels = {"energy": -item.edge} if item.edge > 4 else {}
    tags = {"split": "train"} if item.edge < 5 else {}
    return Crystal(item.id, [55, 17] * item.cells, coords, lattice, labels, tags)


class Listed:
    """Some of these as a source."""

    label_names = ("energy", "gap (eV)")
    decode = staticmethod(decode)

    def __init__(self, items, name="listed"):
        self._items = items
        self.name = name

    def __len__(self):
        return len(self._items)

    def fingerprint(self):
        content = repr([(x.id, x.edge, x.fault, x.cells) for x in self._items])
        return hashlib.sha256(content.encode()).hexdigest()

    def ids(self):
        return np.array([item.id for item in self._items])

    def labelled(self, label):
        return np.array([label == "energy" and item.edge > 4 for item in self._items])

    def items(self, start, stop):
        return self._items[start:stop]


def listed(n=20, faults=None, name="listed", prefix="c", first=3.0, **options):
    """``n`` crystals that differ from each other by more than the tolerance."""
    faults = faults or {}
    items = [Item(f"{prefix}-{k}", first * 1.05**k, faults.get(k), **options) for k in range(n)]
    return Listed(items, name)
