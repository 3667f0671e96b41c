"""What each atom, or each element, adds to a trained model's prediction.

crysgnn explain --model formation_energy my.cif
crysgnn explain --model runs/my_run my_cifs/ --output contributions.extxyz
"""

import argparse
from pathlib import Path
from typing import IO, TYPE_CHECKING

from crysgnn_jax.commands import cli, flags

if TYPE_CHECKING:  # JAX
    from crysgnn_jax.training.explanation import Explanation

FORMATS = (".extxyz", ".xyz")


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("explain", __doc__)
    flags.add_model_flags(
        out,
        "a model that comes with the package (see crysgnn models), a student's run, a fine-tuned "
        "one, or converted weights",
    )
    out.add_argument(
        "--output",
        type=Path,
        default=Path("contributions.extxyz"),
        metavar="FILE",
        help="the structures as extended XYZ, with a column contribution; beside it, under the "
        "same name, a .png: of the atoms of one crystal, or of the mean by element on a periodic "
        "table (default contributions.extxyz)",
    )
    flags.add_data_flags(out)
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.commands import data
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.reporting.tables import counted, text_table
    from crysgnn_jax.training.devices import Devices
    from crysgnn_jax.training.explanation import explain_store
    from crysgnn_jax.training.predictor import TrainedModel

    if args.output.suffix not in FORMATS:
        raise UserError(
            f"`output` {args.output}: give a file that ends in {' or '.join(FORMATS)}; the picture "
            "is written beside it"
        )
    picture = args.output.with_suffix(".png")
    for file in (args.output, picture):
        cli.require_writable(file)
    model = TrainedModel.load(args.model)
    model.require_property()
    store = data.graphs_for(args, model)
    found, skipped = explain_store(
        model,
        store,
        Devices(args.devices),
        args.batch_size,
        data.Progress("predictions", "prediction"),
    )
    if not found:
        raise UserError(f"{skipped[0][0]}: {skipped[0][1]}")
    with cli.output(args.output, "w") as file:
        write_structures(file, found)
    with cli.output(picture, "wb") as file:
        _draw(file, found, store.source_name, args.model.name)
    print(_one(found[0]) if len(found) == 1 else _many(found))
    if model.network.explanation is not None:
        ranked = model.network.explanation(model.variables["params"])
        print("\nwhat the network weighs of the elements, for all its predictions")
        rows = [[name.replace("_", " "), f"{weight:.4f}"] for name, weight in ranked]
        print(text_table(["element property", "mean |weight|"], rows))
    print(f"\n{counted(len(found), 'crystal')}: {args.output} and {picture}")
    data.list_skipped([store], args.output, skipped)


def write_structures(file: IO[str], found: "list[Explanation]") -> None:
    """Extended XYZ: an atom a line, with its ``contribution``; in the comment of each crystal, its
    id, property, unit, prediction and baseline."""
    import ase
    from ase.io.extxyz import write_extxyz

    frames = []
    for one in found:
        atoms = ase.Atoms(
            numbers=one.species, scaled_positions=one.frac_coords, cell=one.lattice, pbc=True
        )
        atoms.arrays["contribution"] = one.contributions
        atoms.info = {"id": one.id, "property": one.property}
        if one.unit:  # of text that is empty, nobody reads what follows it
            atoms.info["unit"] = one.unit
        atoms.info |= {"prediction": one.prediction, "baseline": one.baseline}
        frames.append(atoms)
    write_extxyz(file, frames, columns=["symbols", "positions", "contribution"])


def _one(found: "Explanation") -> str:
    """The table of one crystal, an element a row."""
    from crysgnn_jax.crystals.elements import SYMBOLS
    from crysgnn_jax.reporting.tables import text_table, with_unit

    rows = [
        [SYMBOLS[number], str(share.n_atoms), f"{share.mean:+.4g}", f"{share.share:+.4g}"]
        for number, share in found.by_element().items()
    ]
    total = found.prediction - found.baseline
    rows.append(["all", str(len(found.species)), f"{total:+.4g}", f"{total:+.4g}"])
    header = ["element", "atoms", "mean contribution", "of the prediction"]
    name = with_unit(found.property.replace("_", " "), found.unit)
    lines = [
        f"{found.id}, {name}: {found.prediction:.4g}, of which {found.baseline:.4g} with all "
        "elements hidden",
        "",
        text_table(header, rows),
    ]
    if not found.exact:
        lines.append("atoms of an element with many kinds of them: approximate (see the manual)")
    return "\n".join(lines)


def _many(found: "list[Explanation]") -> str:
    """The table of many crystals, an element a row, the one that raises the prediction most
    first."""
    from crysgnn_jax.crystals.elements import SYMBOLS
    from crysgnn_jax.reporting.tables import text_table, with_unit
    from crysgnn_jax.training.explanation import mean_by_element

    means = mean_by_element(found)
    rows = [
        [SYMBOLS[number], str(n_crystals), f"{mean:+.4g}"]
        for number, (n_crystals, mean) in sorted(means.items(), key=lambda item: -item[1][1])
    ]
    name = with_unit("mean contribution", found[0].unit)
    about = f"{found[0].property.replace('_', ' ')}, by element"
    return f"{about}\n\n{text_table(['element', 'crystals', name], rows)}"


def _draw(file: IO[bytes], found: "list[Explanation]", source: str, model: str) -> None:
    from crysgnn_jax.crystals.crystal import Crystal
    from crysgnn_jax.crystals.formula import in_picture, readable
    from crysgnn_jax.reporting.coloured_atoms import draw_atoms
    from crysgnn_jax.reporting.periodic_table import periodic_table
    from crysgnn_jax.reporting.tables import signed, with_unit
    from crysgnn_jax.training.explanation import mean_by_element

    one = found[0]
    name = one.property.replace("_", " ")
    if len(found) == 1:
        formula = readable(Crystal(one.id, *one[1:4]).reduced_formula)
        value = f"{signed(one.prediction)} {one.unit}".rstrip()
        draw_atoms(
            *one[1:5],
            file,
            label=with_unit("contribution", one.unit),
            title=f"{in_picture(formula)}: {value}\n{name} as {model} predicts it",
        )
        return
    means = {z: mean for z, (_, mean) in mean_by_element(found).items()}
    periodic_table(
        means,
        file,
        label=with_unit("mean contribution", one.unit),
        title=f"{len(found)} crystals of {source}, {name} as {model} predicts it",
        centred=True,
    )
