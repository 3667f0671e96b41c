"""Checkpoints: what comes back, and what is refused."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from crysgnn_jax.errors import UserError
from crysgnn_jax.training.checkpoints import Checkpoints, Position, restore_best


def _tree(value, shape=(3, 2)):
    return {"params": {"a": jnp.full(shape, value), "b": jnp.arange(4)}}


def test_last_best_and_position_come_back(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.last_step is None
    for step in (1, 2, 3):
        position = Position(step=step, epoch=step, best_score=0.25, sums={"loss": 1.5})
        checkpoints.save(_tree(float(step)), _tree(-1.0), position)
    checkpoints.close()
    again = Checkpoints(tmp_path / "checkpoints")
    last, best, position = again.restore(_tree(0.0), _tree(0.0))
    np.testing.assert_array_equal(last["params"]["a"], np.full((3, 2), 3.0))
    np.testing.assert_array_equal(best["params"]["a"], np.full((3, 2), -1.0))
    assert position == Position(step=3, epoch=3, best_score=0.25, sums={"loss": 1.5})
    found = restore_best(tmp_path / "checkpoints")
    np.testing.assert_array_equal(found["params"]["a"], np.full((3, 2), -1.0))


def test_other_shape_is_refused_by_name(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(_tree(1.0), _tree(1.0), Position(step=1))
    checkpoints.wait()
    with pytest.raises(UserError, match=r"\['params'\]\['a'\] is \(3, 2\).*\(5, 2\)"):
        checkpoints.restore(_tree(1.0, (5, 2)), _tree(1.0, (5, 2)))
    with pytest.raises(UserError, match="another model or version"):
        checkpoints.restore({"params": {"c": jnp.ones(1)}}, _tree(1.0))


def test_damaged_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(_tree(1.0), _tree(1.0), Position(step=1))
    checkpoints.close()
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "best")
    with pytest.raises(UserError, match="1 is damaged; train"):
        restore_best(tmp_path / "checkpoints")


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        restore_best(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no complete checkpoint"):
        restore_best(tmp_path / "empty")
