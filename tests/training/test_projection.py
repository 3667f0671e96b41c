"""From embeddings to a plane: what is known of the directions."""

import numpy as np
import pytest

from crysgnn_jax.errors import UserError
from crysgnn_jax.training.projection import principal_components, umap


def test_the_first_component_is_the_one_that_most_components_share():
    """Of four components of one spread, three are the same and the fourth has nothing to do with
    them: in standardised units the variance is 3 : 1."""
    common, other = np.array([-1.0, 1.0, -1.0, 1.0]), np.array([-1.0, -1.0, 1.0, 1.0])

    points, shares = principal_components(np.stack([common, common, common, other], axis=1))

    np.testing.assert_allclose(shares, [0.75, 0.25], atol=1e-12)
    np.testing.assert_allclose(points[:, 0], np.sqrt(3) / 2 * common)
    np.testing.assert_allclose(np.abs(points[:, 1]), 0.5)


def test_a_map_depends_neither_on_scale_nor_on_the_order_of_the_crystals():
    x = np.random.default_rng(0).normal(size=(30, 5)) * [1, 2, 3, 4, 5]
    order = np.random.default_rng(1).permutation(30)

    points, _ = principal_components(x)
    others, _ = principal_components((10.0 * x + 3.0)[order])

    np.testing.assert_allclose(others, points[order], atol=1e-9)


def test_embeddings_of_one_component_lie_on_a_line():
    points, shares = principal_components(np.arange(4.0)[:, None])

    assert shares.tolist() == [1.0, 0.0] and not points[:, 1].any()


def test_too_few_or_equal_crystals_make_no_map():
    with pytest.raises(UserError, match="2 crystals make no map"):
        principal_components(np.eye(2))
    with pytest.raises(UserError, match="same embedding"):
        principal_components(np.ones((5, 3)))


@pytest.mark.slow
def test_umap_gives_each_crystal_a_point_always_the_same():
    pytest.importorskip("umap")
    x = np.random.default_rng(0).normal(size=(40, 5))

    points = umap(x)

    assert points.shape == (40, 2) and np.isfinite(points).all()
    np.testing.assert_array_equal(umap(x), points)
