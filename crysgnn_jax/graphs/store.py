"""The graph store: the graphs of a whole source, built once and memory-mapped afterwards.

A store is a directory, named by a fingerprint of its content, of NumPy columns::

    meta.json              what it was made from, the crystals left out, sizes and checksums
    verified.json          which columns have been found whole, see `checksums`
    ids.npy                [n] text
    reduced_formula.npy    [n] text
    space_group.npy        [n] uint8, international number
    lattice.npy            [n, 3, 3] float64, lattice vectors as rows, Å
    node_offsets.npy       [n + 1] int64: the atoms of crystal k are node_offsets[k:k + 2]
    edge_offsets.npy       [n + 1] int64, the same for its edges
    species.npy            [N] uint8, atomic numbers
    frac_coords.npy        [N, 3] float64
    degree.npy             [N] uint16, edges that each atom receives
    senders.npy            [E] int32, neighbour of each edge, counted within the crystal
    distances.npy          [E] float32, Å
    vectors.npy            [E, 3] float32, Å, from the receiver to the image of the sender
    site_offsets.npy       [n + 1] int64: the sites of crystal k, see `reduction`
    bond_offsets.npy       [n + 1] int64, the same for its bonds
    pair_offsets.npy       [n + 1] int64, the same for its kinds of pairs
    triplet_offsets.npy    [n + 1] int64, the same for its triplets, of graphs by bonds alone
    site.npy …             the ragged columns of `reduction.Reduction`
    labels/<name>.npy      [n] float64, NaN where the label is missing
    tags/<name>.npy        [n] text, empty where the tag is missing

The edges of a crystal are sorted by receiver, so ``degree`` says which receiver each has.
"""

import functools
import hashlib
import json
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crysgnn_jax.checksums import first_damaged
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_text
from crysgnn_jax.graphs.ragged import Graphs, Ragged
from crysgnn_jax.graphs.reduction import reduce_graphs
from crysgnn_jax.graphs.settings import FeaturiserSettings

CONTENT = 3
"""Raise this when a store of the same source and settings would come out different: also by the
constants of `neighbours`, `equivalence` and `reduction`."""

FORMAT = 3
"""Raise this when the same content is kept in another way: stores of before are built again, and
the runs that were made with them go on."""

CRYSTAL_COLUMNS = ("ids", "reduced_formula", "space_group", "lattice")
NODE_COLUMNS = ("species", "frac_coords", "degree")
EDGE_COLUMNS = ("senders", "distances", "vectors")
_SITE_COLUMNS = ("site_species", "multiplicity", "site_degree")
_BOND_COLUMNS = ("bond_senders", "bond_distances", "bond_multiplicity")
_PAIR_COLUMNS = ("pair_receivers", "pair_senders", "pair_edges", "pair_multiplicity")
_TRIPLET_COLUMNS = (
    "triplet_senders",
    "triplet_receivers",
    "triplet_cosines",
    "triplet_multiplicity",
)

RAGGED = {
    "n_nodes": (*NODE_COLUMNS, "site"),
    "n_edges": EDGE_COLUMNS,
    "n_sites": _SITE_COLUMNS,
    "n_bonds": _BOND_COLUMNS,
    "n_pairs": _PAIR_COLUMNS,
    "n_triplets": _TRIPLET_COLUMNS,
}
"""Number of entries of each crystal → the columns that have so many."""

OFFSETS = {
    "node_offsets": "n_nodes",
    "edge_offsets": "n_edges",
    "site_offsets": "n_sites",
    "bond_offsets": "n_bonds",
    "pair_offsets": "n_pairs",
    "triplet_offsets": "n_triplets",
}


def _column(name: str) -> functools.cached_property:
    """The column of this name, memory-mapped when it is first asked for."""
    return functools.cached_property(lambda store: store.column(name))


