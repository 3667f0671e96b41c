"""Graphs → padded batches of static shape, and how networks see them.

``splits``; ``needs``, what a network asks of a batch; ``budget``, the static shape; ``loader``,
which fills it, in NumPy; ``views`` and ``pairs``, weighted rows and links, in JAX.
"""
