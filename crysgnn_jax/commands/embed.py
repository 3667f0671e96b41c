"""Atom and crystal embeddings of a trained model, teacher or student.

crysgnn embed my_cifs/
crysgnn embed --model runs/mine my_cifs/ --output embeddings.npz
"""

import argparse
from pathlib import Path

from crysgnn_jax.commands import cli, flags
from crysgnn_jax.training.settings import TEACHER


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("embed", __doc__)
    flags.add_model_flags(
        out, "any run of a network, converted weights, or a name of the package's", TEACHER
    )
    out.add_argument(
        "--output",
        type=Path,
        default=Path("embeddings.npz"),
        metavar="FILE",
        help="arrays ids [n], n_atoms [n], embeddings [all atoms, d] and crystal_embeddings "
        "[n, d], the mean over a crystal's atoms (default embeddings.npz)",
    )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    import numpy as np

    from crysgnn_jax.commands import data
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.predictor import TrainedModel

    cli.require_writable(args.output)
    model = TrainedModel.load(args.model)
    store = data.graphs_for(args, model)
    found = model.embed_store(store, Devices(args.devices), args.batch_size)
    with cli.output(args.output, "wb") as file:
        np.savez_compressed(
            file,
            ids=found.ids,
            n_atoms=found.n_atoms,
            embeddings=found.atoms,
            crystal_embeddings=found.crystals,
        )
    n_crystals, n_atoms = len(found.ids), len(found.atoms)
    print(f"{data.counted(n_crystals, 'crystal')}, {data.counted(n_atoms, 'atom')}: {args.output}")
    data.list_skipped([store], args.output)
