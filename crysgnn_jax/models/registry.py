"""The students by name."""

from crysgnn_jax.models.cgcnn import CGCNN

STUDENTS = {"cgcnn": CGCNN}
"""Name on the command line → Flax module: called as ``module(graph, train)``, it returns a
`protocol.Prediction`; it takes ``cutoff``, that of the graphs, and ``axis_name`` for its batch
norms."""
