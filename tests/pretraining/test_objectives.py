"""Objectives as such: what they are given, what they may hide, and what a teacher makes of them."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.crystals.readers import crystal_list
from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from crysgnn_jax.members import find_member
from crysgnn_jax.pretraining import catalogue
from crysgnn_jax.pretraining.objective import Objective, pretraining_loss
from crysgnn_jax.pretraining.registry import RELEASED, objectives_of
from crysgnn_jax.pretraining.teacher import Teacher
from crysgnn_jax.training.checkpoints import Checkpoints, Position
from crysgnn_jax.training.predictor import TrainedModel
from crysgnn_jax.training.step import create_optimiser, create_state, make_train_step
from crysgnn_jax.training.workdir import Workdir
from toys import collection, one_batch


@dataclasses.dataclass(frozen=True)
class Hidden(Objective):
    """Hides half of the elements; says how many it hid."""

    name: ClassVar[str] = "hidden"

    def head(self, width):
        return nn.Dense(1)

    def corrupt(self, batch, key):
        hide = jax.random.bernoulli(key, 0.5, batch.species.shape)
        return batch.with_nodes(species=jnp.where(hide, 0, batch.species))

    def loss(self, outputs, batch, seen):
        hidden = batch.atoms.mean((seen.species != batch.species).astype(jnp.float32))
        return hidden + 0.0 * jnp.sum(outputs)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    store = build_store(
        crystal_list(collection(8)), FeaturiserSettings(), cache_dir=tmp_path_factory.mktemp("c")
    )
    return jax.tree.map(jnp.asarray, one_batch(store, lists=("pairs",), more=2))


def test_names_in_the_catalogue_are_those_of_the_classes():
    for name, path in catalogue.OBJECTIVES.items():
        assert find_member(path, "objectives", "").name == name
    for network, weights in catalogue.RELEASED.items():
        assert {objective.name: weight for objective, weight in RELEASED[network]} == weights


def test_the_encoder_sees_what_is_corrupted_and_the_loss_sees_both(graph):
    module = Teacher(width=8, n_convolutions=1, objectives=(Hidden(),))
    variables = module.init(
        {"params": jax.random.key(0), "corruption": jax.random.key(1)}, graph, False
    )
    apply = lambda key: module.apply(
        variables, graph, False, rngs={"corruption": jax.random.key(key)}
    )
    outputs = apply(1)
    # What the encoder makes of the corrupted batch itself.
    plain = Teacher(width=8, n_convolutions=1)
    encoder = {kind: {"encoder": tree["encoder"]} for kind, tree in variables.items()}
    seen = plain.apply(encoder, outputs.seen, False).embeddings
    np.testing.assert_array_equal(outputs.embeddings, seen)
    assert not np.array_equal(seen, plain.apply(encoder, graph, False).embeddings)
    value, parts = pretraining_loss([(Hidden(), 0.5)])(outputs, graph)
    batch = Batch(graph)
    hidden = batch.atoms.mean(np.float32(outputs.seen.nodes["species"] != graph.nodes["species"]))
    assert 0.2 < float(hidden) < 0.8 and float(parts["hidden"]) == pytest.approx(float(hidden))
    assert float(value) == pytest.approx(0.5 * float(hidden))
    # A function of the key alone.
    np.testing.assert_array_equal(apply(1).embeddings, outputs.embeddings)
    assert not np.array_equal(apply(2).embeddings, outputs.embeddings)


def test_every_step_hides_others_and_a_resumed_one_the_same(graph):
    module = Teacher(width=8, n_convolutions=1, objectives=(Hidden(),))
    optimiser = create_optimiser(1e-3, 10)
    state = create_state(module, optimiser, jax.random.key(0), graph)
    step = jax.jit(make_train_step(module, pretraining_loss([(Hidden(), 1.0)]), optimiser))
    after, first = step(state, graph)
    _, second = step(after, graph)
    _, again = step(after, graph)
    assert float(first["hidden"]) != float(second["hidden"]) == float(again["hidden"])


def test_a_loaded_teacher_needs_no_heads(graph, tmp_path):
    model = {"width": 8, "n_convolutions": 1}
    module = Teacher(**model, objectives=(Hidden(),))
    keys = {"params": jax.random.key(0), "corruption": jax.random.key(1)}
    variables = module.init(keys, graph, False)
    assert set(variables["params"]) == {"encoder", "hidden"}
    featuriser = dataclasses.asdict(FeaturiserSettings())
    made_with = {"network": "crysgnn", "model": model, "featuriser": featuriser}
    with Workdir(tmp_path, made_with) as workdir:
        checkpoints = Checkpoints(workdir.checkpoints)
        checkpoints.save(variables, variables, Position())
        workdir.finish({"task": "pretraining"})
    found = TrainedModel.load(tmp_path)
    assert not found.module.objectives
    assert {name for tree in found.variables.values() for name in tree} == {"encoder"}
    # It sees the batch as it is, and asks for no key.
    np.testing.assert_array_equal(
        found.embed_batch(found.variables, graph),
        Teacher(**model).apply(variables, graph, method="embed"),
    )


def test_objectives_that_hide_nothing_leave_the_others_as_they_are(graph):
    """The teacher's losses do not depend on which other heads there are."""
    few, more = objectives_of("crysgnn", {"contrastive": 0.0}), RELEASED["crysgnn"]
    modules = [
        Teacher(width=8, n_convolutions=1, objectives=tuple(x for x, _ in weighted))
        for weighted in (few[:2], more)
    ]
    variables = modules[1].init(jax.random.key(0), graph, False)
    parts = [
        pretraining_loss(weighted)(module.apply(variables, graph, False), graph)[1]
        for module, weighted in zip(modules, (few[:2], more))
    ]
    for name in ("connection", "feature"):
        assert float(parts[0][name]) == float(parts[1][name])


def test_weights_and_settings_by_name():
    chosen = objectives_of("crysgnn", {"space_group": 1.0}, temperature=0.2)
    assert [(x.name, weight) for x, weight in chosen] == [
        ("connection", 0.25), ("feature", 0.25), ("space_group", 1.0), ("contrastive", 0.25)
    ]  # fmt: skip
    assert chosen[-1][0].temperature == 0.2
    # One of the other network is welcome.
    assert objectives_of("crysae", {"space_group": 0.5})[-1][0].name == "space_group"
    with pytest.raises(UserError, match="none of a weight above 0"):
        objectives_of("crysae", {"connection": 0.0, "feature": 0.0})
