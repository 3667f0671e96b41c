"""The networks by name. A new student takes a file beside this one, and a line here."""

import ast
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jraph

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
    """The student of a name, or a user's own from ``package.module:ClassName``.

    A class may carry a `Student` of its defaults as its attribute ``student``; otherwise those of
    `Student` hold.

    Raises:
      UserError: there is no student of that name, or no such class, or it is no Flax module.
    """
    if name in STUDENTS:
        return STUDENTS[name]
    if ":" not in name:
        raise UserError(
            f"--student {name}: there is {', '.join(STUDENTS)}, or a Flax module of your own as "
            "package.module:ClassName"
        )
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise UserError(
            f"--student {name}: {module_name} cannot be imported ({error}); run the command where "
            "Python finds it, or set PYTHONPATH"
        ) from error
    except AttributeError:
        raise UserError(f"--student {name}: {module_name} has no {class_name}") from None
    if isinstance(found, Student):
        return found
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"--student {name}: {class_name} is not a class of flax.linen.Module")
    return Student(found)


def build(module: type[nn.Module], settings: Mapping[str, Any], **given: Any) -> nn.Module:
    """A module with its settings, and with those of ``given`` that it has attributes for.

    Raises:
      UserError: a setting is not an attribute of the module; lists those it has.
    """
    known = {field.name for field in dataclasses.fields(module)}
    for name in settings:
        if name not in known:
            listed = ", ".join(sorted(known - set(_NOT_SETTINGS))) or "none"
            raise UserError(f"--set {name}: {module.__name__} has the settings {listed}")
    return module(**{**{k: v for k, v in given.items() if k in known}, **settings})


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """``["width=32", "attention=composition"]`` → values by name: Python literals, else text.

    Raises:
      UserError: one is not of the form NAME=VALUE, or names what the run decides.
    """
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise UserError(f"--set {pair}: write NAME=VALUE, such as width=32")
        if name in _NOT_SETTINGS:
            raise UserError(f"--set {pair}: the run decides this; see --cutoff and --devices")
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[name] = text
    return settings


def require_protocol(module: nn.Module, graph: jraph.GraphsTuple, name: str) -> int:
    """Check that a module is a student, without computing anything.

    Args:
      module: called as ``module(graph, train)``, in both modes.
      graph: a padded batch.
      name: of the student, for the message.

    Returns:
      The width of its embeddings.

    Raises:
      UserError: it fails on the batch, returns something else than a `Prediction`, or arrays of
        other shapes than ``[n_graph]`` and ``[n_node, d]``.
    """
    n_node, n_graph = len(graph.nodes["species"]), len(graph.n_node)
    apply = lambda train: jax.eval_shape(
        lambda key: module.init_with_output(key, graph, train)[0], jax.random.key(0)
    )
    try:
        outputs = [apply(train) for train in (True, False)]
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's module does wrong
        raise UserError(
            f"--student {name}: calling it as module(graph, train) failed: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    for output in outputs:
        if not isinstance(output, Prediction):
            raise UserError(
                f"--student {name}: it returned {type(output).__name__}; return "
                "crysgnn_jax.models.protocol.Prediction(prediction, embeddings)"
            )
        prediction, embeddings = output.prediction, output.embeddings
        if getattr(prediction, "shape", None) != (n_graph,):
            raise UserError(
                f"--student {name}: its prediction has shape "
                f"{list(getattr(prediction, 'shape', ['?']))}, not [n_graph] = [{n_graph}]: one "
                "number a crystal, padding included"
            )
        shape = getattr(embeddings, "shape", ())
        if len(shape) != 2 or shape[0] != n_node:
            raise UserError(
                f"--student {name}: its embeddings have shape {list(shape)}, not [n_node, d] = "
                f"[{n_node}, d]: one vector an atom, padding included"
            )
        if output.penalty is not None and getattr(output.penalty, "shape", None) != ():
            raise UserError(f"--student {name}: its penalty is not a scalar array")
    return outputs[0].embeddings.shape[1]
