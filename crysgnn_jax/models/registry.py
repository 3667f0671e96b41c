"""The property predictors by name. A new student takes a file beside this one, and a line here."""

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jraph
import numpy as np

from crysgnn_jax.batches.needs import Needs
from crysgnn_jax.errors import UserError
from crysgnn_jax.members import find_member, one_line
from crysgnn_jax.models import alignn, cgcnn, crysxpp, gatgnn
from crysgnn_jax.models.network import Network, Prediction

STUDENTS: dict[str, Network] = {
    "cgcnn": cgcnn.NETWORK,
    "crysxpp": crysxpp.NETWORK,
    "gatgnn": gatgnn.NETWORK,
    "alignn": alignn.NETWORK,
}
"""Name on the command line → what it is."""

OTHERS: dict[str, Network] = {"fine-tuned": cgcnn.FINE_TUNED, "cgcnn-classifier": cgcnn.CLASSIFIER}
"""Predictors that other commands than `distill` make."""

RESERVED = ("cutoff", "parent", "name")
"""Attributes of a module that the graphs decide, and Flax's own."""


def find_network(name: str) -> Network:
    """The student of a name, or a user's own from ``package.module:NAME``.

    NAME is a class of Flax modules, which then has the defaults of `Network`, or a `Network`.

    Raises:
      UserError: there is no student of that name, or what the path leads to is none.
    """
    if found := {**STUDENTS, **OTHERS}.get(name.lower() if ":" not in name else name):
        return found
    alike = difflib.get_close_matches(name.lower(), [*STUDENTS, *OTHERS], 1)
    found = find_member(
        name,
        "student",
        (f"did you mean {alike[0]}? " if alike else "")
        + f"there is {', '.join(STUDENTS)}, or a Flax module of your own as "
        "package.module:ClassName",
    )
    if isinstance(found, Network):
        return found
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        member = name.rpartition(":")[2]
        raise UserError(f"`student` {name}: {member} is not a class of flax.linen.Module")
    return Network(found)


def build(module: type[nn.Module], settings: Mapping[str, Any], **given: Any) -> nn.Module:
    """A module with its settings, and with those of ``given`` that it has attributes for.

    Raises:
      UserError: the module cannot be made of them.
    """
    known = {field.name for field in dataclasses.fields(module)}
    try:
        return module(**{**{k: v for k, v in given.items() if k in known}, **settings})
    except Exception as error:  # whatever a stranger's module does wrong
        raise UserError(f"{module.__name__} cannot be made ({one_line(error)})") from error


def build_student(
    name: str, network: Network, settings: Mapping[str, Any], cutoff: float
) -> nn.Module:
    """The module of a student, checked to be one where it is not as it comes with the package.

    Args:
      name: as of `find_network`.
      network: what it is.
      settings: of its module, that differ from the defaults.
      cutoff: Å, of the graphs.

    Raises:
      UserError: as of `build` and `require_protocol`.
    """
    module = build(network.module, settings, cutoff=cutoff)
    if name not in STUDENTS or settings:
        require_protocol(module, network.needs, name)
    return module


def plain_settings(module: nn.Module) -> dict[str, Any]:
    """The settings of a module that are numbers, text or None, those at their defaults too."""
    values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    plain = (bool, int, float, str, type(None))
    return {
        name: value
        for name, value in values.items()
        if name not in RESERVED and isinstance(value, plain)
    }


