"""A pull of one's own, by angles alone: ``crysgnn distill --pull cosine_pull:cosine …``."""

import optax


def cosine(student, teacher, batch):
    """Mean over atoms of 1 − cos of the angle between the student's and the teacher's vector."""
    return batch.atoms.mean(optax.losses.cosine_distance(student, teacher, epsilon=1e-6))
