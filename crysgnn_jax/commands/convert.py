"""Turn the weights of the authors' PyTorch code into a workdir like that of any other run.

crysgnn convert --from cgcnn formation-energy-per-atom.pth.tar --workdir runs/cgcnn
"""

import argparse
import dataclasses
import hashlib
from pathlib import Path

from crysgnn_jax.commands import cli, flags


def parser() -> flags.Parser:
    """The command's flags."""
    out = flags.Parser("convert", __doc__)
    out.add_argument(
        "--from",
        dest="kind",
        required=True,
        metavar="NAME",
        help="whose weights they are: cgcnn, crysgnn, crysae, crysxpp, gatgnn or alignn",
    )
    out.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help=".pth.tar as the authors' code saves it (needs the extra torch), or .npz with the "
        "names of its state dict",
    )
    out.add_argument(
        "--property",
        metavar="NAME",
        help="what it predicts (default: what the checkpoint says, else 'target')",
    )
    flags.add_export_flag(flags.add_run_flags(out, "runs/NAME-converted"))
    return out


def execute(args: argparse.Namespace) -> None:
    """Do what the flags say."""
    from crysgnn_jax.crystals.named import unit_of
    from crysgnn_jax.errors import UserError
    from crysgnn_jax.graphs.settings import FeaturiserSettings
    from crysgnn_jax.interop.checkpoints import read_checkpoint
    from crysgnn_jax.interop.torch_names import convert
    from crysgnn_jax.models.registry import find_network
    from crysgnn_jax.pretraining.registry import PRETRAINED
    from crysgnn_jax.training.checkpoints import Checkpoints, Position
    from crysgnn_jax.training.model_file import export
    from crysgnn_jax.training.workdir import Workdir

    if args.export is not None:
        cli.require_writable(args.export)
    found = convert(args.kind, read_checkpoint(args.checkpoint), source=str(args.checkpoint))
    is_pretrained = found.network in PRETRAINED
    if args.property is not None and is_pretrained:
        raise UserError(f"`property`: {found.network} predicts none; leave it out")
    # The published codes cut between tied neighbours; ALIGNN's rule keeps them.
    own = {} if is_pretrained else find_network(found.network).needs.graphs
    featuriser = FeaturiserSettings(
        **{**(own or {"ties": "cut"}), "cutoff": found.settings.get("cutoff", 8.0)}
    )
    made_with = {
        "command": "convert",
        "network": found.network,
        "model": found.settings,
        "featuriser": dataclasses.asdict(featuriser),
        "checkpoint": hashlib.blake2b(args.checkpoint.read_bytes(), digest_size=16).hexdigest(),
        "property": args.property,
    }
    property = args.property or found.property or "target"
    result = {"task": "pretraining", "converted_from": args.checkpoint.name}
    if not is_pretrained:
        is_classifier = found.network == "cgcnn-classifier"
        result |= {
            "task": "student",
            "student": found.network,
            "property": property,
            "unit": "probability" if is_classifier else unit_of(property),
            "target_mean": 0.0 if found.mean is None else found.mean,
            "target_std": 1.0 if found.std is None else found.std,
        }
    path = args.workdir or Path("runs") / f"{args.kind}-converted"
    with Workdir(path, made_with, overwrite=args.overwrite) as workdir:
        if workdir.result is None:
            checkpoints = Checkpoints(workdir.checkpoints)
            if checkpoints.last_step is None:
                checkpoints.save(found.variables, found.variables, Position())
            workdir.finish(result)
    if args.export is not None:
        export(path, args.export)
    what = f", predicts {property}" if "property" in result else ""
    print(f"{found.network}{what}: {path}")
