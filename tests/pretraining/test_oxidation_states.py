"""The objective of oxidation states: its targets, its losses, and that it can be learned."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.commands import pretrain
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.pretraining.oxidation_states import OxidationStates
from toy_runs import prepare, run
from toys import fcc, one_batch, perovskite, rocksalt

OBJECTIVE = OxidationStates()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    crystals = [rocksalt(), perovskite(), fcc()]
    return build_store(
        crystal_list(crystals), FeaturiserSettings(), cache_dir=tmp_path_factory.mktemp("c")
    )


def batch_of(store, graphs):
    columns = OBJECTIVE.columns(store)
    graph = one_batch(store, graphs=graphs, more=2, node_columns=columns)
    return Batch(jax.tree.map(jnp.asarray, graph))


@pytest.mark.parametrize("reduced", [False, True])
def test_losses_are_means_over_the_atoms_that_have_states_and_over_crystals(store, reduced):
    batch = batch_of(store, store.reduced if reduced else store.full)
    n_graph = len(batch.crystals.weights)
    logits = jnp.log(jnp.tile(jnp.array([0.4, 0.3, 0.2, 0.1]), (n_graph, 1)))
    outputs = jnp.ones(len(batch.species)), logits
    # States / 2 of 8 atoms of rock salt are ±1/2, of SrTiO3's 5 atoms 1, 2 and three times −1;
    # the metal has none. NaCl and SrTiO3 are of the class "common", the metal of "none".
    told = (4 * 0.5**2 + 4 * 1.5**2 + 0 + 1 + 3 * 2**2) / 13
    classes = -(2 * np.log(0.4) + np.log(0.1)) / 3
    assert float(OBJECTIVE.loss(outputs, batch, batch)) == pytest.approx(told + classes, rel=1e-5)
    found = OBJECTIVE.metrics(outputs, batch, batch)["oxidation_states_accuracy"]
    assert float(found) == pytest.approx(2 / 3)
    shares = np.array([2 / 3, 1 / 3])
    values = np.repeat([0.5, -0.5, 1, 2, -1], [4, 4, 1, 1, 3])
    trivial = values.var() - np.sum(shares * np.log(shares))
    answers = np.asarray(OBJECTIVE.answers(batch, batch))
    assert OBJECTIVE.trivial_loss(answers) == pytest.approx(trivial, rel=1e-5)


def test_it_is_learned_beside_the_others(tmp_path):
    here = prepare(tmp_path)
    flags = ("--objectives", "oxidation_states=1", "--width", "16", "--n-convolutions", "1")
    run(pretrain, here, *flags, "--epochs", "6", "--batch-size", "12", "--workdir", here / "run")
    lines = (here / "run/metrics.jsonl").read_text().splitlines()
    name = "validation_oxidation_states"
    epochs = [entry[name] for entry in map(json.loads, lines) if name in entry]
    assert len(epochs) == 6 and 0 < epochs[-1] < 0.8 * epochs[0]
    assert {f"{name}_trivial", f"{name}_accuracy"} <= set(
        json.loads((here / "run/result.json").read_text())
    )
