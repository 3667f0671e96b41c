"""Atom and crystal embeddings of a trained model, teacher or student.

python -m experiments.embed --model runs/teacher my_cifs/ --output embeddings.npz
"""

from collections.abc import Sequence
from pathlib import Path

from crysgnn_jax.commands import cli


def parser() -> cli.Parser:
    """The command's flags."""
    out = cli.Parser(prog="python -m experiments.embed", description=__doc__.split("\n")[0])
    cli.add_model_flags(out, "any run of a network, or converted weights")
    out.add_argument(
        "--output",
        type=Path,
        default=Path("embeddings.npz"),
        metavar="FILE",
        help="arrays ids [n], n_atoms [n], embeddings [all atoms, d] and crystal_embeddings "
        "[n, d], the mean over a crystal's atoms (default embeddings.npz)",
    )
    cli.add_data_flags(out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    cli.require_writable(args.output)
    # Imported once the flags are known to be good: JAX takes seconds to start.
    import numpy as np

    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.trained import TrainedModel, per_crystal

    model = TrainedModel.load(args.model, "--model")
    store = cli.graphs(args, cli.open_data(args.sources), cli.model_graphs(args, model))
    embeddings = model.embeddings(store, Devices(args.devices), args.batch_size)
    with cli.output(args.output, "wb") as file:
        np.savez_compressed(
            file,
            ids=store.ids,
            n_atoms=store.n_nodes,
            embeddings=embeddings,
            crystal_embeddings=per_crystal(embeddings, store.n_nodes),
        )
    print(f"{len(store)} crystals, {len(embeddings)} atoms: {args.output}")
    cli.list_skipped(store, args.output)