class GraphStore:
    """A finished store, opened for reading.

    The columns are memory-mapped on first use; see the module's description of them.

    Attributes:
      path: the directory.
      fingerprint: of the source and the settings.
      source_name: name of the source it was made from.
      settings: how the graphs were made.
      label_names: the properties that `labels` knows.
      tag_names: the tags that `tags` knows.
      skipped: ``(id, reason)`` of each crystal that was left out.
      notes: ``(id, note)`` of what a user should know of a crystal that was not left out; the id
        is empty where it is about the data as a whole.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any]):
        self.path = path
        self.fingerprint: str = meta["fingerprint"]
        self.source_name: str = meta["source"]
        self.settings = FeaturiserSettings(**meta["settings"])
        self.label_names: tuple[str, ...] = tuple(meta["label_names"])
        self.tag_names: tuple[str, ...] = tuple(meta["tag_names"])
        self.skipped: list[tuple[str, str]] = [(id, reason) for id, reason in meta["skipped"]]
        self.notes: list[tuple[str, str]] = [(id, note) for id, note in meta["notes"]]
        self._n_crystals: int = meta["n_crystals"]

    def __len__(self) -> int:
        return self._n_crystals

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.source_name!r}, {len(self)} crystals, {str(self.path)!r})"
        )

    ids = _column("ids")
    reduced_formula = _column("reduced_formula")
    space_group = _column("space_group")
    lattice = _column("lattice")
    node_offsets = _column("node_offsets")
    edge_offsets = _column("edge_offsets")
    species = _column("species")
    frac_coords = _column("frac_coords")
    degree = _column("degree")
    senders = _column("senders")
    distances = _column("distances")
    vectors = _column("vectors")
    site_offsets = _column("site_offsets")
    bond_offsets = _column("bond_offsets")
    site = _column("site")
    site_species = _column("site_species")
    multiplicity = _column("multiplicity")
    site_degree = _column("site_degree")
    bond_senders = _column("bond_senders")
    bond_distances = _column("bond_distances")
    bond_multiplicity = _column("bond_multiplicity")

    @functools.cached_property
    def full(self) -> Graphs:
        """The graphs with every atom and edge: each node and edge stands for itself."""
        one = lambda n: np.broadcast_to(np.int32(1), (int(n),))
        return Graphs(
            node_offsets=self.node_offsets,
            edge_offsets=self.edge_offsets,
            species=self.species,
            degree=self.degree,
            senders=self.senders,
            node_counts=one(self.node_offsets[-1]),
            edge_counts=one(self.edge_offsets[-1]),
            edges={"distances": self.distances, "vectors": self.vectors},
            atom_offsets=self.node_offsets,
            site=np.arange(self.node_offsets[-1]) - np.repeat(self.node_offsets[:-1], self.n_nodes),
            lists={
                "pairs": lambda: self._full_list("pair", None),
                "triplets": lambda: self._full_list("triplet", self.vectors),
            },
        )

    @functools.cached_property
    def reduced(self) -> Graphs:
        """The graphs with one node for all equivalent atoms; their edges have no vectors."""
        return Graphs(
            node_offsets=self.site_offsets,
            edge_offsets=self.bond_offsets,
            species=self.site_species,
            degree=self.site_degree,
            senders=self.bond_senders,
            node_counts=self.multiplicity,
            edge_counts=self.bond_multiplicity,
            edges={"distances": self.bond_distances},
            atom_offsets=self.node_offsets,
            site=self.site,
            lists={
                "pairs": lambda: _list("pair", self.column("pair_offsets"), self.column),
                "triplets": self._reduced_triplets,
            },
        )

    @functools.cached_property
    def n_nodes(self) -> np.ndarray:
        """``[n]`` int64, atoms of each crystal."""
        return np.diff(self.node_offsets)

    @functools.cached_property
    def n_edges(self) -> np.ndarray:
        """``[n]`` int64, edges of each crystal."""
        return np.diff(self.edge_offsets)

    def crystal(self, row: int) -> Crystal:
        """The structure of one crystal, without its labels and tags."""
        atoms = slice(self.node_offsets[row], self.node_offsets[row + 1])
        return Crystal(
            str(self.ids[row]),
            np.array(self.species[atoms]),
            np.array(self.frac_coords[atoms]),
            np.array(self.lattice[row]),
        )

    def labels(self, name: str) -> np.ndarray:
        """``[n]`` float64, the label of each crystal; NaN where it has none.

        Raises:
          UserError: the store has no such label; lists those it has.
        """
        return self._named_column("labels", name, self.label_names)

    def tags(self, name: str) -> np.ndarray:
        """``[n]`` text, the tag of each crystal; empty where it has none.

        Raises:
          UserError: the store has no such tag; lists those it has.
        """
        return self._named_column("tags", name, self.tag_names)

    def _named_column(self, folder: str, name: str, known: Sequence[str]) -> np.ndarray:
        if name not in known:
            raise UserError(
                f"{self.source_name} has no {name!r} among its {folder}: "
                f"{', '.join(known) or 'it has none'}"
            )
        return self._known_column(folder, name)

    def _full_list(self, kind: str, vectors: np.ndarray | None) -> Ragged:
        """Of the whole graphs, which a store does not keep: some 100 bytes a triplet of memory."""
        found = reduce_graphs(
            *(self.n_nodes, self.n_edges, self.species, self.degree),
            *(self.senders, self.distances, vectors),
            identity=True,
        )._asdict()
        offsets = np.append(0, np.cumsum(found[f"n_{kind}s"]))
        return _list(kind, offsets, found.__getitem__)

    def _reduced_triplets(self) -> Ragged:
        if self.settings.rule != "bonds":
            raise UserError(
                f"`rule` {self.settings.rule}: reduced graphs keep angles between bonds alone; "
                "leave it out, or take bonds"
            )
        return _list("triplet", self.column("triplet_offsets"), self.column)

    def _known_column(self, folder: str, name: str) -> np.ndarray:
        return self.column(column_file(folder, name))

    def column(self, name: str) -> np.ndarray:
        """The column of this name, one of those that the module's description lists."""
        return np.load(self.path / f"{name}.npy", mmap_mode="r")


