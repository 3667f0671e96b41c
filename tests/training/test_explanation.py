"""What atoms add to a prediction: worked out by hand, and what must hold of every network."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.models.alignn import ALIGNN
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.models.crysxpp import CrysXPP
from crysgnn_jax.models.gatgnn import GATGNN
from crysgnn_jax.models.network import Network, Prediction
from crysgnn_jax.models.registry import STUDENTS, smallest_batch
from crysgnn_jax.objectives.property import Standardiser
from crysgnn_jax.training import coalitions, explanation
from crysgnn_jax.training.devices import Devices
from crysgnn_jax.training.explanation import (
    Explanation,
    explain,
    explain_store,
    mean_by_element,
)
from crysgnn_jax.training.predictor import TrainedModel
from toys import perovskite, random_crystal, rocksalt


class MeanNumber(nn.Module):
    """Predicts the mean atomic number, and a multiple of its square.

    Attributes:
      together: the multiple.
    """

    together: float = 0.0

    @nn.compact
    def __call__(self, graph, train):
        batch = Batch(graph)
        atoms = batch.species[:, None] * self.param("one", nn.initializers.ones, (1,))
        mean = batch.mean_of_atoms(atoms)[:, 0]
        return Prediction(mean + self.together * jnp.square(mean), atoms)


class Own(nn.Module):
    """Of a user: an embedding of species of its own, and lengths of vectors; whole graphs."""

    @nn.compact
    def __call__(self, graph, train):
        batch = Batch(graph)
        atoms = nn.Embed(101, 8)(batch.species)
        near = jnp.exp(-jnp.linalg.norm(batch.vectors, axis=1, keepdims=True))
        atoms = nn.tanh(atoms + batch.edges.sum(near * atoms[batch.edges.senders]))
        return Prediction(nn.Dense(1)(batch.mean_of_atoms(atoms))[:, 0], atoms)


def trained(module, network, **about):
    """A model of random weights, whose predictions depend on the crystals."""
    settings = FeaturiserSettings(**network.needs.graphs)
    init = jax.jit(lambda key: module.init(key, smallest_batch(network.needs), True))
    variables = jax.tree.map(np.array, dict(init(jax.random.key(0))))
    if "output" in variables["params"]:
        variables["params"]["output"]["kernel"] *= 20
    about = {"property": "energy", "unit": "eV", "standardiser": Standardiser(1.0, 2.0)} | about
    return TrainedModel("x", module, network, variables, settings, "0", Path("x"), **about)


def small(name):
    modules = {
        "cgcnn": CGCNN(width=16, n_convolutions=2),
        "crysxpp": CrysXPP(width=16, n_convolutions=1),
        "gatgnn": GATGNN(width=16, n_layers=1, n_heads=1),
        "alignn": ALIGNN(width=16, embedding_width=16, n_alignn=1, n_gcn=1),
    }
    if name == "own":
        return trained(Own(), Network(Own, Needs(edges=("vectors",))))
    return trained(modules[name], STUDENTS[name])


def explained(model, crystals, path, devices=1):
    store = build_store(crystal_list(crystals), model.featuriser, cache_dir=path)
    found, skipped = explain_store(model, store, Devices(devices), 32)
    assert not skipped
    return found


def test_where_atoms_just_add_up_each_contributes_its_own(tmp_path):
    model = trained(MeanNumber(), Network(MeanNumber, Needs(reduced=True)))

    (found,) = explained(model, [perovskite()], tmp_path)

    # 2 · mean + 1, with hidden atoms of number 0.
    np.testing.assert_allclose(found.contributions, 2.0 * np.array([38, 22, 8, 8, 8]), rtol=1e-6)
    assert found.baseline == pytest.approx(1.0)
    assert found.prediction == pytest.approx(1.0 + 2.0 * 84 / 5)
    assert (found.property, found.unit, found.exact) == ("energy", "eV", True)
    assert list(found.by_element()) == [38, 8, 22]
    assert found.by_element()[8] == (3, pytest.approx(16.0), pytest.approx(48.0 / 5))


def test_what_two_elements_add_together_is_shared_alike(tmp_path):
    model = trained(
        MeanNumber(1.0),
        Network(MeanNumber, Needs(reduced=True)),
        standardiser=Standardiser(0.0, 1.0),
    )

    (found,) = explained(model, [rocksalt(species=(4, 2))], tmp_path)

    # Half of the atoms are 4, half 2: their parts a = 2 and b = 1 of the mean; a + b + (a + b)²
    # is divided into a + a² + ab and b + b² + ab, and each half of the atoms has the double.
    np.testing.assert_allclose(found.contributions, [2 * 8.0] * 4 + [2 * 4.0] * 4, rtol=1e-6)


@pytest.mark.parametrize("name", ["cgcnn", "crysxpp", "gatgnn", "alignn", "own"])
def test_contributions_add_up_to_what_the_model_predicts(name, tmp_path):
    model = small(name)
    crystals = [perovskite(), rocksalt(), random_crystal(7)]

    found = explained(model, crystals, tmp_path)

    predicted = model.predict(crystal_list(crystals), cache=tmp_path, devices=1).values
    for one, crystal, prediction in zip(found, crystals, predicted):
        assert one.prediction == pytest.approx(prediction, rel=1e-4, abs=1e-4)
        np.testing.assert_array_equal(one.species, crystal.species)
        told = one.prediction - one.baseline
        assert abs(told) > 1e-4
        assert abs(one.residual) < 0.01 * abs(told)
        assert one.baseline + np.mean(one.contributions) == pytest.approx(one.prediction)


@pytest.mark.parametrize("name", ["cgcnn", "own"])
def test_contributions_depend_neither_on_the_order_of_atoms_nor_on_the_cell(name, tmp_path):
    model, crystal = small(name), perovskite()
    order = np.array([3, 0, 4, 2, 1])
    turned = Crystal("turned", crystal.species[order], crystal.frac_coords[order], crystal.lattice)
    shifts = np.array([[0, 0, 0], [0, 0, 1]])
    coords = (crystal.frac_coords[None] + shifts[:, None]).reshape(-1, 3) / [1, 1, 2]
    double = Crystal(
        "double", np.tile(crystal.species, 2), coords, np.diag([1, 1, 2]) @ crystal.lattice
    )

    one, other, larger = explained(model, [crystal, turned, double], tmp_path)

    near = {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(other.contributions, one.contributions[order], **near)
    np.testing.assert_allclose(larger.contributions, np.tile(one.contributions, 2), **near)
    # Equivalent atoms share alike.
    assert np.ptp(one.contributions[2:]) < 1e-9


def test_several_devices_give_the_same_as_one(tmp_path):
    model = small("cgcnn")
    crystals = [perovskite(), rocksalt(), random_crystal(5)]

    together = explained(model, crystals, tmp_path, devices=4)

    for one, alone in zip(together, explained(model, crystals, tmp_path)):
        np.testing.assert_allclose(one.contributions, alone.contributions, rtol=1e-3, atol=1e-4)


def test_many_kinds_of_atoms_of_one_element_still_add_up(tmp_path):
    n = coalitions.EXACT + 3
    crystal = random_crystal(n)
    same = Crystal("same", np.full(n, 14), crystal.frac_coords, crystal.lattice)

    (found,) = explained(small("own"), [same], tmp_path)

    assert not found.exact and np.ptp(found.contributions) > 0
    assert abs(found.residual) < 1e-6


def test_means_by_element_are_over_the_crystals_that_have_it(tmp_path):
    model = trained(MeanNumber(), Network(MeanNumber, Needs(reduced=True)))

    found = mean_by_element(explained(model, [perovskite(), rocksalt()], tmp_path))

    assert found[8] == (1, pytest.approx(16.0)) and found[17] == (1, pytest.approx(34.0))


def test_a_model_explains_one_crystal_from_python(tmp_path):
    model = trained(MeanNumber(), Network(MeanNumber, Needs(reduced=True)))

    found = model.explain(rocksalt_of_ase(), cache=tmp_path, devices=1)

    assert isinstance(found, Explanation) and len(found.species) == 8
    with pytest.raises(UserError, match="2 crystals; explain one"):
        explain(model, [rocksalt_of_ase()] * 2, cache=tmp_path)
    with pytest.raises(UserError, match="predicts no property"):
        explain(trained(CGCNN(), STUDENTS["cgcnn"], property=None), rocksalt_of_ase())


def rocksalt_of_ase():
    import ase

    crystal = rocksalt()
    return ase.Atoms(
        crystal.species, scaled_positions=crystal.frac_coords, cell=crystal.lattice, pbc=True
    )


def test_a_crystal_of_too_many_kinds_of_atoms_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(explanation, "MOST", 8)
    model = trained(MeanNumber(), Network(MeanNumber, Needs(reduced=True)))
    store = build_store(
        crystal_list([rocksalt(), random_crystal(6)]), model.featuriser, cache_dir=tmp_path
    )

    found, skipped = explain_store(model, store, Devices(1))

    assert [one.id for one in found] == ["NaCl"]
    assert skipped[0][0] == "random" and "6 kinds of atoms" in skipped[0][1]
