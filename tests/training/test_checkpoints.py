"""Checkpoints: what comes back, and what is refused."""

import dataclasses
import shutil

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


def _files(save):
    return sorted(file for file in save.rglob("*") if file.is_file())


def _largest(save):
    return max(_files(save), key=lambda file: file.stat().st_size)


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(tmp_path):
    checkpoints = _saved(tmp_path, (1,))
    noticed = 0
    for file in _files(checkpoints.path(1)):
        whole = file.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1} if whole else ():
            _flip(file, at)
            try:
                best = restore_best(checkpoints.directory)
                jax.tree.map(np.testing.assert_array_equal, best, _tree(-1.0))
            except UserError as error:
                assert "checkpoints/1, which holds the best weights, is damaged" in str(error)
                assert "\n" not in str(error)
                noticed += 1
            file.write_bytes(whole)
    assert noticed > 30
    assert restore_best(checkpoints.directory)["params"]["a"][0, 0] == -1.0


def test_a_run_goes_on_from_the_save_before_a_damaged_one(tmp_path, caplog):
    checkpoints = _saved(tmp_path)
    file = _largest(checkpoints.path(2))
    _flip(file, file.stat().st_size // 2)
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
        file = _largest(checkpoints.path(step))
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="checkpoints/2 is damaged .*`overwrite`"):
        checkpoints.restore(_tree(0.0), _tree(0.0))


def test_damaged_best_weights(tmp_path):
    checkpoints = _saved(tmp_path)
    shutil.rmtree(checkpoints.path(2) / "best")
    with pytest.raises(UserError, match="/2, .* delete .*result.json, .* the checkpoint before"):
        restore_best(checkpoints.directory)
    shutil.rmtree(checkpoints.path(1))
    with pytest.raises(UserError, match=f"/2, .* train {tmp_path} again"):
        restore_best(checkpoints.directory)


def _full_before(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))


def _full_within(monkeypatch):
    def save(self, path, args):
        draft = path.with_name(path.name + ".orbax-checkpoint-tmp")
        (draft / "last").mkdir(parents=True)
        raise ValueError("Failed to write 2401 bytes [os_error_code='28']")  # as orbax tells it

    monkeypatch.setattr(ocp.Checkpointer, "save", save)


@pytest.mark.parametrize("make_full", [_full_before, _full_within])
def test_a_disk_that_takes_no_more(tmp_path, monkeypatch, make_full, capfd):
    checkpoints = _saved(tmp_path)
    with monkeypatch.context() as patched:
        make_full(patched)
        with pytest.raises(UserError, match="checkpoints cannot be written .No space .* make room"):
            checkpoints.save(_tree(3.0), _tree(3.0), Position(step=3))
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["1", "2"]
    assert checkpoints.restore(_tree(0.0), _tree(0.0))[2].step == 2
    assert capfd.readouterr().err == ""


def test_what_a_killed_process_was_writing_is_no_save(tmp_path):
    checkpoints = _saved(tmp_path)
    draft = checkpoints.directory / "9.draft.orbax-checkpoint-tmp"
    draft.mkdir()
    assert checkpoints.last_step == 2
    checkpoints.save(_tree(3.0), _tree(3.0), Position(step=3))
    assert not draft.exists()


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
def of_before(tmp_path):
    """What runs of version 0.2 have saved, without checksums."""
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


def test_checkpoints_of_before_are_read(of_before):
    jax.tree.map(np.testing.assert_array_equal, restore_best(of_before), _tree(2.0))
    checkpoints = Checkpoints(of_before)
    assert checkpoints.last_step == 7
    last, best, position = checkpoints.restore(_tree(0.0), _tree(0.0))
    jax.tree.map(np.testing.assert_array_equal, (last, best), (_tree(1.0), _tree(2.0)))
    assert position.step == 7
    for step in (8, 9):
        checkpoints.save(last, best, Position(step=step))
    assert sorted(path.name for path in of_before.iterdir()) == ["8", "9"]


def test_damaged_checkpoints_of_before(of_before):
    shutil.rmtree(of_before / "7" / "best")
    with pytest.raises(UserError, match="7, which holds the best weights, is damaged .*; train"):
        restore_best(of_before)


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        restore_best(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no complete checkpoint"):
        restore_best(tmp_path / "empty")
