"""Neighbour lists against a brute-force search, and their independence of the description."""

import itertools

import numpy as np
import pytest

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.errors import InvalidCrystal, UserError
from crysgnn_jax.graphs import neighbour_search
from crysgnn_jax.graphs import neighbours as neighbours_module
from crysgnn_jax.graphs.neighbours import neighbour_list, neighbour_lists
from crysgnn_jax.graphs.settings import FeaturiserSettings
from golden import load

KEEP = FeaturiserSettings()
CUT = FeaturiserSettings(ties="cut")
BONDS = FeaturiserSettings(rule="bonds")


def _crystal(species, frac_coords, lattice):
    return Crystal("test", np.array(species), np.array(frac_coords), np.array(lattice))


FCC = _crystal([29], [[0, 0, 0]], 3.6 * np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]))
BCC = _crystal([26], [[0, 0, 0]], 2.9 / 2 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]))
CSCL = _crystal([55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.1 * np.eye(3))
PEROVSKITE = _crystal(
    [38, 22, 8, 8, 8],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    3.9 * np.eye(3),
)
HCP = _crystal(
    [12, 12],
    [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]],
    3.2 * np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]]),
)
SYMMETRIC = {"fcc": FCC, "bcc": BCC, "CsCl": CSCL, "perovskite": PEROVSKITE, "hcp": HCP}


def _random_crystal(lattice, n_atoms, seed):
    """Atoms at random in and outside the cell, at least 1 Å from each other and their images."""
    rng = np.random.default_rng(seed)
    while True:
        coords = rng.uniform(-2, 3, (n_atoms, 3))
        crystal = _crystal(rng.integers(1, 90, n_atoms), coords, lattice)
        if not any(_all_pairs(crystal, 1.0)):
            return crystal


def _all_pairs(crystal, cutoff):
    """Per atom, ``(sender, distance, vector)`` of every image within the cutoff, sorted by
    distance: plain loops over enough images."""
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    wrapped = crystal.frac_coords % 1
    ranges = [range(-m, m + 1) for m in np.ceil(cutoff / heights).astype(int) + 1]
    images = np.array(list(itertools.product(*ranges)))
    result = []
    for i, centre in enumerate(wrapped):
        pairs = []
        for j, other in enumerate(wrapped):
            vectors = (other + images - centre) @ crystal.lattice
            distances = np.linalg.norm(vectors, axis=1)
            within = (distances <= cutoff) & ~((i == j) & (images == 0).all(axis=1))
            pairs += zip([j] * within.sum(), distances[within], vectors[within])
        result.append(sorted(pairs, key=lambda pair: pair[1]))
    return result


SKEWED = [[3.1, 0, 0], [7.4, 3.3, 0], [-5.2, 8.8, 4.0]]
LEFT_HANDED = [[0, 4.1, 0.2], [3.7, 0, 0.1], [0.3, 0.5, 5.2]]
CASES = {
    "one atom, cubic": _random_crystal(2.6 * np.eye(3), 1, 0),
    "one atom, skewed": _random_crystal(SKEWED, 1, 1),
    "three atoms, skewed": _random_crystal(SKEWED, 3, 2),
    "left-handed": _random_crystal(LEFT_HANDED, 4, 3),
    "needle": _random_crystal(np.diag([2.2, 2.3, 41.0]), 5, 4),
    "slab with vacuum": _random_crystal(np.diag([3.0, 3.1, 20.0]), 2, 5),
    "sparse": _random_crystal(np.diag([9.0, 11.0, 10.0]), 4, 6),
    "many": _random_crystal(np.diag([8.0, 7.0, 9.0]), 20, 7),
}


def _edges_by_atom(crystal, settings):
    neighbours = neighbour_list(crystal, settings)
    return [
        {name: values[neighbours.receivers == i] for name, values in neighbours._asdict().items()}
        for i in range(len(crystal.species))
    ]


@pytest.mark.parametrize("name", CASES)
def test_matches_brute_force(name):
    crystal = CASES[name]
    edges = _edges_by_atom(crystal, CUT)
    for mine, pairs in zip(edges, _all_pairs(crystal, CUT.cutoff), strict=True):
        pairs = pairs[: CUT.n_neighbours]
        assert len(mine["senders"]) == len(pairs)
        distances = np.array([distance for _, distance, _ in pairs])
        np.testing.assert_allclose(mine["distances"], distances, atol=1e-5)
        # Each edge is the pair with its vector, wherever equal distances put it.
        for sender, vector in zip(mine["senders"], mine["vectors"]):
            assert any(
                sender == other and np.allclose(vector, expected, atol=1e-5)
                for other, _, expected in pairs
            )


