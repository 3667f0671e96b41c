"""Curated sets of a few crystals."""

import numpy as np

from crysgnn_jax.curated import write_curated
from crysgnn_jax.graphs.shard_contents import columns_of, contents
from crysgnn_jax.graphs.store import CONTENT
from crysgnn_jax.shards import write_shard


def write_set(store, path, *, crystals_a_shard):
    """A store as a curated set."""
    entries = []
    for number, start in enumerate(range(0, len(store), crystals_a_shard)):
        rows = np.arange(start, min(start + crystals_a_shard, len(store)))
        labels = {name: store.labels(name)[rows] for name in store.label_names}
        tags = {name: store.tags(name)[rows].tolist() for name in store.tag_names}
        file = f"shards/{number:05d}.safetensors"
        columns, texts = contents(columns_of(store, rows), labels, tags)
        entries.append({"file": file, **write_shard(f"{path}/{file}", columns, texts, {})})
    return write_curated(
        path,
        entries,
        content=CONTENT,
        settings=store.settings.plain(),
        label_names=store.label_names,
        tag_names=store.tag_names,
    )
