"""Settings that stand once: the fields of a dataclass carry what a flag says of them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any

from crysgnn_jax.errors import UserError


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


_BOUNDS: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    "positive int": (Integral, lambda value: value > 0, "a whole number greater than 0"),
    "natural int": (Integral, lambda value: value >= 0, "a whole number of at least 0"),
    "positive": (Real, lambda value: 0 < value < float("inf"), "a number greater than 0"),
    "not negative": (Real, lambda value: 0 <= value < float("inf"), "a number of at least 0"),
    "fraction": (Real, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
}
"""Kind of a setting → its type, what fits, and what to give."""


def require_bounds(settings: Any) -> None:
    """
    Raises:
      UserError: a value is not of the kind that its setting has, such as an ``epochs`` of 0.
    """
    for field in settings_of(type(settings)):
        value, about = getattr(settings, field.name), field.metadata
        if value is None or about["kind"] not in _BOUNDS:
            continue
        kind, fits, wanted = _BOUNDS[about["kind"]]
        if not (isinstance(value, kind) and fits(value)):
            raise UserError(f"`{field.name}` {value}: give {wanted}")


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
