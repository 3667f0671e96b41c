"""Curated sets: any mix of sources, deduplicated, labelled by symmetry, in shards."""