def smallest_batch(needs: Needs) -> jraph.GraphsTuple:
    """One crystal of one atom without neighbours, and padding: what every batch holds, with which
    a module can be tried without computing anything. No two lengths are the same."""
    n_pair, n_triplet, n_edge, n_node, n_graph = 6, 5, 4, 3, 2
    ones = np.ones(n_graph, np.int32)
    labels = np.zeros((n_graph, 1), np.float32)

    def padding(n: int, n_end: int) -> dict[str, np.ndarray]:
        ends = np.full(n, n_end - 1, np.int32)
        return {"receivers": ends, "senders": ends, "count": np.zeros(n, np.float32)}

    columns = {
        "distances": np.zeros(n_edge, np.float32),
        "vectors": np.zeros((n_edge, 3), np.float32),
    }
    lists = {
        "triplets": {
            "triplets": {
                **padding(n_triplet, n_edge),
                "cosines": np.zeros(n_triplet, np.float32),
            }
        },
        "pairs": {
            "pairs": {**padding(n_pair, n_node), "n_edges": np.zeros(n_pair, np.int32)},
            "blocks": {"crystals": np.zeros(1, np.int32)},
        },
    }
    edges = padding(n_edge, n_node)
    return jraph.GraphsTuple(
        nodes={
            "species": np.array([1, 0, 0], np.int32),
            "count": np.array([1, 0, 0], np.float32),
        },
        edges={
            "count": edges["count"],
            **{name: columns[name] for name in needs.edges},
            **{name: entries for wanted in needs.lists for name, entries in lists[wanted].items()},
        },
        receivers=edges["receivers"],
        senders=edges["senders"],
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


def require_protocol(module: nn.Module, needs: Needs, name: str) -> None:
    """Check that a module is a student, without computing anything.

    Args:
      module: called as ``module(graph, train)``, in both modes, as a training step calls it.
      needs: what its batches hold.
      name: of the student, for the message.

    Raises:
      UserError: it fails on a batch, returns something else than a `Prediction`, or arrays of
        other shapes than ``[n_graph]`` and ``[n_node, d]``.
    """
    graph = smallest_batch(needs)
    n_node, n_graph = len(graph.nodes["species"]), len(graph.n_node)
    if hasattr(module, "axis_name"):
        raise UserError(
            f"`student` {name}: it has an attribute axis_name, which nobody sets; take sums and "
            "batch statistics through Rows and Links, which know the devices (docs/own_student.md)"
        )

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
            f"`student` {name}: calling it as module(graph, train) failed: {one_line(error)}"
        ) from error
    for output in both:
        if not isinstance(output, Prediction):
            what = type(output).__name__
            if isinstance(output, jax.ShapeDtypeStruct):
                what = f"an array of shape {output.shape}"
            raise UserError(
                f"`student` {name}: it returned {what}; return "
                "crysgnn_jax.Prediction(prediction, embeddings)"
            )
        shape = getattr(output.prediction, "shape", "?")
        if shape != (n_graph,):
            raise UserError(
                f"`student` {name}: its prediction has shape {shape} for a batch of {n_graph}, not "
                "[n_graph]: one number a crystal, padding included"
            )
        shape = getattr(output.embeddings, "shape", ())
        if len(shape) != 2 or shape[0] != n_node:
            raise UserError(
                f"`student` {name}: its embeddings have shape {shape} for a batch of {n_node} "
                "atoms, not [n_node, d]: one vector an atom, padding included"
            )
        if output.penalty is not None and getattr(output.penalty, "shape", None) != ():
            raise UserError(f"`student` {name}: its penalty is not a scalar array")


def name_of(network: str | type[nn.Module] | Network) -> tuple[str, Network]:
    """A network's name, by which `find_network` finds it again, and the network.

    Args:
      network: a name; a class of Flax modules; or a `Network`, which has a name where it stands
        in the same file as its module.

    Raises:
      UserError: as of `find_network`; or a `Network` stands in no file under a name of its own.
    """
    if isinstance(network, str):
        return network, find_network(network)
    for name, known in {**STUDENTS, **OTHERS}.items():
        if network in (known, known.module):
            return name, known
    if not isinstance(network, Network):
        path = f"{network.__module__}:{network.__qualname__}"
        return path, Network(network)
    home = sys.modules[network.module.__module__]
    for name, value in vars(home).items():
        if value is network:
            return f"{home.__name__}:{name}", network
    raise UserError(
        f"the Network of {network.module.__name__} has no name; write NETWORK = Network(…) in "
        f"{home.__name__}, beside the module, so that its runs can be loaded again"
    )