def _list(kind: str, offsets: np.ndarray, column: Callable[[str], np.ndarray]) -> Ragged:
    """The pairs or triplets of graphs, under the names of `ragged.Graphs.list`."""
    ends = {name: column(f"{kind}_{name}") for name in ("receivers", "senders")}
    own = ("n_edges", "pair_edges") if kind == "pair" else ("cosines", "triplet_cosines")
    columns = {**ends, own[0]: column(own[1]), "count": column(f"{kind}_multiplicity")}
    numbers = {"of_nodes" if kind == "pair" else "of_edges": tuple(ends)}
    return Ragged(offsets, columns, **numbers)


def open_store(path: str | Path) -> GraphStore:
    """The finished store in the directory ``path``.

    Raises:
      UserError: there is none, it has another format, or a file is missing or damaged.
    """
    path = Path(path)
    remedy = "build it again with build_store"
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        found = meta["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is not a graph store: it has no meta.json; {remedy}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path / 'meta.json'} cannot be read ({error}); {remedy}") from error
    if found != FORMAT:
        raise UserError(f"{path} has store format {found}, not {FORMAT}; {remedy}")
    if meta.pop("checksum", None) != _checksum(meta):
        raise UserError(f"{path / 'meta.json'} is damaged: it is not as written; {remedy}")
    if (damage := first_damaged(path, meta["files"])) is not None:
        raise UserError(f"{path} is damaged: {damage}; {remedy}")
    return GraphStore(path, meta)


def write_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Write ``meta.json`` of the store in the directory ``path``, the last of its files.

    Raises:
      OSError: it cannot be written.
    """
    meta = json.loads(json.dumps(meta))
    write_text(path / "meta.json", json.dumps({**meta, "checksum": _checksum(meta)}, indent=1))


def _checksum(meta: Mapping[str, Any]) -> str:
    text = json.dumps(meta, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def column_file(folder: str, name: str) -> str:
    """Column of a label or tag; names may hold characters that file names cannot, or be longer."""
    quoted = urllib.parse.quote(name, safe=" ()[]")
    if len(quoted) > 200:
        quoted = f"{quoted[:150]}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
    return f"{folder}/{quoted}"
