"""The teacher's pull in PyTorch, for a training loop of your own: see ``docs/from_pytorch.md``."""

import numpy as np
import torch


def teacher_embeddings(path):
    """Id → ``[n_atoms, d]``, from a file of ``crysgnn embed``; atoms in the order of their file."""
    with np.load(path) as file:
        parts = np.split(file["embeddings"], np.cumsum(file["n_atoms"])[:-1])
        return {id: torch.from_numpy(part) for id, part in zip(file["ids"].tolist(), parts)}


def per_crystal_mean(values, crystal):
    """Mean over crystals of the mean over their atoms; ``crystal`` ``[n]`` numbers them from 0."""
    n_atoms = torch.bincount(crystal).to(values)
    return (torch.zeros_like(n_atoms).index_add(0, crystal, values) / n_atoms).mean()


def standardised_loss(student, teacher, crystal):
    """``[n, d]``, ``[n, d]``, ``[n]`` → scalar: `crysgnn_jax.standardised_loss` of a batch."""
    centred = teacher - teacher.mean(0)
    variance = centred.square().mean(0)
    scale = variance.clamp(min=1e-6 * variance.mean().item() + 1e-12).rsqrt()
    return per_crystal_mean((student - centred * scale).square().mean(1), crystal)


def embedding_loss(student, teacher, crystal):
    """That of the paper: `crysgnn_jax.embedding_loss`, of vectors of length 1."""
    difference = torch.nn.functional.normalize(student) - torch.nn.functional.normalize(teacher)
    return per_crystal_mean(difference.square().mean(1), crystal)


def distilled_loss(property_loss, student, teacher, crystal, projection, weight=0.1):
    """``projection``: a ``torch.nn.Linear`` from the student's width to the teacher's, trained with
    the student and used here alone."""
    pull = standardised_loss(projection(student), teacher, crystal)
    return (1.0 - weight) * property_loss + weight * pull
