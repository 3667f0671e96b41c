"""Small crystals, and batches of them without a store on disk."""

import numpy as np

from crysgnn_jax.batches.budget import Budget, Sizes
from crysgnn_jax.batches.loader import Batcher
from crysgnn_jax.crystals.crystal import Crystal


def rocksalt(a=5.64, species=(11, 17), id="NaCl", **kwargs):
    """Conventional cell, 8 atoms; every shell is tied."""
    base = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    coords = np.concatenate([base, base + [0.5, 0, 0]])
    return Crystal(id, np.repeat(species, 4), coords, a * np.eye(3), **kwargs)


def fcc(a=4.05, species=13, id="Al", **kwargs):
    """Primitive cell, 1 atom."""
    lattice = a / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal(id, [species], np.zeros((1, 3)), lattice, **kwargs)


def caesium_chloride(a=4.12, species=(55, 17), id="CsCl", **kwargs):
    """2 atoms; the 12 nearest cut through a shell of 6 after one of 8."""
    return Crystal(id, species, [[0, 0, 0], [0.5, 0.5, 0.5]], a * np.eye(3), **kwargs)


def perovskite(a=3.9, id="SrTiO3", **kwargs):
    """5 atoms with exact ties."""
    coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal(id, [38, 22, 8, 8, 8], coords, a * np.eye(3), **kwargs)


def random_crystal(n_atoms, seed=0, id="random", **kwargs):
    """A triclinic cell of about 15 Å³ an atom with atoms at least 1 Å apart."""
    generator = np.random.default_rng(seed)
    lattice = (15.0 * n_atoms) ** (1 / 3) * (np.eye(3) + 0.15 * generator.normal(size=(3, 3)))
    coords: list[np.ndarray] = []
    while len(coords) < n_atoms:
        new = generator.random(3)
        shifts = [(new - old + 0.5) % 1 - 0.5 for old in coords]
        if all(np.linalg.norm(shift @ lattice) > 1.0 for shift in shifts):
            coords.append(new)
    return Crystal(id, generator.integers(1, 90, n_atoms), np.array(coords), lattice, **kwargs)


def collection(n=24, label="energy", seed=0):
    """``n`` crystals of 1 to 20 atoms with a label that follows from the composition."""
    generator = np.random.default_rng(seed)
    out = []
    for i in range(n):
        crystal = random_crystal(int(generator.integers(1, 21)), seed=seed + i, id=f"c{i}")
        value = float(np.mean(crystal.species)) / 30
        out.append(
            Crystal(f"c{i}", crystal.species, crystal.frac_coords, crystal.lattice, {label: value})
        )
    return out


def batcher_for_all(store, *, graphs=None, lists=(), more=0, **columns):
    """Batches that all crystals of a store fit into, with room for ``more`` of each quantity."""
    graphs = store.full if graphs is None else graphs
    names = tuple(n for name in lists for n in (("blocks", name) if name == "pairs" else (name,)))
    nodes, edges, n, *extra = Sizes.of_graphs(graphs, names).table.sum(axis=0).tolist()
    room = {name: size + more for name, size in zip(names, extra)}
    budget = Budget(nodes + 1 + more, edges + more, n + 1 + more, room)
    return Batcher(store, budget, graphs=graphs, **columns)


def one_batch(store, **how):
    """All crystals of a store as one batch, see `batcher_for_all`."""
    return batcher_for_all(store, **how)(np.arange(len(store)))
