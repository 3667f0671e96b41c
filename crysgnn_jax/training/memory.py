"""What a network that was trained without labels remembers of its crystals: hashes, to tell later
whether a student is tested on what its teacher has seen.

Of each crystal, a hash of the reduced formula, and four numbers of how it looks (`graphs.looks`):
the volume per atom, and the mean distances to the first, sixth and twelfth neighbour. Numbers are
compared with the tolerances of looks, so that another cell, a copy from another data base or a
relaxation with another functional is found. Formulas alone may be kept, and less of their hashes,
where bytes count: of 32 bits and 100,000 formulas, one formula in 43,000 is taken for a known one
by chance.

What has learned from another network without labels, or from its weights, has that one's memory as
well. A network that was trained on a property has none: that it knows labels is warned of anyway.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from crysgnn_jax.array_files import Damaged, read_arrays
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.duplicates import TOLERANCE
from crysgnn_jax.graphs.looks import DISPLACEMENT, N_NEIGHBOURS, Looks, looks_of_store
from crysgnn_jax.graphs.ragged import ragged
from crysgnn_jax.graphs.store import GraphStore
from crysgnn_jax.training import shipped

NEIGHBOURS = (1, 6, 12)
"""Which neighbours' distances are remembered."""

_SOME = 10_000
"""Crystals whose looks are computed at a time."""


