"""Weights published for other implementations, turned into this project's."""
