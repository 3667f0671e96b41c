"""Structure files → crystals → graph store → padded batches.

The modules in the order of the flow: ``elements`` and ``crystal``; ``source``, ``crystal_table``,
``datasets`` and ``readers``; ``neighbour_search``, ``neighbours`` and ``symmetry``;
``equivalence``, ``graphs`` and ``reduction``; ``store``; ``splits``; ``batches``. None of them
imports JAX before ``batches``, so that the processes which build a store start quickly; batches are
NumPy arrays that the training step moves to the device.
"""
