"""Flax modules on padded ``jraph.GraphsTuple`` batches, and what they are made of."""
