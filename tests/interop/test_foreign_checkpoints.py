"""Files of weights: the honest, the damaged and the hostile."""

import argparse
import os
import pickle
import sys

import numpy as np
import pytest

from crysgnn_jax.errors import UserError
from crysgnn_jax.interop.checkpoints import read_checkpoint


def test_npz(tmp_path):
    arrays = {"params/fc.weight": np.ones((2, 3)), "args/task": np.array("regression")}
    np.savez(tmp_path / "model.npz", **arrays)
    found = read_checkpoint(tmp_path / "model.npz")
    assert set(found) == set(arrays)
    np.testing.assert_array_equal(found["params/fc.weight"], arrays["params/fc.weight"])
    assert str(found["args/task"]) == "regression"


def test_missing_file(tmp_path):
    for path in (tmp_path / "model.npz", tmp_path / "model.pth.tar", tmp_path):
        with pytest.raises(UserError, match=f"{path}: no such file"):
            read_checkpoint(path)


class Hostile:
    """Unpickling this makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _cut(path):
    np.savez(path, a=np.arange(1000.0))
    path.write_bytes(path.read_bytes()[:-300])


def _flipped(path):
    np.savez_compressed(path, a=np.arange(1000.0))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


def _bare_array(path):
    with open(path, "wb") as file:
        np.save(file, np.ones(3))


def _objects(path):
    np.savez(path, a=np.array([Hostile(path.parent / "owned")], object))


BROKEN = {
    "cut": _cut,
    "flipped": _flipped,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("404: Not Found"),
    "bare array": _bare_array,
    "objects": _objects,
    "pickle": lambda path: path.write_bytes(pickle.dumps(Hostile(path.parent / "owned"))),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_npz(tmp_path, case):
    path = tmp_path / "model.npz"
    BROKEN[case](path)
    with pytest.raises(UserError, match=f"{path} is damaged, or no .npz archive .*again"):
        read_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "model.pth.tar"
    path.touch()
    with pytest.raises(UserError, match=r"needs PyTorch: pip install 'crysgnn-jax\[torch\]'"):
        read_checkpoint(path)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def _checkpoint(torch, args):
    """As the authors of CGCNN and CrysXPP save them."""
    return {
        "epoch": 3,
        "state_dict": {"fc.weight": torch.ones(2, 3), "bn.num_batches_tracked": torch.tensor(5)},
        "best_mae_error": np.float64(0.5),
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float32(0.1)}]},
        "normalizer": {"mean": torch.tensor(1.5), "std": torch.tensor(2.0)},
        "args": args,
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("make", [dict, argparse.Namespace])
def test_torch_checkpoint(torch, tmp_path, make, zipped):
    args = make(n_conv=4, task="regression", lr=0.01, lr_milestones=[100], resume=None)
    path = tmp_path / "model.pth.tar"
    torch.save(_checkpoint(torch, args), path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    np.testing.assert_array_equal(found["params/fc.weight"], np.ones((2, 3)))
    assert found["params/bn.num_batches_tracked"] == 5
    assert (found["normalizer/mean"], found["normalizer/std"]) == (1.5, 2.0)
    assert (found["args/n_conv"], str(found["args/task"])) == (4, "regression")
    assert all(isinstance(array, np.ndarray) for array in found.values())


def test_numpy_arrays_in_a_torch_checkpoint(torch, tmp_path):
    path = tmp_path / "model.pth"
    args = {"n_conv": np.int64(4), "mean": np.arange(3.0), "task": np.str_("regression")}
    torch.save(_checkpoint(torch, args), path)
    assert read_checkpoint(path)["args/n_conv"] == 4


def test_names_of_numpy_1(torch, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(_checkpoint(torch, {}), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    old, new = b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"
    assert (old in content) or (new in content)
    for name in (old, new):
        path.write_bytes(content.replace(old, name).replace(new, name))
        assert read_checkpoint(path)["normalizer/mean"] == 1.5


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"model": x, "optimizer": {"lr": 0.1}}])
def test_bare_state_dict_of_a_parallel_network(torch, tmp_path, wrap):
    path = tmp_path / "model.pt"
    weight = torch.full((2,), 0.5, dtype=torch.bfloat16, requires_grad=True)
    torch.save(wrap({"module.fc.weight": weight}), path)
    found = read_checkpoint(path)
    assert list(found) == ["params/fc.weight"]
    np.testing.assert_array_equal(found["params/fc.weight"], [0.5, 0.5])


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_is_refused_and_not_run(torch, tmp_path, zipped):
    path, owned = tmp_path / "model.pth.tar", tmp_path / "owned"
    checkpoint = {**_checkpoint(torch, {}), "extra": Hostile(owned)}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=rf"{path} holds \w+\.mkdir, .*save its state_dict alone"):
        read_checkpoint(path)
    assert not owned.exists()
    # The same file does run code where everything is let in.
    torch.load(path, weights_only=False)
    assert owned.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bare_pickle_is_refused_and_not_run(torch, tmp_path):
    path, owned = tmp_path / "model.pth.tar", tmp_path / "owned"
    path.write_bytes(pickle.dumps(Hostile(owned)))
    with pytest.raises(UserError, match=str(path)):
        read_checkpoint(path)
    assert not owned.exists()


def _cut_torch(torch, path):
    torch.save(_checkpoint(torch, {}), path)
    path.write_bytes(path.read_bytes()[:-200])


DAMAGED = {
    "cut": _cut_torch,
    "empty": lambda torch, path: path.write_bytes(b""),
    "text": lambda torch, path: path.write_text("404: Not Found"),
    "noise": lambda torch, path: path.write_bytes(np.random.default_rng(0).bytes(500)),
    "npz": lambda torch, path: np.savez(open(path, "wb"), a=np.ones(3)),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_torch_file(torch, tmp_path, case):
    path = tmp_path / "model.pth.tar"
    DAMAGED[case](torch, path)
    with pytest.raises(UserError, match=f"{path} is damaged, or no checkpoint of PyTorch; .*again"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"state_dict": {"a": "b"}}])
def test_other_torch_files(torch, tmp_path, content):
    path = tmp_path / "model.pth.tar"
    torch.save(content, path)
    with pytest.raises(UserError, match=f"^{path} holds .*state.dict; save the state_dict of"):
        read_checkpoint(path)
