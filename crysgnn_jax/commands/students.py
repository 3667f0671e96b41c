"""What the commands that train property predictors share: which student, and what is reported."""

import argparse
import ast
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crysgnn_jax.commands.cli import command_line
from crysgnn_jax.commands.flags import AUTOENCODER, given
from crysgnn_jax.crystals.named import PROPERTY_UNITS
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import write_json
from crysgnn_jax.models.network import Network
from crysgnn_jax.models.registry import RESERVED, find_network
from crysgnn_jax.reporting.run import verdict_of
from crysgnn_jax.reporting.tables import print_table
from crysgnn_jax.training import shipped
from crysgnn_jax.training.lesson import Student
from crysgnn_jax.training.predictor import TrainedModel, start_of
from crysgnn_jax.training.settings import PropertySettings, TrainingSettings
from crysgnn_jax.training.workdir import CONFIG, read_json, read_made_with


def student_of(
    name: str,
    pairs: Sequence[str] = (),
    autoencoder: Path | None = None,
    start: Path | None = None,
) -> Student:
    """The student of a name, with its settings and what it starts from.

    Args:
      name: as of `registry.find_network`.
      pairs: values of ``--set``.
      autoencoder: whose convolutions it starts from; where not given, and the student starts from
        one, that of `AUTOENCODER` if there is one, unless it is distilled from a teacher that the
        package has a start for.
      start: run of the same student, trained without labels, that it starts from instead.

    Raises:
      UserError: there is no such student or setting, it does not start from an auto-encoder, or
        ``start`` is of another student.
    """
    network = find_network(name)
    student = Student(name, network, parse_settings(pairs, network))
    if start is not None:
        if autoencoder is not None:
            raise UserError("`start` and `autoencoder` are both to start from; leave one out")
        return dataclasses.replace(student, start=start_of(_start(start, name, network)))
    if autoencoder is None:
        if network.starts_from is None:
            return student
        if not (AUTOENCODER / CONFIG).exists():
            print(
                f"{name} starts from random convolutions where no teacher gives it a start, for "
                f"there is no {network.starts_from} in {AUTOENCODER}; make one with crysgnn "
                f"pretrain --network {network.starts_from}",
                file=sys.stderr,
            )
            return student
    elif network.starts_from is None:
        raise UserError(f"`autoencoder`: {name} starts from random weights; leave it out")
    begun = student.starting_from(TrainedModel.load(autoencoder or AUTOENCODER, "autoencoder"))
    return dataclasses.replace(begun, start_is_default=autoencoder is None)


def _start(workdir: Path, name: str, network: Network) -> TrainedModel:
    path = shipped.found(workdir)
    found = read_made_with(path).get("network") if (path / CONFIG).exists() else name
    if found == name:
        model = TrainedModel.load(workdir, "start", network)
        if model.property is None:
            return model
        found = f"{name}, which predicts {model.property}"
    raise UserError(f"`start` {workdir} holds {found}; name a run of pretrain --network {name}")


def parse_settings(pairs: Sequence[str], network: Network) -> dict[str, Any]:
    """``["width=32", "attention=composition"]`` → values by name that differ from the defaults:
    Python literals, else text.

    Raises:
      UserError: one is not of the form NAME=VALUE, names no setting of the network's module, or
        is of another type than its default.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(network.module)}
    allowed = sorted(defaults.keys() - set(RESERVED))
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise UserError(f"--set {pair}: write NAME=VALUE, such as width=32")
        if name not in allowed:
            raise UserError(
                f"--set {pair}: {network.module.__name__} has the settings "
                f"{', '.join(allowed) or 'none'}"
            )
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        kind = type(defaults[name])
        if kind is float and type(value) is int:
            value = float(value)
        is_number = kind in (int, float)
        if kind in (bool, int, float, str) and (type(value) is not kind or is_number and value < 0):
            least = " of at least 0" if is_number else ""
            raise UserError(f"--set {pair}: {name} is of type {kind.__name__}{least}")
        # What is said and is so anyway changes nothing: the student is the published one.
        settings |= {name: value} if value != defaults[name] else {}
    return settings


def settings_of(args: argparse.Namespace) -> tuple[TrainingSettings, PropertySettings]:
    """The settings that the flags say something of; the others are at their defaults."""
    return (
        TrainingSettings(**given(args, TrainingSettings)),
        PropertySettings(**given(args, PropertySettings)),
    )


def about(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """What a run's ``config.json`` says beside what the run knows of itself."""
    return {"command": command, "data": args.data, "limit": args.limit}


def named(args: argparse.Namespace, *, distilled: bool = True) -> dict[str, Any]:
    """What ``config.json`` says of a run by the names of flags: where that came from of which it
    knows the content alone.

    Args:
      args: of the command.
      distilled: whether the run has a teacher.
    """
    names = ["autoencoder"]
    if distilled:
        names += ["teacher", "start", "unlabelled", "untagged_epochs"]
    found = {name: getattr(args, name, None) for name in names}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in found.items()
        if value not in (None, [])
    }


def report(results: Mapping[str, Mapping[str, Any]], files: Path) -> None:
    """Print one row: the errors side by side, with those of predicting the mean and of composition
    alone; and on standard error what became of the last one, in words, with what to know of each.

    Args:
      results: variant, such as ``vanilla``, → content of its ``result.json``, and ``files``.
      files: where they are.
    """
    some = next(iter(results.values()))
    mae = {name: f"{result['test_mae']:.4g}" for name, result in results.items()}
    shown = ["vanilla", "distilled"] if "fine-tuned" not in results else ["fine-tuned"]
    of_composition = some.get("test_mae_of_composition")  # runs of version 0.2 have none
    print_table(
        [
            "property",
            "unit",
            *(f"{name} test MAE" for name in shown),
            "of the mean",
            "of composition",
            "crystals/s",
            "files",
        ],
        [
            [
                some["property"],
                some["unit"] or ("1" if some["property"] in PROPERTY_UNITS else "–"),
                *(mae.get(name, "–") for name in shown),
                f"{some['test_mae_of_mean']:.4g}",
                "–" if of_composition is None else f"{of_composition:.4g}",
                " / ".join(f"{r['crystals_per_second']:.0f}" for r in results.values()),
                str(files),
            ]
        ],
    )
    told = {name: verdict_of(Path(r["files"]), r) for name, r in results.items()}
    name, (sentence, *_) = list(told.items())[-1]
    print(f"{name}: {sentence}", file=sys.stderr)
    for name, (_, *warnings) in told.items():
        for warning in warnings:
            print(f"warning: {name}: {warning}", file=sys.stderr)


def record(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """One file with everything that a reader of a published number asks for.

    Args:
      path: of the file.
      results: variant → content of ``result.json``, and ``files``, where it is.
    """
    runs = {
        name: {"result": result, "config": read_json(Path(result["files"]) / CONFIG)}
        for name, result in results.items()
    }
    write_json(path, {"command": command_line(), "runs": runs})
