"""Which trained networks are at hand: what ships with the package, what lies in the cache, and the
finished runs of a folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crysgnn_jax.errors import UserError
from crysgnn_jax.training import shipped
from crysgnn_jax.training.workdir import CONFIG, RESULT, read_json, read_made_with

CARD = "card.json"
"""In a folder of `shipped.FOLDER`: what a user should know of a network before using it."""


class Entry(NamedTuple):
    """A trained network.

    Attributes:
      name: by which ``--model`` and `load` take it.
      where: ``package``, ``cache`` or ``runs``.
      kind: such as ``cgcnn distilled``.
      property: what it predicts; "" for one that was trained without labels.
      unit: of it.
      data: names of what it was trained on.
      n_train: training crystals; None where that is not told.
      test_mae: its error on its test crystals, in ``unit``; None where there is none.
      licence: of the weights, as far as it is told.
      card: the rest of its model card.
    """

    name: str
    where: str
    kind: str
    property: str
    unit: str
    data: str
    n_train: int | None
    test_mae: float | None
    licence: str
    card: Mapping[str, Any]


def catalogue(cache: Path, runs: Path = Path("runs")) -> list[Entry]:
    """All that is at hand.

    Args:
      cache: the cache folder, in which students' starts and members are kept.
      runs: folder of runs.
    """
    here = [_entry(folder, folder.name, "package") for folder in shipped.folders()]
    for kind in ("starts", "members"):
        here += [_entry(path, str(path), "cache") for path in _finished(cache / kind, "*")]
    here += [_entry(path, str(path), "runs") for path in _finished(runs, "**")]
    return [entry for entry in here if entry is not None]


def described(name: str) -> Entry:
    """One network, by its name or folder.

    Raises:
      UserError: there is none.
    """
    path = shipped.found(name)
    entry = _entry(path, name, "package" if path.parent == shipped.FOLDER else "runs")
    if entry is None:
        twins = [str(twin) for twin in _finished(path, "*")]
        if twins:
            raise UserError(f"{name} holds several; name one of {', '.join(twins)}")
        known = ", ".join(folder.name for folder in shipped.folders())
        raise UserError(f"{name}: no trained network there; the package has {known}")
    return entry


def _finished(folder: Path, pattern: str) -> Iterator[Path]:
    found = sorted(folder.glob(f"{pattern}/{RESULT}"))
    return (path.parent for path in found if (path.parent / CONFIG).exists())


def _entry(path: Path, name: str, where: str) -> Entry | None:
    """None where a folder holds no network, or one whose files are damaged."""
    try:
        made_with, result = read_made_with(path), read_json(path / RESULT)
        card = read_json(path / CARD) if (path / CARD).exists() else {}
    except UserError:
        return None
    if "network" not in made_with:
        return None
    kind = made_with["network"]
    if "distilled" in result:
        kind += " distilled" if result["distilled"] else ""
    data = made_with.get("data", "")
    return Entry(
        name,
        where,
        kind,
        result.get("property", ""),
        result.get("unit", ""),
        card.get("data") or (", ".join(data) if isinstance(data, list) else str(data)),
        result.get("n_train"),
        result.get("test_mae"),
        card.get("licence", ""),
        card,
    )
