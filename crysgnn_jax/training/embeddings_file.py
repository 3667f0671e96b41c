"""Files of embeddings: writing them, and a teacher whose atom embeddings were made elsewhere, by
whatever program, and lie in one."""

import dataclasses
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from crysgnn_jax.errors import UserError
from crysgnn_jax.extras import imported

if TYPE_CHECKING:
    from crysgnn_jax.training.predictor import Embeddings


def write_embeddings(file: IO[bytes], found: "Embeddings", *, hdf5: bool = False) -> None:
    """Write ``ids`` ``[n]``, ``n_atoms`` ``[n]``, ``embeddings`` ``[all atoms, d]`` and
    ``crystal_embeddings`` ``[n, d]``.

    Args:
      file: open for writing, and with ``hdf5`` for reading too.
      found: what is to be written.
      hdf5: as HDF5, with ids as UTF-8; else as ``.npz``.

    Raises:
      UserError: h5py is needed, and not installed.
    """
    arrays: dict[str, Any] = {
        "ids": found.ids,
        "n_atoms": found.n_atoms,
        "embeddings": found.atoms,
        "crystal_embeddings": found.crystals,
    }
    if not hdf5:
        np.savez_compressed(file, **arrays)
        return
    h5py = imported("h5py", "h5", "an .h5 file")
    with h5py.File(file, "w") as out:
        for name, values in arrays.items():
            if name == "ids":
                out.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
            else:
                out.create_dataset(name, data=values, compression="gzip")


@dataclasses.dataclass(frozen=True)
class EmbeddingsFile:
    """Atom embeddings of some crystals, by id: a teacher, but one that knows no others.

    Attributes:
      path: an ``.npz`` with the arrays ``ids`` ``[n]``, ``n_atoms`` ``[n]`` and ``embeddings``
        ``[all atoms, d]``, as the command ``embed`` writes them; the atoms of a crystal in the
        order of its file.
      fingerprint: hex digest of the file.

    Example:
      ``crysgnn distill --student cgcnn --data mine.npz --teacher embeddings.npz``
    """

    path: Path
    fingerprint: str
    _place: dict[str, int]
    _n_atoms: np.ndarray
    _offsets: np.ndarray
    _embeddings: np.ndarray

    @classmethod
    def load(cls, path: Path | str) -> "EmbeddingsFile":
        """
        Raises:
          UserError: the file is missing or damaged, lacks an array, or they do not fit together.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("ids", "n_atoms", "embeddings")}
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        except FileNotFoundError:
            raise UserError(f"`teacher` {path}: no such file") from None
        except KeyError as error:
            raise UserError(
                f"`teacher` {path} has no array {error.args[0].split()[0]}; it needs ids, n_atoms "
                "and embeddings"
            ) from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"`teacher` {path} is damaged ({error}); write it again") from None
        ids, n_atoms, embeddings = found["ids"], found["n_atoms"], found["embeddings"]
        if embeddings.ndim != 2 or len(ids) != len(n_atoms) or n_atoms.sum() != len(embeddings):
            raise UserError(
                f"`teacher` {path}: ids {ids.shape}, n_atoms {n_atoms.shape} (in all "
                f"{n_atoms.sum()}) and embeddings {embeddings.shape} do not fit together"
            )
        if not np.isfinite(embeddings).all():
            raise UserError(f"`teacher` {path}: some embeddings are not finite; make them again")
        place = {str(id): row for row, id in enumerate(ids.tolist())}
        if len(place) < len(ids):
            raise UserError(f"`teacher` {path}: some ids are there more than once")
        offsets = np.concatenate([[0], np.cumsum(n_atoms)]).astype(np.int64)
        return cls(path, digest, place, n_atoms, offsets, embeddings.astype(np.float32))

    def of(self, ids: Sequence[str], n_atoms_of: np.ndarray) -> np.ndarray:
        """Embeddings of every atom of some crystals, ``[all atoms, d]``.

        Args:
          ids: ``[n]``, of the crystals.
          n_atoms_of: ``[n]``, of each.

        Raises:
          UserError: the file lacks one of them, or has it with other atoms.
        """
        rows = []
        for id, n_atoms in zip(ids, n_atoms_of.tolist()):
            row = self._place.get(id)
            if row is None:
                raise UserError(
                    f"`teacher` {self.path} has no embeddings of {id}; make them for all crystals"
                )
            if self._n_atoms[row] != n_atoms:
                raise UserError(
                    f"`teacher` {self.path}: {id} has {self._n_atoms[row]} atoms there and "
                    f"{n_atoms} in the data; make both from the same structures"
                )
            rows.append(row)
        parts = [self._embeddings[self._offsets[row] : self._offsets[row + 1]] for row in rows]
        return np.concatenate(parts)
