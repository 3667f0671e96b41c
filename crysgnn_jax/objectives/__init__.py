"""Losses: pure functions of a model's outputs and a batch."""
