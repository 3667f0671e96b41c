"""Crystals → graphs, in a store on disk.

``settings``; ``neighbour_search`` and ``neighbours``, the edges; ``symmetry``, the space group;
``equivalence`` and ``reduction``, one node for all equivalent atoms; ``build``, which writes a
store; ``store`` and ``ragged``, which read one. Without JAX, like ``crystals``.
"""
