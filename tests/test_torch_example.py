"""The pull in PyTorch, as ``docs/from_pytorch.md`` has it, is the pull of the package."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crysgnn_jax as cg
from crysgnn_jax.graphs.build import build_store
from crysgnn_jax.graphs.settings import FeaturiserSettings
from toys import caesium_chloride, fcc, one_batch, perovskite

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

sys.path.append(str(Path(__file__).resolve().parents[1] / "docs" / "examples"))

import torch_distillation as example  # noqa: E402


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    source = cg.crystal_list([fcc(), caesium_chloride(), perovskite()])
    store = build_store(source, FeaturiserSettings(), cache_dir=tmp_path_factory.mktemp("torch"))
    return cg.Batch(jax.tree.map(jnp.asarray, one_batch(store, more=5)))


@pytest.fixture(scope="module")
def atoms(batch):
    """Embeddings of student and teacher for all rows, and those of the 8 atoms alone."""
    generator = np.random.default_rng(0)
    rows = len(batch.species)
    both = [generator.normal(size=(rows, 6)).astype(np.float32) for _ in range(2)]
    both[1][:, 2] = 0.5  # a dimension that says nothing
    real = np.asarray(batch.species) > 0
    assert real.sum() == 8
    return both, [torch.from_numpy(x[real]) for x in both]


@pytest.mark.parametrize("name", ["standardised_loss", "embedding_loss"])
def test_a_pull_is_the_same_number(batch, atoms, name):
    (student, teacher), (of_torch, told) = atoms
    ours = float(getattr(cg, name)(jnp.asarray(student), jnp.asarray(teacher), batch))
    crystal = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2])
    assert float(getattr(example, name)(of_torch, told, crystal)) == pytest.approx(ours, rel=1e-5)


def test_the_gradient_reaches_student_and_projection_alone(atoms):
    _, (student, teacher) = atoms
    student = student.clone().requires_grad_()
    projection = torch.nn.Linear(6, 6)
    crystal = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2])
    loss = example.distilled_loss(torch.tensor(2.0), student, teacher, crystal, projection)
    loss.backward()
    assert student.grad.abs().sum() > 0 and projection.weight.grad.abs().sum() > 0
    pull = example.standardised_loss(projection(student), teacher, crystal)
    assert float(loss) == pytest.approx(0.9 * 2.0 + 0.1 * float(pull), rel=1e-6)


def test_the_file_of_embed_is_read_crystal_by_crystal(tmp_path):
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    file = tmp_path / "embeddings.npz"
    np.savez(file, ids=np.array(["a", "b"]), n_atoms=np.array([1, 3]), embeddings=vectors)
    found = example.teacher_embeddings(file)
    assert found["a"].tolist() == vectors[:1].tolist()
    assert found["b"].tolist() == vectors[1:].tolist()
