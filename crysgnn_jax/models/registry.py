"""The networks by name. A new student takes a file beside this one, and a line here."""

import ast
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jraph
import numpy as np

from crysgnn_jax.errors import UserError
from crysgnn_jax.models import alignn, cgcnn, crysxpp, gatgnn
from crysgnn_jax.models.crysae import CrysAE
from crysgnn_jax.models.protocol import Prediction, Student
from crysgnn_jax.models.teacher import Teacher

STUDENTS: dict[str, Student] = {
    "cgcnn": cgcnn.STUDENT,
    "crysxpp": crysxpp.STUDENT,
    "gatgnn": gatgnn.STUDENT,
    "alignn": alignn.STUDENT,
}
"""Name on the command line → what it is."""

TEACHERS: dict[str, type[nn.Module]] = {"crysgnn": Teacher, "crysae": CrysAE}
"""Networks that learn without labels. Called as ``module(graph, train, n_block=…)``; their method
``embed(graph, train)`` gives the atom embeddings alone."""

_NOT_SETTINGS = ("cutoff", "axis_name", "parent", "name")
"""Attributes of a module that the graphs and devices decide, and Flax's own."""


def find_student(name: str) -> Student:
    """The student of a name, or a user's own from ``package.module:NAME``.

    NAME is a class of Flax modules, which then has the defaults of `Student`, or a `Student`.

    Raises:
      UserError: there is no student of that name, or what the path leads to is none.
    """
    if name in STUDENTS:
        return STUDENTS[name]
    module_name, colon, member = name.partition(":")
    if not (module_name and colon and member):
        raise UserError(
            f"--student {name}: there is {', '.join(STUDENTS)}, or a Flax module of your own as "
            "package.module:ClassName"
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a stranger's file does wrong
        raise UserError(
            f"--student {name}: {module_name} cannot be imported ({_one_line(error)}); run the "
            "command where Python finds it, or set PYTHONPATH"
        ) from error
    if not hasattr(module, member):
        raise UserError(f"--student {name}: {module_name} has no {member}")
    found = getattr(module, member)
    if isinstance(found, Student):
        return found
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"--student {name}: {member} is not a class of flax.linen.Module")
    return Student(found)


def _one_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def parse_settings(pairs: Sequence[str], student: Student) -> dict[str, Any]:
    """``["width=32", "attention=composition"]`` → values by name: Python literals, else text.

    Raises:
      UserError: one is not of the form NAME=VALUE, names no setting of the student's module, or
        is of another type than its default.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(student.module)}
    allowed = sorted(defaults.keys() - {*_NOT_SETTINGS, *student.not_settings})
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise UserError(f"--set {pair}: write NAME=VALUE, such as width=32")
        if name not in allowed:
            raise UserError(
                f"--set {pair}: {student.module.__name__} has the settings "
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
        settings[name] = value
    return settings


def build(module: type[nn.Module], settings: Mapping[str, Any], **given: Any) -> nn.Module:
    """A module with its settings, and with those of ``given`` that it has attributes for.

    Raises:
      UserError: the module cannot be made of them.
    """
    known = {field.name for field in dataclasses.fields(module)}
    try:
        return module(**{**{k: v for k, v in given.items() if k in known}, **settings})
    except Exception as error:  # whatever a stranger's module does wrong
        raise UserError(f"{module.__name__} cannot be made ({_one_line(error)})") from error


def plain_settings(module: nn.Module) -> dict[str, Any]:
    """The settings of a module that are numbers, text or None, those at their defaults too."""
    values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    plain = (bool, int, float, str, type(None))
    return {
        name: value
        for name, value in values.items()
        if name not in _NOT_SETTINGS and isinstance(value, plain)
    }


def smallest_batch() -> jraph.GraphsTuple:
    """One crystal of one atom without neighbours, and padding: what every batch holds, with which
    a module can be tried without computing anything. No two lengths are the same."""
    n_edge, n_node, n_graph = 4, 3, 2
    ones = np.ones(n_graph, np.int32)
    labels = np.zeros((n_graph, 1), np.float32)
    return jraph.GraphsTuple(
        nodes={"species": np.array([1, 0, 0], np.int32)},
        edges={
            "distances": np.zeros(n_edge, np.float32),
            "vectors": np.zeros((n_edge, 3), np.float32),
        },
        receivers=np.ones(n_edge, np.int32),
        senders=np.ones(n_edge, np.int32),
        globals={
            "row": ones,
            "labels": labels,
            "label_mask": labels,
            "space_group": ones,
            "crystal_system": ones,
        },
        n_node=np.array([1, n_node - 1], np.int32),
        n_edge=np.array([0, n_edge], np.int32),
    )


def require_protocol(module: nn.Module, name: str) -> None:
    """Check that a module is a student, without computing anything.

    Args:
      module: called as ``module(graph, train)``, in both modes, as a training step calls it.
      name: of the student, for the message.

    Raises:
      UserError: it fails on a batch, returns something else than a `Prediction`, or arrays of
        other shapes than ``[n_graph]`` and ``[n_node, d]``.
    """
    graph = smallest_batch()
    n_node, n_graph = len(graph.nodes["species"]), len(graph.n_node)
    if hasattr(module, "axis_name"):
        module = module.clone(axis_name=None)  # there are no devices to sum over here

    def outputs(key):
        variables = module.init(key, graph, True)
        known = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
        trained, _ = module.apply(
            known, graph, True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return trained, module.apply(known, graph, False)

    try:
        both = jax.eval_shape(outputs, jax.random.key(0))
    except Exception as error:  # whatever a stranger's module does wrong
        raise UserError(
            f"--student {name}: calling it as module(graph, train) failed: {_one_line(error)}"
        ) from error
    for output in both:
        if not isinstance(output, Prediction):
            raise UserError(
                f"--student {name}: it returned {type(output).__name__}; return "
                "crysgnn_jax.models.protocol.Prediction(prediction, embeddings)"
            )
        shape = getattr(output.prediction, "shape", "?")
        if shape != (n_graph,):
            raise UserError(
                f"--student {name}: its prediction has shape {shape} for a batch of {n_graph}, not "
                "[n_graph]: one number a crystal, padding included"
            )
        shape = getattr(output.embeddings, "shape", ())
        if len(shape) != 2 or shape[0] != n_node:
            raise UserError(
                f"--student {name}: its embeddings have shape {shape} for a batch of {n_node} "
                "atoms, not [n_node, d]: one vector an atom, padding included"
            )
        if output.penalty is not None and getattr(output.penalty, "shape", None) != ():
            raise UserError(f"--student {name}: its penalty is not a scalar array")