class Seen(NamedTuple):
    """How many of some crystals a network has seen.

    Attributes:
      n: crystals.
      by_formula: of these, those with the reduced formula of one that it was trained on.
      by_structure: of these, those that look like one, too; None where only formulas are known.
    """

    n: int
    by_formula: int
    by_structure: int | None

    def counted(self, whose: str) -> str:
        """How many."""
        of_all = f"of the {self.n:,} test crystals"
        if self.by_structure is None:
            return f"{whose} has seen {self.by_formula:,} {of_all}, by formula"
        others = self.by_formula - self.by_structure
        return (
            f"{whose} has seen {self.by_structure:,} {of_all}, and {others:,} "
            f"other{'s' if others != 1 else ''} of the same formula"
        )

    def in_words(self, whose: str) -> str:
        """A warning: how many, and what to do."""
        return (
            f"{self.counted(whose)}: errors on what it knows are too small; keep them out with "
            "pretrain --exclude, or test on others"
        )


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a network was trained on, as far as it tells whether a crystal was among it.

    Attributes:
      bits: of a hash, up to 64.
      formulas: ``[n]`` uint64, ascending: hashes of reduced formulas.
      looks: ``[n, 4]`` float16, of the same crystals: volume per atom, Å³, and distances, Å; no
        rows where only formulas are known.
      inherited: of the networks that it has learned from.
    """

    bits: int
    formulas: np.ndarray
    looks: np.ndarray
    inherited: tuple["Memory", ...] = ()

    @classmethod
    def of(
        cls, store: GraphStore, rows: np.ndarray, inherited: Iterable["Memory | None"] = ()
    ) -> "Memory":
        """Of some crystals of a store, 16 bytes each, and of what else is known."""
        formulas = _hashes(store.reduced_formula[rows].tolist(), 64)
        looks = _in_short(store, rows)
        order = np.lexsort((*looks.T, formulas))
        known = tuple(memory for memory in inherited if memory is not None)
        return cls(64, formulas[order], looks[order], known)

    @classmethod
    def of_formulas(cls, formulas: Iterable[str], bits: int = 32) -> "Memory":
        """Of formulas alone: some 2 bytes each, of 32 bits."""
        found = np.unique(_hashes(sorted(set(formulas)), bits))
        return cls(bits, found, np.empty((0, 1 + len(NEIGHBOURS)), np.float16))

    def save(self, path: Path) -> None:
        """Write it to a ``.npz``: the same content gives the same bytes."""
        np.savez_compressed(path, **self._arrays())

    def _arrays(self) -> dict[str, Any]:
        """What is written, by name; of what is inherited, the names begin with its number."""
        steps = np.diff(self.formulas, prepend=np.uint64(0))
        # The higher bytes of small steps are few values, which pack well by themselves.
        planes = np.ascontiguousarray(steps.astype("<u8").view(np.uint8).reshape(-1, 8).T)
        arrays: dict[str, Any] = {"bits": np.array(self.bits), "steps": planes, "looks": self.looks}
        for k, memory in enumerate(self.inherited):
            arrays |= {f"{k}.{name}": array for name, array in memory._arrays().items()}
        return arrays

    @classmethod
    def load(cls, path: Path, content: IO[bytes] | None = None) -> "Memory":
        """What `save` wrote.

        Args:
          path: of the file.
          content: of it, where it lies within another one.

        Raises:
          UserError: the file is damaged.
        """
        try:
            found = read_arrays(path if content is None else content)
            return cls._of_arrays(found)
        except (OSError, Damaged, KeyError, TypeError, ValueError) as error:
            remedy = shipped.remedy_for(path)
            raise UserError(f"{path} is damaged ({error}); {remedy}") from None

    @classmethod
    def _of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Memory":
        steps = np.ascontiguousarray(arrays["steps"].T).view("<u8").ravel()
        of: dict[int, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            number, dot, rest = name.partition(".")
            if dot:
                of.setdefault(int(number), {})[rest] = array
        return cls(
            int(arrays["bits"]),
            np.cumsum(steps, dtype=np.uint64),
            arrays["looks"],
            tuple(cls._of_arrays(of[number]) for number in sorted(of)),
        )

    def seen(self, store: GraphStore, rows: np.ndarray) -> Seen:
        """How many of some crystals of a store were among those of training."""
        all_of_them = list(self._generations())
        by_formula, by_structure = np.zeros((2, len(rows)), bool)
        for memory in all_of_them:
            known, alike = memory._which(store, rows)
            by_formula |= known
            by_structure |= alike
        only_formulas = not any(len(memory.looks) for memory in all_of_them)
        n_alike = None if only_formulas else int(by_structure.sum())
        return Seen(len(rows), int(by_formula.sum()), n_alike)

    def _generations(self) -> Iterator["Memory"]:
        """This one, and all that it has inherited."""
        yield self
        for memory in self.inherited:
            yield from memory._generations()

    def _which(self, store: GraphStore, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``[len(rows)]`` bool each: which are known by formula, and which look like one that is;
        of this one, without what it has inherited."""
        first, counts = self._found(store.reduced_formula[rows].tolist())
        by_formula, by_structure = counts > 0, np.zeros(len(rows), bool)
        known = np.flatnonzero(by_formula)
        if not len(self.looks) or not len(known):
            return by_formula, by_structure
        counts = counts[known]
        theirs = self.looks[ragged(first[known], counts)].astype(np.float64)
        ours = np.repeat(_in_short(store, rows[known]).astype(np.float64), counts, axis=0)
        allowed = TOLERANCE * ours + DISPLACEMENT
        allowed[:, 0] = 3 * TOLERANCE * ours[:, 0]
        alike = (np.abs(ours - theirs) <= allowed).all(axis=1)
        starts = np.cumsum(counts) - counts
        by_structure[known] = np.logical_or.reduceat(alike, starts)
        return by_formula, by_structure

    def knows(self, formulas: Sequence[str]) -> np.ndarray:
        """``[len(formulas)]`` bool: which reduced formulas were among those of training.

        Example:
          ``cg.load("crysgnn-mp").memory.knows(["Cl1Na1"])``
        """
        found = [memory._found(formulas)[1] > 0 for memory in self._generations()]
        return np.logical_or.reduce(found)

    def _found(self, formulas: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Of each formula the first place in `formulas`, and how many there are from there on."""
        hashes = _hashes(formulas, self.bits)
        first, end = (np.searchsorted(self.formulas, hashes, side) for side in ("left", "right"))
        return first, end - first


def _hashes(formulas: Sequence[str], bits: int) -> np.ndarray:
    """``[n]`` uint64"""
    digest = lambda text: hashlib.blake2b(text.encode(), digest_size=8).digest()
    found = np.frombuffer(b"".join(map(digest, formulas)), ">u8").astype(np.uint64)
    return found >> np.uint64(64 - bits)


def _in_short(store: GraphStore, rows: np.ndarray) -> np.ndarray:
    """``[n, 4]`` float16: volumes per atom, and means over the elements of some distances."""
    out = np.empty((len(rows), 1 + len(NEIGHBOURS)), np.float16)
    for start in range(0, len(rows), _SOME):
        looks = looks_of_store(store, rows[start : start + _SOME])
        for size in np.unique(looks.counts).tolist():
            of_size = np.flatnonzero(looks.counts == size)
            out[start + of_size] = _of_looks(looks, of_size)
    return out


def _of_looks(looks: Looks, rows: np.ndarray) -> np.ndarray:
    values = looks.of(rows)
    n_distances = N_NEIGHBOURS * (round((values.shape[1] + 35) ** 0.5) - 6)
    distances = values[:, 1 : 1 + n_distances].reshape(len(rows), -1, N_NEIGHBOURS).mean(axis=1)
    return np.column_stack([values[:, 0], distances[:, [k - 1 for k in NEIGHBOURS]]])