@pytest.mark.parametrize("n_neighbours, cutoff", [(1, 8.0), (4, 2.7), (40, 6.0), (200, 8.0)])
def test_matches_brute_force_with_other_settings(n_neighbours, cutoff):
    crystal = CASES["many"]
    settings = FeaturiserSettings(n_neighbours=n_neighbours, cutoff=cutoff, ties="cut")
    for mine, pairs in zip(_edges_by_atom(crystal, settings), _all_pairs(crystal, cutoff)):
        expected = [distance for _, distance, _ in pairs[:n_neighbours]]
        np.testing.assert_allclose(mine["distances"], expected, atol=1e-5)


def test_vectors_lead_from_receiver_to_sender():
    # One neighbour each, 1.5 Å along +x from atom 0 to atom 1.
    crystal = _crystal([6, 8], [[0.1, 0.5, 0.5], [0.25, 0.5, 0.5]], 10.0 * np.eye(3))
    neighbours = neighbour_list(crystal, FeaturiserSettings(n_neighbours=1))
    np.testing.assert_array_equal(neighbours.receivers, [0, 1])
    np.testing.assert_array_equal(neighbours.senders, [1, 0])
    np.testing.assert_allclose(neighbours.vectors, [[1.5, 0, 0], [-1.5, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(neighbours.distances, [1.5, 1.5], rtol=1e-6)


def test_arrays_are_sorted_and_typed():
    neighbours = neighbour_list(CASES["many"], KEEP)
    assert [array.dtype for array in neighbours] == [np.int32, np.int32, np.float32, np.float32]
    steps = np.diff(neighbours.receivers)
    assert (steps >= 0).all()
    assert (np.diff(neighbours.distances)[steps == 0] >= 0).all()


def test_isolated_atom_has_no_edges():
    neighbours = neighbour_list(_crystal([2], [[0.3, 0.3, 0.3]], 30.0 * np.eye(3)), KEEP)
    assert [array.shape for array in neighbours] == [(0,), (0,), (0,), (0, 3)]


def test_fewer_neighbours_than_asked_for():
    # Of a cubic cell of 7 Å only the six nearest images are within 8 Å.
    neighbours = neighbour_list(_crystal([2], [[0, 0, 0]], 7.0 * np.eye(3)), KEEP)
    np.testing.assert_allclose(neighbours.distances, np.full(6, 7.0))


def test_neighbours_exactly_at_the_cutoff_count():
    turned = 8.0 * np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert len(neighbour_list(_crystal([2], [[0, 0, 0]], 8.0 * np.eye(3)), KEEP).senders) == 6
    assert len(neighbour_list(_crystal([2], [[0.1, 0.2, 0.3]], turned), KEEP).senders) == 6


def test_kept_ties_complete_the_shell():
    # bcc has shells of 8, 6 and 12 neighbours: the 12th is in the second, 2.9 Å away.
    neighbours = neighbour_list(BCC, KEEP)
    expected = [2.9 * np.sqrt(3) / 2] * 8 + [2.9] * 6
    np.testing.assert_allclose(neighbours.distances, expected, rtol=1e-6)
    assert len(neighbour_list(BCC, CUT).distances) == 12


def test_tie_tolerance():
    # Neighbours of atom 0 at 2, 2.0005 and 2.5 Å.
    x = np.array([0, 2, -2.0005, 0]) / 20
    y = np.array([0, 0, 0, 2.5]) / 20
    crystal = _crystal([1, 2, 3, 4], np.stack([x, y, 0 * x], axis=1), 20.0 * np.eye(3))

    def degree(**settings):
        neighbours = neighbour_list(crystal, FeaturiserSettings(n_neighbours=1, **settings))
        return int((neighbours.receivers == 0).sum())

    assert degree(tie_tolerance=1e-3) == 2
    assert degree(tie_tolerance=1e-4) == 1
    assert degree(tie_tolerance=0.6) == 3
    assert degree(ties="cut") == 1


def test_cut_ties_follow_the_order_of_the_atoms():
    # Atom 0 at the centre of a regular octahedron; three of its six corners.
    corners = 2.0 * np.concatenate([np.eye(3), -np.eye(3)]) / 15
    crystal = _crystal([9] * 7, np.concatenate([np.zeros((1, 3)), corners]), 15.0 * np.eye(3))
    neighbours = neighbour_list(crystal, FeaturiserSettings(n_neighbours=3, ties="cut"))
    np.testing.assert_array_equal(neighbours.senders[neighbours.receivers == 0], [1, 2, 3])


def _environments(crystal, settings=KEEP, repeats=1):
    """Sorted ``(species, distances, neighbour species by distance)`` of all atoms, each
    ``repeats`` times; distances to 10⁻⁴ Å."""
    environments = []
    for atom, edges in zip(crystal.species, _edges_by_atom(crystal, settings)):
        shell = sorted(
            (round(float(d), 4), int(crystal.species[j]))
            for d, j in zip(edges["distances"], edges["senders"])
        )
        environments += [(int(atom), shell)] * repeats
    return sorted(environments)


def _permuted(crystal, rng):
    order = rng.permutation(len(crystal.species))
    return _crystal(crystal.species[order], crystal.frac_coords[order], crystal.lattice)


def _shifted(crystal, rng):
    return _crystal(crystal.species, crystal.frac_coords + rng.normal(size=3), crystal.lattice)


def _turned(crystal, rng):
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return _crystal(crystal.species, crystal.frac_coords, crystal.lattice @ rotation)


def _other_basis(crystal, rng):
    basis = np.array([[1, 1, 0], [0, 1, 2], [0, 0, 1]])
    return _crystal(
        crystal.species, crystal.frac_coords @ np.linalg.inv(basis), basis @ crystal.lattice
    )


@pytest.mark.parametrize("settings", [KEEP, BONDS], ids=["nearest", "bonds"])
@pytest.mark.parametrize("change", [_permuted, _shifted, _turned, _other_basis])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_kept_ties_do_not_depend_on_the_description(name, change, settings):
    crystal = SYMMETRIC[name]
    for seed in range(5):
        changed = change(crystal, np.random.default_rng(seed))
        assert _environments(changed, settings) == _environments(crystal, settings)


@pytest.mark.parametrize("settings", [KEEP, BONDS], ids=["nearest", "bonds"])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_kept_ties_do_not_depend_on_the_cell(name, settings):
    crystal = SYMMETRIC[name]
    images = np.array(list(itertools.product([0, 1], [0, 1, 2], [0])))
    repeats = np.array([2, 3, 1])
    supercell = _crystal(
        np.tile(crystal.species, 6),
        np.concatenate([(crystal.frac_coords + image) / repeats for image in images]),
        crystal.lattice * repeats[:, None],
    )
    assert _environments(supercell, settings) == _environments(crystal, settings, repeats=6)


ISOLATED = _crystal([2], [[0.3, 0.3, 0.3]], 50.0 * np.eye(3))
MOLECULE_AND_ATOM = _crystal(
    [8, 1, 1, 2],
    [[0, 0, 0], [0.024, 0.0, 0.015], [-0.024, 0.0, 0.015], [0.5, 0.5, 0.5]],
    40.0 * np.eye(3),
)


def _directed(neighbours):
    """Each edge as ``(receiver, sender, vector)``, vectors to 10⁻³ Å; sorted, so that edges that
    are there twice count twice."""
    vectors = np.round(neighbours.vectors.astype(float), 3) + 0.0
    return sorted(zip(neighbours.receivers, neighbours.senders, map(tuple, vectors)))


@pytest.mark.parametrize(
    "crystal",
    [*CASES.values(), *SYMMETRIC.values(), ISOLATED, MOLECULE_AND_ATOM],
    ids=[*CASES, *SYMMETRIC, "isolated", "molecule and atom"],
)
def test_bonds_match_brute_force(crystal):
    # Enough for 12 neighbours in every direction from any atom of these cells.
    shortest = np.linalg.norm(crystal.lattice, axis=1).min()
    pairs = _all_pairs(crystal, max(8.0, 1.5 * shortest))
    reach = [row[11][1] + 1e-3 for row in pairs]
    expected = sorted(
        (i, j, tuple(np.round(vector, 3) + 0.0))
        for i, row in enumerate(pairs)
        for j, distance, vector in row
        if distance <= max(reach[i], reach[j])
    )
    neighbours = neighbour_list(crystal, BONDS)
    found = _directed(neighbours)
    assert [edge[:2] for edge in found] == [edge[:2] for edge in expected]
    for (*_, mine), (*_, theirs) in zip(found, expected):
        np.testing.assert_allclose(mine, theirs, atol=2e-3)
    assert (np.bincount(neighbours.receivers) >= 12).all()
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", [*CASES, *SYMMETRIC])
def test_every_bond_leads_both_ways(name):
    there = neighbour_list({**CASES, **SYMMETRIC}[name], BONDS)
    back = there._replace(receivers=there.senders, senders=there.receivers, vectors=-there.vectors)
    assert _directed(back) == _directed(there)
    assert (np.diff(there.receivers) >= 0).all()
    assert (np.diff(there.distances)[np.diff(there.receivers) == 0] >= 0).all()


def test_bonds_to_own_images_by_hand():
    # Shells of a simple cubic lattice: 6 at a, and the 12th is among the 12 at √2 a; each is one
    # bond and its reverse, the image on the other side.
    neighbours = neighbour_list(_crystal([84], [[0, 0, 0]], 3.4 * np.eye(3)), BONDS)
    np.testing.assert_allclose(neighbours.distances, [3.4] * 6 + [3.4 * np.sqrt(2)] * 12)
    assert len(set(_directed(neighbours))) == 18


def test_a_bond_that_one_atom_asks_for_leads_both_ways():
    # Atom 0 amid a shell of three; a fourth atom, far off, has it among its 2 nearest.
    coords = [[0, 0, 0], [2, 0, 0], [0, 2.1, 0], [0, 0, 2.2], [-5, 0, 0]]
    crystal = _crystal([1, 2, 3, 4, 5], np.array(coords) / 40, 40.0 * np.eye(3))
    settings = FeaturiserSettings(rule="bonds", n_neighbours=2)
    edges = [(i, j) for i, j, _ in _directed(neighbour_list(crystal, settings))]
    assert [j for i, j in edges if i == 4] == [0, 2]
    assert [j for i, j in edges if i == 0] == [1, 2, 3, 4]


def test_cutoff_grows_for_bonds():
    for cutoff in (3.0, 8.0, 100.0):
        settings = FeaturiserSettings(rule="bonds", cutoff=cutoff)
        distances = neighbour_list(ISOLATED, settings).distances
        np.testing.assert_allclose(distances, [50.0] * 6 + [50 * np.sqrt(2)] * 12, rtol=1e-6)


@pytest.mark.parametrize("lattice", [(900, 900, 0.6), (900, 2, 2), (900, 900, 900)])
def test_bonds_in_very_long_cells(lattice):
    neighbours = neighbour_list(_crystal([6], [[0, 0, 0]], np.diag(lattice)), BONDS)
    assert 12 <= len(neighbours.distances) <= 18


def test_unknown_and_contradictory_rules_are_refused():
    with pytest.raises(UserError, match="rule='bond' is not a rule; take 'nearest' or 'bonds'"):
        FeaturiserSettings(rule="bond")
    with pytest.raises(UserError, match="rule='bonds' keeps .* ties='cut' does not"):
        FeaturiserSettings(rule="bonds", ties="cut")


@pytest.mark.parametrize("name", ["alignn", "alignn_lowdensity_graph"])
def test_bonds_of_the_original_and_their_ties(name):
    arrays = load(name)
    atoms = np.cumsum(np.append(0, arrays["crystals/n_atoms"]))
    edges = np.cumsum(np.append(0, arrays["graph/n_edges"]))
    for k, lattice in enumerate(arrays["crystals/lattice"]):
        here, those = slice(*atoms[k : k + 2]), slice(*edges[k : k + 2])
        crystal = _crystal(
            arrays["crystals/numbers"][here], arrays["crystals/frac_coords"][here], lattice
        )
        mine = neighbour_list(crystal, BONDS)
        is_theirs = np.zeros(len(mine.senders), bool)
        for sender, receiver, vector in zip(
            arrays["graph/src"][those] - atoms[k],
            arrays["graph/dst"][those] - atoms[k],
            arrays["graph/r"][those],
        ):
            # The original rounds the lattice to 10⁻⁵ Å.
            is_it = (mine.senders == sender) & (mine.receivers == receiver)
            is_it &= np.abs(mine.vectors + vector).max(axis=1) < 1e-3
            assert is_it.sum() == 1
            is_theirs |= is_it
        # It asks whether two floating-point numbers are equal, and so loses some tied bonds.
        last = np.array(
            [np.sort(mine.distances[mine.receivers == i])[11] for i in range(len(crystal.species))]
        )
        ends = np.stack([last[mine.receivers], last[mine.senders]])
        is_tied = (np.abs(ends - mine.distances) < 1e-3).any(axis=0)
        assert is_tied[~is_theirs].all()


def test_overlapping_atoms_are_refused():
    coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.501, 0.5, 0.5]]
    with pytest.raises(InvalidCrystal) as error:
        neighbour_list(_crystal([6, 8, 8], coords, 10.0 * np.eye(3)), KEEP)
    assert str(error.value) == "test: atoms 2 and 3 (counted from 1) are 0.01 Å apart"
    with pytest.raises(InvalidCrystal, match="atoms 1 and 2 .* 0.00 Å"):
        neighbour_list(_crystal([6, 8], [[0, 0, 0], [1, 0, 0]], 10.0 * np.eye(3)), KEEP)
    with pytest.raises(InvalidCrystal, match="atom 1 and an image of itself are 0.30 Å"):
        neighbour_list(_crystal([6], [[0, 0, 0]], np.diag([0.3, 5, 5])), KEEP)


def test_lattice_in_another_unit_is_refused():
    with pytest.raises(InvalidCrystal, match="5000 Å long; check"):
        neighbour_list(_crystal([6], [[0, 0, 0]], np.diag([5000.0, 5, 5])), KEEP)


@pytest.mark.parametrize("lattice", [(900, 900, 0.6), (900, 900, 3), (900, 2, 2), (900, 900, 900)])
@pytest.mark.parametrize("cutoff", [1.0, 4.0])
def test_very_long_cells(lattice, cutoff):
    crystal = _crystal([6], [[0, 0, 0]], np.diag(lattice))
    neighbours = neighbour_list(crystal, FeaturiserSettings(n_neighbours=4, cutoff=cutoff))
    images = np.array(list(itertools.product([-2, -1, 0, 1, 2], repeat=3)))
    distances = np.sort(np.linalg.norm(images * lattice, axis=1))[1:]
    fourth = distances[3] + 1e-3
    expected = distances[(distances <= cutoff) & (distances <= fourth)]
    np.testing.assert_allclose(neighbours.distances, expected, rtol=1e-6)


TOO_CLOSE = _crystal([6, 8], [[0, 0, 0], [0.01, 0, 0]], 10.0 * np.eye(3))
TOO_LONG = _crystal([6], [[0, 0, 0]], np.diag([5000.0, 5, 5]))
MIXED = [
    TOO_LONG,
    CASES["many"],
    TOO_CLOSE,
    ISOLATED,
    *CASES.values(),
    TOO_CLOSE,
    MOLECULE_AND_ATOM,
    *SYMMETRIC.values(),
]


@pytest.mark.parametrize("settings", [KEEP, CUT, BONDS], ids=["keep", "cut", "bonds"])
@pytest.mark.parametrize("group_atoms", [1, 7, 1000])
def test_many_crystals_at_once_have_the_graphs_of_each(settings, group_atoms, monkeypatch):
    monkeypatch.setattr(neighbours_module, "_GROUP_ATOMS", group_atoms)
    found = neighbour_lists(MIXED, settings)
    assert len(found) == len(MIXED)
    for crystal, result in zip(MIXED, found):
        if crystal in (TOO_LONG, TOO_CLOSE):
            with pytest.raises(InvalidCrystal) as error:
                neighbour_list(crystal, settings)
            assert isinstance(result, InvalidCrystal)
            assert str(result) == str(error.value)
            continue
        for mine, alone in zip(result, neighbour_list(crystal, settings), strict=True):
            assert mine.dtype == alone.dtype
            np.testing.assert_array_equal(mine, alone)


def test_no_crystals():
    assert neighbour_lists([], KEEP) == []


def test_searching_in_small_blocks_changes_nothing(monkeypatch):
    expected = neighbour_list(CASES["many"], KEEP)
    monkeypatch.setattr(neighbour_search, "_BLOCK", 1)
    for mine, other in zip(neighbour_list(CASES["many"], KEEP), expected, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("settings", [KEEP, BONDS], ids=["nearest", "bonds"])
@pytest.mark.parametrize("name", [*SYMMETRIC, "three atoms, skewed", "many"])
def test_extremely_skewed_cells(name, settings):
    crystal = {**CASES, **SYMMETRIC}[name]
    rng = np.random.default_rng(0)
    for _ in range(5):
        # Any whole numbers below the diagonal leave the lattice as it is.
        basis = np.tril(rng.integers(-30, 31, (3, 3)), -1) + np.eye(3)
        basis = basis[rng.permutation(3)]
        coords = crystal.frac_coords @ np.linalg.inv(basis)
        skewed = _crystal(crystal.species, coords, basis @ crystal.lattice)
        assert _environments(skewed, settings) == _environments(crystal, settings)


def test_a_nearly_flat_cell_is_refused_at_once():
    # Angles that add up to nearly 360°, as in a broken file: a + b + c is 0.006 Å long.
    flat = 10 * np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [-0.5, -np.sqrt(0.75), 6e-4]])
    with pytest.raises(InvalidCrystal, match="atom 1 and an image of itself are 0.01 Å"):
        neighbour_list(_crystal([6], [[0, 0, 0]], flat), KEEP)
