"""Files, tables and objects → crystals.

``elements`` and ``crystal``; ``sources``, what the next stage asks of a collection; ``table``,
``named`` and ``readers``, the collections there are. Without JAX, so that processes which read
crystals start quickly.
"""
