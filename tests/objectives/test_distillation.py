"""The distillation transform: golden numbers, and what it promises to any loss and module."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.views import Batch
from crysgnn_jax.models.cgcnn import CGCNN
from crysgnn_jax.models.network import Prediction
from crysgnn_jax.objectives.distillation import (
    ProjectedStudent,
    distil,
    embedding_loss,
    standardised_loss,
    teacher_columns,
)
from crysgnn_jax.objectives.property import Standardiser, property_loss
from golden import (
    assert_close,
    assert_gradients_close,
    cgcnn_variables,
    graph_of,
    load,
    under,
    with_statistics,
)


@pytest.fixture(scope="module")
def golden():
    arrays = load("cgcnn_distilled")
    teacher = load("crysgnn")["eval/atom_emb_l2"]
    targets = arrays["train/target"][:, None]
    graph = graph_of(arrays, globals_={"labels": targets, "label_mask": np.ones_like(targets)})
    padding = np.ones((len(graph.nodes["species"]) - len(teacher), teacher.shape[1]), np.float32)
    graph.nodes["teacher_embeddings"] = np.concatenate([teacher, padding])
    return arrays, graph, cgcnn_variables(under(arrays, "params"))


def _loss_function(arrays, weight):
    return distil(
        property_loss(
            Standardiser(float(arrays["train/target_mean"]), float(arrays["train/target_std"]))
        ),
        weight=weight,
    )


def test_loss_and_gradients(golden):
    arrays, graph, variables = golden
    loss_function = _loss_function(arrays, 0.5)

    def loss(params):
        outputs, _ = CGCNN().apply(
            {**variables, "params": params}, graph, True, mutable=["batch_stats"]
        )
        return loss_function(outputs, graph)

    (value, parts), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    assert_close(value, arrays["train/loss"])
    assert_close(parts["property"], arrays["train/loss_property"])
    assert_close(parts["embedding"], arrays["train/loss_embedding"])
    expected = cgcnn_variables(
        with_statistics(under(arrays, "train/grad"), under(arrays, "params"))
    )
    assert_gradients_close(gradients, expected["params"])


class TinyStudent(nn.Module):
    """A user's own student: one number an element, embeddings of another width."""

    width: int = 5

    @nn.compact
    def __call__(self, graph, train):
        atoms = nn.Embed(101, self.width)(graph.nodes["species"])
        offsets = jnp.cumsum(graph.n_node) - graph.n_node
        return Prediction(nn.Dense(1)(atoms)[offsets, 0], atoms)


def _small_graph(width=4):
    import jraph

    return jraph.GraphsTuple(
        nodes={
            "species": jnp.array([1, 2, 3, 0]),
            "count": jnp.array([1.0, 1.0, 1.0, 0.0]),
            "teacher_embeddings": jnp.eye(4, width),
        },
        edges={"distances": jnp.ones(1), "count": jnp.zeros(1)},
        senders=jnp.array([3]),
        receivers=jnp.array([3]),
        globals={"labels": jnp.zeros((3, 1)), "label_mask": jnp.ones((3, 1))},
        n_node=jnp.array([1, 2, 1]),
        n_edge=jnp.array([0, 0, 1]),
    )


def test_embedding_loss_by_hand():
    # Crystal 1: one atom, equal up to length: 0. Crystal 2: two atoms, orthogonal (2/4 each)
    # and opposite (4/4): mean 3/4. Mean over crystals 3/8; padding is wildly off and ignored.
    graph = _small_graph()
    student = jnp.array([[7.0, 0, 0, 0], [0, 0, 1, 0], [0, 0, -2, 0], [9, 9, 9, 9]])
    loss = embedding_loss(student, graph.nodes["teacher_embeddings"], Batch(graph))
    assert float(loss) == pytest.approx(3 / 8)


def test_weight_zero_is_the_property_loss():
    base = property_loss(Standardiser(0.0, 1.0))
    assert distil(base, weight=0.0) is base


def test_no_gradient_reaches_the_teacher():
    graph = _small_graph()
    outputs = Prediction(jnp.zeros(3), jnp.ones((4, 4)))

    def loss(teacher):
        batch = graph._replace(nodes={**graph.nodes, "teacher_embeddings": teacher})
        return distil(property_loss(Standardiser(0.0, 1.0)), weight=0.5)(outputs, batch)[0]

    assert not np.asarray(jax.grad(loss)(graph.nodes["teacher_embeddings"])).any()


