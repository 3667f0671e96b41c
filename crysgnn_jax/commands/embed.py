"""Atom and crystal embeddings of a trained model, teacher or student; and a map of the crystals.

crysgnn embed my_cifs/
crysgnn embed --model runs/mine my_cifs/ --output embeddings.npz
crysgnn embed elastic --map elastic.png --colour bulk_modulus_vrh
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from crysgnn_jax.commands import cli, flags
from crysgnn_jax.errors import UserError
from crysgnn_jax.training.settings import TEACHER

if TYPE_CHECKING:  # JAX, and matplotlib
    from crysgnn_jax.graphs.store import GraphStore
    from crysgnn_jax.reporting.crystal_map import CrystalMap
    from crysgnn_jax.training.predictor import Embeddings

BY_SYSTEM = "crystal_system"
"""What a map is coloured by where nothing is given."""

FORMATS = (".npz", ".h5")


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
        "[n, d], the mean over a crystal's atoms; an .npz, or an .h5, which needs h5py "
        "(default embeddings.npz)",
    )
    group = out.add_argument_group("map")
    group.add_argument(
        "--map",
        type=Path,
        metavar="FILE",
        help="also draw the crystals as points in a plane: a .png, and beside it an .html to zoom "
        "in, where a crystal under the pointer tells its id and formula (default: no map)",
    )
    group.add_argument(
        "--projection",
        choices=("pca", "umap"),
        default="pca",
        help="the two directions in which the crystals differ most, or UMAP, which needs "
        "umap-learn (default pca)",
    )
    group.add_argument(
        "--colour",
        default=BY_SYSTEM,
        metavar="LABEL",
        help=f"what points are coloured by: {BY_SYSTEM}, or a label of the data "
        f"(default {BY_SYSTEM})",
    )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data
    from crysgnn_jax.extras import require
    from crysgnn_jax.reporting.tables import counted
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.embeddings_file import write_embeddings
    from crysgnn_jax.training.predictor import TrainedModel
    from crysgnn_jax.training.projection import require_enough

    if args.output.suffix not in FORMATS:
        raise UserError(f"`output` {args.output}: give a file that ends in {' or '.join(FORMATS)}")
    hdf5 = args.output.suffix == ".h5"
    if hdf5:
        require("h5py", "h5", f"`output` {args.output}")
    cli.require_writable(args.output)
    if args.map is not None:
        if args.map.suffix != ".png":
            raise UserError(f"`map` {args.map}: give a file that ends in .png")
        if args.projection == "umap":
            require("umap", "umap", "`projection` umap")
        for file in (args.map, args.map.with_suffix(".html")):
            cli.require_writable(file)
    model = TrainedModel.load(args.model)
    store = data.graphs_for(args, model)
    if args.map is not None:
        require_enough(len(store))
    if args.map is not None and args.colour != BY_SYSTEM and args.colour not in store.label_names:
        known = ", ".join((BY_SYSTEM, *store.label_names))
        raise UserError(f"`colour` {args.colour}: {store.source_name} has {known}")
    found = model.embed_store(store, Devices(args.devices), args.batch_size)
    with cli.output(args.output, "w+b" if hdf5 else "wb") as file:
        write_embeddings(file, found, hdf5=hdf5)
    n_crystals, n_atoms = len(found.ids), len(found.atoms)
    print(f"{counted(n_crystals, 'crystal')}, {counted(n_atoms, 'atom')}: {args.output}")
    data.list_skipped([store], args.output)
    if args.map is not None:
        from crysgnn_jax.reporting.crystal_map import draw_map, write_map_page

        drawn = _map(args, store, found)
        page = args.map.with_suffix(".html")
        with cli.output(args.map, "wb") as file:
            draw_map(drawn, file)
        with cli.output(page, "w") as file:
            write_map_page(drawn, file)
        print(f"map: {args.map} and {page}")


def _map(args: argparse.Namespace, store: "GraphStore", found: "Embeddings") -> "CrystalMap":
    import numpy as np

    from crysgnn_jax.crystals.formula import readable
    from crysgnn_jax.crystals.named import unit_of
    from crysgnn_jax.graphs.symmetry import CRYSTAL_SYSTEMS, crystal_system
    from crysgnn_jax.reporting.crystal_map import CrystalMap
    from crysgnn_jax.reporting.tables import counted, with_unit
    from crysgnn_jax.training import projection

    if args.projection == "umap":
        points, axes = projection.umap(found.crystals), ("UMAP 1", "UMAP 2")
    else:
        points, shares = projection.principal_components(found.crystals)
        first, second = (f"{100 * share:.0f} % of the variance" for share in shares)
        axes = (f"component 1 ({first})", f"component 2 ({second})")
    if args.colour == BY_SYSTEM:
        colour = "crystal system"
        values = np.array(CRYSTAL_SYSTEMS)[crystal_system(store.space_group)]
    else:
        colour = with_unit(args.colour.replace("_", " "), unit_of(args.colour))
        values = np.array(store.labels(args.colour))
    what = counted(len(store), "crystal")
    return CrystalMap(
        points=points,
        axes=axes,
        title=f"{what} of {store.source_name}, embedded by {args.model.name}",
        ids=found.ids,
        formulas=np.array([readable(formula) for formula in store.reduced_formula.tolist()]),
        colour=colour,
        values=values,
    )
