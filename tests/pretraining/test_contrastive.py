"""The contrastive loss in its stand-alone cases; the four losses together are in test_teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.batches.views import Rows
from crysgnn_jax.pretraining.crystal_system import contrastive_loss
from golden import assert_close, load


@pytest.mark.parametrize("case", range(7))
def test_contrastive_golden(case):
    arrays = {k: v for k, v in load("ntxent_cases").items() if k.startswith(f"case{case}/")}
    vectors, labels = arrays[f"case{case}/embeddings"], arrays[f"case{case}/labels"]
    # Two padding vectors that would be positives and negatives if they counted.
    padded = np.concatenate([vectors, np.ones((2, vectors.shape[1]), np.float32)])
    padded_labels = np.concatenate([labels, [labels[0], labels[0] + 1]])
    mask = np.concatenate([np.ones(len(labels)), np.zeros(2)]).astype(np.float32)

    def loss(x):
        return contrastive_loss(
            x, padded_labels, Rows(jnp.asarray(mask)), temperature=arrays_temperature(arrays, case)
        )

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(padded))
    assert_close(value, arrays[f"case{case}/loss64"])
    assert_close(gradient[: len(vectors)], arrays[f"case{case}/grad64"])
    assert not np.asarray(gradient[len(vectors) :]).any()


def arrays_temperature(arrays, case):
    return float(arrays.get(f"case{case}/temperature", 0.07))


def test_contrastive_by_hand():
    # Two vectors of class 0 at cosine 0, one of class 1 at cosine 0 to both: every positive pair
    # competes with one equally similar negative, so each term is log 2.
    vectors = jnp.eye(3)
    loss = contrastive_loss(vectors, jnp.array([0, 0, 1]), Rows(jnp.ones(3)))
    assert float(loss) == pytest.approx(np.log(2.0), rel=1e-6)
