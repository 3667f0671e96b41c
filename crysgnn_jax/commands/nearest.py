"""The crystals that a trained model finds most similar to given ones.

crysgnn nearest --to my.cif formation_energy
crysgnn nearest --to a.cif --to b.cif --n 5 my_cifs/ --output similar.csv
crysgnn nearest --model runs/mine --to my.cif elastic
"""

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from crysgnn_jax.commands import cli, flags
from crysgnn_jax.errors import UserError
from crysgnn_jax.training.settings import TEACHER

MOST_LABELS = 4
"""Labels that a terminal has room for beside the rest; the CSV has all."""


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("nearest", __doc__)
    flags.add_model_flags(
        out,
        "whose embeddings are compared: any run of a network, or a name of the package's",
        TEACHER,
    )
    out.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="SOURCE",
        help="crystal or crystals to find the like of: a file, folder or data set; may be repeated",
    )
    out.add_argument(
        "--n",
        type=flags.positive(int),
        default=10,
        metavar="N",
        help="crystals to find for each, or all where there are fewer (default 10)",
    )
    out.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="CSV with query, rank, id, formula, space group, distance and all labels (default: "
        f"print a table, with up to {MOST_LABELS} labels)",
    )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    import numpy as np

    from crysgnn_jax.commands import data
    from crysgnn_jax.crystals.formula import readable
    from crysgnn_jax.crystals.named import unit_of
    from crysgnn_jax.graphs.symmetry import space_group_symbol
    from crysgnn_jax.reporting.tables import counted, print_table, with_unit
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.predictor import TrainedModel
    from crysgnn_jax.training.similarity import nearest

    if args.output is not None:
        if args.output.suffix != ".csv":
            raise UserError(f"`output` {args.output}: give a file that ends in .csv")
        cli.require_writable(args.output)
    model = TrainedModel.load(args.model)
    wanted_of = data.read_all(args.to, "to")
    store = data.graphs_for(args, model)
    queries = data.Graphs(args)(wanted_of, model.featuriser)
    devices = Devices(args.devices)
    among, wanted = (
        model.embed_store(graphs, devices, args.batch_size).crystals for graphs in (store, queries)
    )
    indices, distances = nearest(wanted, among, args.n)
    labels = {name: store.labels(name) for name in store.label_names}

    def rows(shown: list[str], digits: str, group_of: Callable[[int], str]) -> Iterator[list[str]]:
        for query, found, gaps in zip(queries.ids.tolist(), indices.tolist(), distances.tolist()):
            for rank, (row, gap) in enumerate(zip(found, gaps), 1):
                yield [
                    query,
                    str(rank),
                    str(store.ids[row]),
                    readable(str(store.reduced_formula[row])),
                    group_of(int(store.space_group[row])),
                    f"{gap:.4f}",
                    *(
                        f"{labels[name][row]:{digits}}" if np.isfinite(labels[name][row]) else ""
                        for name in shown
                    ),
                ]

    header = ["query", "rank", "id", "formula", "space group", "distance"]
    if args.output is None:
        shown = list(labels)[:MOST_LABELS]
        names = [with_unit(name.replace("_", " "), unit_of(name)) for name in shown]
        print_table([*header, *names], list(rows(shown, ".4g", space_group_symbol)))
    else:
        with cli.output(args.output, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([name.replace(" ", "_") for name in header] + list(labels))
            writer.writerows(rows(list(labels), ".9g", str))
        print(f"{indices.shape[1]} nearest of {counted(len(queries), 'crystal')}: {args.output}")
    data.list_skipped([store], args.output)
    data.list_skipped([queries], None)
