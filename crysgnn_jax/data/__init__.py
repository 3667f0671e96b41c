"""Structure files → crystals → graph store → padded batches.

The modules in the order of the flow: ``crystal`` and ``elements``, ``source``, ``readers``, ``datasets``,
``neighbours`` and ``symmetry``, ``store``, ``splits``, ``batches``. None of them imports JAX,
so that the processes which build a store start quickly; batches are NumPy arrays that the
training step moves to the device.
"""
