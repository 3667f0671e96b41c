"""Checkpoints: what comes back, and what is refused."""

import dataclasses
import errno
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
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
    with pytest.raises(UserError, match=r"\['params'\]\['a'\] is \(3, 2\).*\(5, 2\)"):
        checkpoints.restore(_tree(1.0, (5, 2)), _tree(1.0, (5, 2)))
    with pytest.raises(UserError, match="another model or version"):
        checkpoints.restore({"params": {"c": jnp.ones(1)}}, _tree(1.0))


def _saved(folder, steps=(1, 2)):
    checkpoints = Checkpoints(folder / "checkpoints")
    for step in steps:
        checkpoints.save(_tree(float(step)), _tree(-float(step)), Position(step=step))
    return checkpoints


def _flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 16
    file.write_bytes(content)


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(tmp_path):
    checkpoints = _saved(tmp_path, (1,))
    file = checkpoints.path(1)
    whole = file.read_bytes()
    noticed = 0
    for at in range(0, len(whole), 7):
        _flip(file, at)
        try:
            best = restore_best(checkpoints.directory)
            jax.tree.map(np.testing.assert_array_equal, best, _tree(-1.0))
        except UserError as error:
            assert "1.npz, which holds the best weights, is damaged" in str(error)
            assert "\n" not in str(error)
            noticed += 1
        file.write_bytes(whole)
    assert noticed > 100


def test_a_run_goes_on_from_the_save_before_a_damaged_one(tmp_path, caplog):
    checkpoints = _saved(tmp_path)
    _flip(checkpoints.path(2), checkpoints.path(2).stat().st_size // 2)
    last, best, position = checkpoints.restore(_tree(0.0), _tree(0.0))
    assert position.step == 1
    np.testing.assert_array_equal(last["params"]["a"], np.full((3, 2), 1.0))
    np.testing.assert_array_equal(best["params"]["a"], np.full((3, 2), -1.0))
    (line,) = caplog.messages
    assert f"{checkpoints.path(2)} is damaged" in line and "going on from step 1" in line
    # It is not the last save any more.
    assert checkpoints.last_step == 1


def test_no_save_is_whole(tmp_path):
    checkpoints = _saved(tmp_path)
    for step in (1, 2):
        checkpoints.path(step).write_bytes(checkpoints.path(step).read_bytes()[:-100])
    with pytest.raises(UserError, match="2.npz is damaged .*`overwrite`"):
        checkpoints.restore(_tree(0.0), _tree(0.0))


def test_damaged_best_weights(tmp_path):
    checkpoints = _saved(tmp_path)
    checkpoints.path(2).write_bytes(b"")
    with pytest.raises(UserError, match="2.npz, .* delete .*result.json, .* the checkpoint before"):
        restore_best(checkpoints.directory)
    checkpoints.path(1).unlink()
    with pytest.raises(UserError, match=f"2.npz, .* train {tmp_path} again"):
        restore_best(checkpoints.directory)


def test_a_disk_that_takes_no_more(tmp_path, monkeypatch):
    checkpoints = _saved(tmp_path)

    def full(file, *_):
        file.write(b"half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda self, *_: full(self.fp))
    with pytest.raises(UserError, match="checkpoints cannot be written .No space .* make room"):
        checkpoints.save(_tree(3.0), _tree(3.0), Position(step=3))
    monkeypatch.undo()
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["1.npz", "2.npz"]
    assert checkpoints.restore(_tree(0.0), _tree(0.0))[2].step == 2


def test_the_same_step_is_saved_again(tmp_path):
    checkpoints = _saved(tmp_path)
    checkpoints.save(_tree(5.0), _tree(5.0), Position(step=2, epoch=1))
    last, _, position = checkpoints.restore(_tree(0.0), _tree(0.0))
    assert position.epoch == 1 and last["params"]["a"][0, 0] == 5.0
    assert len(list(checkpoints.directory.iterdir())) == 2


def test_empty_collections_and_numbers_that_numpy_does_not_know(tmp_path):
    tree = {"params": {"a": jnp.ones(3, jnp.bfloat16)}, "batch_stats": {"student": {}}}
    Checkpoints(tmp_path).save(tree, tree, Position())
    found = restore_best(tmp_path)
    assert found["batch_stats"] == {"student": {}}
    assert found["params"]["a"].dtype == jnp.bfloat16 and float(found["params"]["a"][1]) == 1.0
    last, best, _ = Checkpoints(tmp_path).restore(tree, tree)
    assert jax.tree.structure(last) == jax.tree.structure(tree)


@pytest.fixture
def of_orbax(tmp_path):
    """What runs of version 0.2 have saved."""
    folder = tmp_path / "checkpoints"
    handlers = {
        "last": ocp.StandardCheckpointHandler(),
        "best": ocp.StandardCheckpointHandler(),
        "position": ocp.JsonCheckpointHandler(),
    }
    with ocp.CheckpointManager(folder, item_handlers=handlers) as manager:
        args = ocp.args.Composite(
            last=ocp.args.StandardSave(_tree(1.0)),
            best=ocp.args.StandardSave(_tree(2.0)),
            position=ocp.args.JsonSave(dataclasses.asdict(Position(step=7))),
        )
        manager.save(7, args=args)
    return folder


def test_checkpoints_of_orbax_are_read(of_orbax):
    jax.tree.map(np.testing.assert_array_equal, restore_best(of_orbax), _tree(2.0))
    checkpoints = Checkpoints(of_orbax)
    assert checkpoints.last_step == 7
    last, best, position = checkpoints.restore(_tree(0.0), _tree(0.0))
    jax.tree.map(np.testing.assert_array_equal, (last, best), (_tree(1.0), _tree(2.0)))
    assert position.step == 7
    for step in (8, 9):
        checkpoints.save(last, best, Position(step=step))
    assert sorted(path.name for path in of_orbax.iterdir()) == ["8.npz", "9.npz"]


def test_damaged_checkpoints_of_orbax(of_orbax):
    shutil.rmtree(of_orbax / "7" / "best")
    with pytest.raises(UserError, match="7, which holds the best weights, is damaged .*; train"):
        restore_best(of_orbax)


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        restore_best(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no complete checkpoint"):
        restore_best(tmp_path / "empty")
