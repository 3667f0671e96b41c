"""Settings that stand once: the fields of a dataclass carry what a flag says of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any


def setting(
    default: Any,
    help: str,
    *,
    kind: str = "",
    unit: str = "",
    choices: Sequence[str] = (),
    metavar: str = "",
    decides: bool = True,
) -> Any:
    """A field of a dataclass of settings.

    Args:
      default: where it is not given; None for one that depends on another thing, which ``help``
        names.
      help: what it is, in a line, without its default.
      kind: of a number: ``positive int``, ``natural int``, ``positive``, ``not negative``,
        ``fraction``; of others, empty.
      unit: of a number.
      choices: of a text, all there are.
      metavar: of its flag.
      decides: whether the outcome of a run depends on it.
    """
    about = {
        "help": help,
        "kind": kind,
        "unit": unit,
        "choices": tuple(choices),
        "metavar": metavar,
        "decides": decides,
    }
    return dataclasses.field(default=default, metadata=about)


def settings_of(kind: type) -> Iterator[dataclasses.Field]:
    """The fields of a dataclass that are settings."""
    return (field for field in dataclasses.fields(kind) if "help" in field.metadata)


def deciding(settings: Any) -> dict[str, Any]:
    """The values that the outcome of a run depends on."""
    return {
        field.name: getattr(settings, field.name)
        for field in settings_of(type(settings))
        if field.metadata["decides"]
    }