def test_any_module_and_any_loss_with_projection():
    graph = _small_graph()
    student = ProjectedStudent(TinyStudent(), width=4)
    variables = student.init(jax.random.key(0), graph, True)
    constant = lambda outputs, batch: (jnp.float32(3.0), {})
    value, parts = distil(constant, weight=0.25)(student.apply(variables, graph, True), graph)
    assert float(value) == pytest.approx(0.75 * 3.0 + 0.25 * float(parts["embedding"]))
    # The prediction is the bare student's.
    bare = TinyStudent().apply({"params": variables["params"]["student"]}, graph, True)
    outputs = student.apply(variables, graph, True)
    np.testing.assert_array_equal(outputs.prediction, bare.prediction)


def test_width_mismatch_is_named():
    graph = _small_graph()
    outputs = Prediction(jnp.zeros(3), jnp.zeros((4, 5)))
    with pytest.raises(ValueError, match="ProjectedStudent"):
        distil(property_loss(Standardiser(0.0, 1.0)), weight=0.5)(outputs, graph)


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_weight_out_of_range(weight):
    with pytest.raises(ValueError, match="between 0 and 1"):
        distil(property_loss(Standardiser(0.0, 1.0)), weight=weight)


def test_the_pull_that_is_passed_is_the_one_that_is_used():
    graph = _small_graph()
    outputs = Prediction(jnp.zeros(3), 2.0 * graph.nodes["teacher_embeddings"])
    seen = []

    def pull(student, teacher, batch):
        seen.append((student.shape, teacher.shape))
        return batch.atoms.mean(jnp.sum(jnp.square(student - teacher), axis=1))

    loss = distil(property_loss(Standardiser(0.0, 1.0)), pull, weight=0.5)
    value, parts = loss(outputs, graph)
    assert seen == [((4, 4), (4, 4))]
    # Lengths count here: each atom is 1 away from its teacher's.
    assert float(parts["embedding"]) == pytest.approx(1.0)
    assert float(value) == pytest.approx(0.5)


def test_a_crystal_without_a_label_is_pulled_and_no_more():
    graph = _small_graph()
    outputs = Prediction(jnp.array([1.0, 5.0, 9.0]), jnp.ones((4, 4)))
    loss = distil(property_loss(Standardiser(0.0, 1.0)), weight=0.5)

    def with_labels(mask):
        mask = jnp.array(mask)[:, None]
        return graph._replace(globals={**graph.globals, "label_mask": mask})

    both, one, none = (
        loss(outputs, with_labels(m))[1] for m in ([1.0, 1.0, 1.0], [1.0, 0, 0], [0.0, 0, 0])
    )
    assert float(both["property"]) == pytest.approx((1.0 + 25.0) / 2)
    assert float(one["property"]) == pytest.approx(1.0) == float(one["mae"])
    assert float(none["property"]) == 0.0
    assert both["embedding"] == one["embedding"] == none["embedding"] > 0


@pytest.mark.parametrize("pull", [embedding_loss, standardised_loss])
def test_a_crystal_that_the_teacher_cannot_take_is_not_pulled(pull):
    graph = _small_graph()
    teacher = np.array(graph.nodes["teacher_embeddings"])
    assert teacher_columns(teacher).keys() == {"teacher_embeddings"}

    def gradient_and_value(teacher, n_crystals):
        columns = teacher_columns(teacher)
        # Without the second crystal, where there is but one.
        count = jnp.array([1.0, *[float(n_crystals > 1)] * 2, 0.0])
        batch = graph._replace(nodes={**graph.nodes, "count": count, **columns})
        loss = distil(lambda outputs, batch: (0.0, {}), pull, weight=1.0)
        of = lambda atoms: loss(Prediction(jnp.zeros(3), atoms), batch)[0]
        return jax.value_and_grad(of)(jnp.full((4, 4), 0.5))

    known = np.where(np.arange(4)[:, None] == 0, teacher, np.nan)
    found = gradient_and_value(known, 2)
    assert float(found[0]) > 0 and np.isfinite(found[0])
    for ours, theirs in zip(found, gradient_and_value(teacher, 1)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert not np.asarray(found[1])[1:].any()
