"""The trained networks that come with the package, each a folder of a few files."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crysgnn_jax.array_files import Damaged, read_arrays
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_json
from crysgnn_jax.training.workdir import CHECKPOINTS, CONFIG, REFERENCE, RESULT, read_json

FOLDER = Path(__file__).resolve().parents[1] / "shipped"
WEIGHTS = "weights.npz"
SEEN = "seen.json"


class Seen(NamedTuple):
    """What a network that comes with the package was trained on, in numbers.

    Attributes:
      n_crystals: that it has seen.
      elements: atomic number → crystals that hold the element; those that none holds are left out.
      n_atoms: quantile, 0 … 1, → atoms of a cell.
      volume_per_atom: quantile → Å³.
    """

    n_crystals: int
    elements: dict[int, int]
    n_atoms: dict[float, float]
    volume_per_atom: dict[float, float]


def found(workdir: Path | str) -> Path:
    """The folder of a run, or of a network that comes with the package where it is named by name
    and no run has that name; a run in ``runs/`` may be named by name too."""
    path = Path(workdir)
    if path.name != str(path) or path.exists():
        return path
    places = (FOLDER / path, Path("runs") / path)
    return next((place for place in places if place.is_dir()), path)


def label_of(path: Path) -> str:
    """By which a user would name a folder: that of the package by its name."""
    return path.name if path.parent == FOLDER else str(path)


def remedy_for(path: Path) -> str:
    """What to do about a file of a network that is damaged."""
    return "install the package again" if FOLDER in path.parents else "delete it, or train again"


def folders() -> list[Path]:
    """Of all networks that come with the package."""
    return sorted(path.parent for path in FOLDER.glob(f"*/{CONFIG}"))


def seen(name: str) -> Seen:
    """What the network of this name has seen.

    Raises:
      UserError: none of that name comes with the package, or it is not known of it.

    Example:
      ``seen("crysgnn-mp").n_atoms[0.99]``
    """
    path = FOLDER / name / SEEN
    if not path.exists():
        known = ", ".join(sorted(file.parent.name for file in FOLDER.glob(f"*/{SEEN}")))
        raise UserError(f"what {name} has seen is not known; it is of {known}")
    found = read_json(path)
    quantiles = lambda of: {float(q): value for q, value in found[f"quantiles_of_{of}"].items()}
    return Seen(
        found["n_crystals"],
        {int(number): n for number, n in found["crystals_by_atomic_number"].items()},
        quantiles("n_atoms"),
        quantiles("volume_per_atom"),
    )


def read_weights(path: Path) -> dict[str, Any]:
    """What `write_weights` wrote.

    Raises:
      UserError: the file is damaged.
    """
    from flax import traverse_util

    try:
        tree = traverse_util.unflatten_dict(read_arrays(path), sep="/")
    except (OSError, Damaged) as error:
        raise UserError(f"{path} is damaged ({error}); install the package again") from None
    return {"params": {}, "batch_stats": {}, **tree}


def write_weights(path: Path, variables: Mapping[str, Any]) -> None:
    """Write variables to one file: an array each, named by its place in the tree."""
    from flax import traverse_util

    np.savez_compressed(path, **traverse_util.flatten_dict(variables, sep="/"))


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a ``config.json`` with files named, and not where they lay."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(part) for part in value]
        is_path = isinstance(value, str) and not value.startswith("column:")
        return Path(value).name if is_path else value

    made_with = dict(config["made_with"])
    data = made_with.get("data", [])
    made_with["data"] = plain(data if isinstance(data, list) else [data])
    if "split" in made_with:
        made_with["split"] = {**made_with["split"], "rule": plain(made_with["split"]["rule"])}
    out = {**config, "made_with": made_with}
    if "named" in config:
        out["named"] = {name: plain(value) for name, value in config["named"].items()}
    return out


def ship(workdir: Path, folder: Path) -> None:
    """Copy the best weights of a finished run, with its settings, result, and what it keeps of its
    training crystals, to a folder; data are named without where they lay. Of what a teacher was
    trained on, the formulas alone are kept, by `experiments.studies.seen`."""
    from crysgnn_jax.training.checkpoints import restore_best  # which imports JAX

    folder.mkdir(parents=True, exist_ok=True)
    if (workdir / REFERENCE).exists():
        shutil.copy(workdir / REFERENCE, folder / REFERENCE)
    write_json(folder / CONFIG, without_places(read_json(workdir / CONFIG)))
    write_json(folder / RESULT, read_json(workdir / RESULT))
    write_weights(folder / WEIGHTS, restore_best(workdir / CHECKPOINTS))
