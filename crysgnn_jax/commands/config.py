"""Flags from a file: YAML or JSON by hand, or the ``config.json`` of a run."""

import argparse
import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from crysgnn_jax.errors import UserError


def words_of(
    path: Path, command: str, actions: Iterable[argparse.Action], given: Iterable[str] = ()
) -> list[str]:
    """What a file says, as words of the command line.

    Args:
      path: of the file, an object of flags by name; or a run's ``config.json``.
      command: whose flags they are.
      actions: the flags that there are.
      given: names (``dest``) of flags that the file is not to say anything of.

    Raises:
      UserError: the file cannot be read, is of another command, or names a flag that is not there
        or gives it a value that cannot be one.
    """
    found = _read(path)
    about = f"`config` {path}"
    skipped = set(given)
    if isinstance(found.get("made_with"), dict):
        many = found["made_with"].get("command")
        if many in ("compare", "debias"):
            raise UserError(f"{about} is of one run of the many of {many}; give flags by name")
        found = flags_of_run(found)
        _require_own_words(found, skipped, about)
    other = found.pop("command", command)
    if other != command:
        raise UserError(f"{about} is of the command {other}; give it to crysgnn {other}")
    flags = {a.dest: a for a in actions if a.option_strings and a.dest not in ("help", "config")}
    by_flag = {a.option_strings[0].removeprefix("--").replace("-", "_"): a for a in flags.values()}
    known = {**flags, **by_flag}
    words = []
    for key, value in found.items():
        action = known.get(key.replace("-", "_"))
        if action is None:
            alike = difflib.get_close_matches(str(key).replace("-", "_"), list(by_flag), 1)
            hint = (
                f"did you mean {alike[0]}?" if alike else f"there is {', '.join(sorted(by_flag))}"
            )
            raise UserError(f"{about}: {command} has no {key}; {hint}")
        if action.dest not in skipped:
            words += _words(action, value, about)
    return words


def flags_of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flags by name, from what a run was made with and the names that stand beside it.

    Args:
      config: content of its ``config.json``.

    Example:
      >>> flags_of_run({"made_with": {"command": "distill", "settings": {"epochs": 3}}})
      {'command': 'distill', 'epochs': 3}
    """
    made_with, named = config["made_with"], dict(config.get("named") or {})
    command = made_with.get("command")
    # Training from Python is what the command does.
    out: dict[str, Any] = {"command": "distill" if command == "train" else command}
    settings = dict(made_with.get("settings", {}))
    model = dict(made_with.get("model", {}))
    for name in ("data", "limit", "devices"):
        out[name] = made_with.get(name)
    out |= made_with.get("featuriser", {})
    if (rule := made_with.get("split", {}).get("rule")) is not None:
        out["split"] = rule
    if out["command"] == "pretrain":
        out |= {name: value for name, value in model.items() if name in ("width", "n_convolutions")}
        out["network"] = made_with.get("network")
        if out["network"] == "crysgnn" and "unit_length" not in model:
            out["recipe"] = "released"
        weights = dict(settings.pop("weights", {}))
        weights.pop("teacher_embeddings", None)  # which --follow is
        out["objectives"] = weights
        names = ("epochs", "batch_size", "accumulate", "learning_rate", "seed", "temperature")
        # Of a mixture of one's own, what an objective is set to stands under its name.
        settings |= settings.get("contrastive") or {}
        out |= {name: settings[name] for name in names if name in settings}
    else:
        if out["command"] == "finetune":
            out["freeze"] = model.get("freeze_encoder", False)
            for name in ("student", "weight", "pull", "taught_by"):
                settings.pop(name, None)
        elif out["command"] == "distill":
            out["set"] = {name: value for name, value in model.items() if value is not None}
            out["unlabelled_per_batch"] = made_with.get("unlabelled", {}).get("per_batch")
        settings.pop("pull_code", None)
        out |= settings
        out["unit"] = out.get("unit") or None
    out |= named
    return {name: value for name, value in out.items() if value not in (None, [], {})}


def _require_own_words(found: Mapping[str, Any], given: Collection[str], about: str) -> None:
    """Check that a run, which may be from elsewhere, has no code run that the user does not name.

    Raises:
      UserError: it names a module, and no flag does.
    """
    for name in ("student", "pull", "network"):
        if ":" in str(found.get(name, "")) and name not in given:
            raise UserError(
                f"{about} names code that is not the package's, {found[name]}, which would be run; "
                f"where you trust it, give --{name} {found[name]} too"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"`config` {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"`config` {path}: is no text; give YAML or JSON") from None
    try:
        if path.suffix.lower() == ".json":
            found = json.loads(text)
        else:
            import yaml

            found = yaml.safe_load(text)
    except Exception as error:  # of either library
        line = " ".join(str(error).split())
        raise UserError(f"`config` {path}: is neither YAML nor JSON ({line})") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"`config` {path}: give flags by name, a line each, such as epochs: 100")
    return found


def _words(action: argparse.Action, value: Any, about: str) -> list[str]:
    """A flag and its value, or values, as words."""
    flag = action.option_strings[0]
    if value is None:
        return []
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"{about}: {flag[2:]} is true or false, not {value!r}")
        return [flag] if value else []
    if isinstance(value, Mapping):
        value = [f"{name}={_text(part, flag, about)}" for name, part in value.items()]
    values = value if isinstance(value, list) else [value]
    texts = [_text(part, flag, about) for part in values]
    if action.nargs in ("+", "*"):
        return [flag, *texts] if texts else []
    if isinstance(action, argparse._AppendAction):
        return [f"{flag}={text}" for text in texts]
    # Several for one flag are separated by commas, as --students has them.
    return [f"{flag}={','.join(texts)}"]


def _text(value: Any, flag: str, about: str) -> str:
    if isinstance(value, (list, dict)):
        raise UserError(f"{about}: {flag[2:]} has a value within a value: {value!r}")
    return str(value)
