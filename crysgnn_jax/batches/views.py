"""A padded batch as networks and losses see it: weighted rows, and links between them.

The input of every network is a padded `jraph.GraphsTuple` of static shape, as `loader.Batcher`
makes it. Three things about its arrays must not be forgotten by anyone who adds up over them: some
rows are padding; a row may stand for several equivalent atoms or edges; and further rows of the
same step lie on other devices. `Rows` and `Links` are the one place that knows: a sum, mean,
softmax or batch norm taken through them is right on whole and on reduced graphs, with any padding,
and over all devices.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import jraph

Axis = str | tuple[str, ...]
"""Name of the axis of devices in a step; or several, of which the first is that of devices, and
the others are of batches that one device has at the same time."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Spread:
    """Marks a batch as one of several, one a device; it rides in ``globals`` without an array.

    Attributes:
      axis: name of the axis of devices in the step that takes the batch.
      rounds: batches that a device takes one after the other: with more than one, the arrays have
        a leading axis of as many entries.
    """

    axis: Axis
    rounds: int = 1


SPREAD = "devices"
"""Where in ``globals`` the mark is."""


def mark_spread(graph: jraph.GraphsTuple, axis: Axis, rounds: int = 1) -> jraph.GraphsTuple:
    """The batch as one of several, one a device, along ``axis``; or ``rounds`` such batches."""
    return graph._replace(globals={**graph.globals, SPREAD: Spread(axis, rounds)})


def axis_of(graph: jraph.GraphsTuple) -> Axis | None:
    """The axis of devices that a batch is spread over; None where it is all there is."""
    mark = graph.globals.get(SPREAD)
    return None if mark is None else mark.axis


def rounds_of(graph: jraph.GraphsTuple) -> int:
    """How many batches a device takes one after the other, see `Spread`."""
    mark = graph.globals.get(SPREAD)
    return 1 if mark is None else mark.rounds


def over_devices(values: Any, axis: Axis | None):
    """Sum over the devices along an axis, of arrays of any shape; the gradient, too, is the sum of
    what the devices give."""
    first, *others = _each(axis) or (None,)
    if others:
        values = jax.lax.psum(values, tuple(others))
    return _over_devices(values, first)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _over_devices(values: Any, axis: str | None):
    return values if axis is None else jax.lax.psum(values, axis)


_over_devices.defvjp(
    lambda values, axis: (_over_devices(values, axis), None),
    lambda axis, _, gradient: (_over_devices(gradient, axis),),
)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["axis"])
@dataclasses.dataclass(frozen=True)
class Rows:
    """The atoms, edges, crystals … of a step: what is on this device, and how much each counts.

    Attributes:
      weights: ``[n]`` float32, what each row stands for: 0 for padding, m for m equivalent atoms.
        (Of more axes, ``[n, …]``, where rows are laid out in blocks.)
      axis: of the devices that have further rows of the same step; None for none.

    Example:
      >>> rows = Rows(jnp.array([2.0, 1.0, 0.0]))
      >>> float(rows.mean(jnp.array([1.0, 4.0, 99.0])))
      2.0
    """

    weights: jax.Array
    axis: Axis | None = None

    @property
    def real(self) -> jax.Array:
        """``[n]`` bool: which rows are no padding."""
        return self.weights > 0

    @property
    def count(self) -> jax.Array:
        """Scalar: the sum of the weights, over all devices."""
        return over_devices(jnp.sum(self.weights), self.axis)

    def total(self, values: jax.Array) -> jax.Array:
        """Weighted sum over the rows of all devices: ``[n, …]`` → ``[…]``, equal on each."""
        axes = tuple(range(self.weights.ndim))
        return over_devices(jnp.sum(values * _beside(self.weights, values), axes), self.axis)

    def mean(self, values: jax.Array) -> jax.Array:
        """Weighted mean over the rows of all devices: ``[n, …]`` → ``[…]``; 0 without rows."""
        # Where every weight is zero, so is the sum: any divisor but zero will do.
        return self.total(values) / jnp.where(self.count > 0, self.count, 1.0)

    def only(self, chosen: jax.Array) -> "Rows":
        """Those of the rows for which ``chosen`` ``[n]`` is true; the others become padding."""
        return Rows(self.weights * chosen, self.axis)

    def blank(self, values: jax.Array) -> jax.Array:
        """``[n, …]`` with 0 for padding."""
        return values * _beside(self.real, values)

    def everywhere(self, values: jax.Array) -> jax.Array:
        """``[n, …]`` → the rows of all devices, ``[n_device · n, …]``."""
        for axis in _each(self.axis):
            values = jax.lax.all_gather(values, axis, tiled=True)
        return values

    @property
    def numbers(self) -> jax.Array:
        """``[n]`` int32: where this device's rows stand among those of `everywhere`."""
        n = len(self.weights)
        first, size = jnp.zeros((), jnp.int32), n
        for axis in _each(self.axis):
            first += size * jax.lax.axis_index(axis)
            size *= jax.lax.psum(1, axis)
        return first + jnp.arange(n, dtype=jnp.int32)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["senders", "receivers", "counts", "ends"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Links:
    """Directed links between rows: edges between atoms, triplets between edges, atoms to crystals.

    Attributes:
      senders: ``[n_link]`` int32, the row that each comes from.
      receivers: ``[n_link]`` int32, the row that each leads to, in ascending order.
      counts: ``[n_link]`` float32, equal links of one receiver that each stands for; 0 for padding.
      ends: the rows that they lead to, ``[n]``.

    Example:
      ``edges.sum(edges.softmax(scores) * messages)``: attention over the neighbours of an atom
    """

    senders: jax.Array
    receivers: jax.Array
    counts: jax.Array
    ends: Rows

    @property
    def rows(self) -> Rows:
        """The links themselves, each with all links that it stands for: for statistics."""
        return Rows(self.counts * self.ends.weights[self.receivers], self.ends.axis)

    def sum(self, messages: jax.Array) -> jax.Array:
        """Sum of what one receiver of each kind is sent: ``[n_link, …]`` → ``[n, …]``."""
        return self._at_receivers(messages * _beside(self.counts, messages))

    def sum_sent(self, messages: jax.Array) -> jax.Array:
        """Sum of what all senders of a kind send: ``[n_link, …]`` → ``[n, …]``, of links that lead
        from a kind of rows to the same kind."""
        weighted = messages * _beside(self.rows.weights, messages)
        return jax.ops.segment_sum(weighted, self.senders, len(self.ends.weights))

    def softmax(self, scores: jax.Array) -> jax.Array:
        """Softmax over the links of each receiver, column by column: ``[n_link, d]`` → the same
        shape. To be summed by `sum`, which counts each link; 0 for padding."""
        scores = jnp.where(self.counts[:, None] > 0, scores, -1e9)
        # Finite: in a receiver of padding alone, ∞ − ∞ would arise.
        highest = jax.lax.stop_gradient(
            jax.ops.segment_max(
                scores, self.receivers, len(self.ends.weights), indices_are_sorted=True
            )
        )
        shares = jnp.exp(scores - highest[self.receivers]) * (self.counts > 0)[:, None]
        # A receiver of padding alone divides 0 by this and not by 0.
        return shares / (self.sum(shares) + 1e-16)[self.receivers]

    def _at_receivers(self, values: jax.Array) -> jax.Array:
        n = len(self.ends.weights)
        return jax.ops.segment_sum(values, self.receivers, n, indices_are_sorted=True)


def _each(axis: Axis | None) -> tuple[str, ...]:
    return () if axis is None else (axis,) if isinstance(axis, str) else axis


def _beside(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Weights ``[n]`` in the shape that multiplies ``[n, …]``."""
    return weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))


@dataclasses.dataclass(frozen=True)
class Batch:
    """The view of a padded batch.

    Made where it is needed, inside a network or a loss; it holds no array of its own.

    Attributes:
      graph: the batch.

    Example:
      ``batch = Batch(graph); batch.mean_of_atoms(batch.edges.sum(messages))``
    """

    graph: jraph.GraphsTuple

    @functools.cached_property
    def axis(self) -> Axis | None:
        """Axis of the devices that have further crystals of the step."""
        return axis_of(self.graph)

    @functools.cached_property
    def atoms(self) -> Rows:
        """The nodes, ``[n_node]``: each stands for all equivalent atoms of its crystal."""
        return Rows(jnp.asarray(self.graph.nodes["count"]), self.axis)

    @functools.cached_property
    def crystals(self) -> Rows:
        """The crystals, ``[n_graph]``."""
        graph = self.graph._replace(n_node=jnp.asarray(self.graph.n_node))
        return Rows(jraph.get_graph_padding_mask(graph).astype(jnp.float32), self.axis)

    @functools.cached_property
    def edges(self) -> Links:
        """The edges, from neighbour to centre: each stands for all equal edges of an atom."""
        graph = self.graph
        counts = jnp.asarray(graph.edges["count"])
        return Links(jnp.asarray(graph.senders), jnp.asarray(graph.receivers), counts, self.atoms)

    @functools.cached_property
    def members(self) -> Links:
        """From each node to its crystal, counting atoms: for pooling."""
        nodes = jnp.arange(len(self.atoms.weights), dtype=jnp.int32)
        return Links(nodes, self.crystal_of_node, self.atoms.weights, self.crystals)

    @functools.cached_property
    def triplets(self) -> Links:
        """From edge to edge: the second leaves the atom that the first arrives at. The edges of
        the line graph, whose nodes are the edges of the crystal graph."""
        found = self.graph.edges["triplets"]
        senders, receivers, counts = (
            jnp.asarray(found[name]) for name in ("senders", "receivers", "count")
        )
        return Links(senders, receivers, counts, self.edges.rows)

    @property
    def cosines(self) -> jax.Array:
        """``[n_triplet]``: of the angle between the two edges of a triplet; 1 for going back."""
        return self.graph.edges["triplets"]["cosines"]

    @property
    def species(self) -> jax.Array:
        """``[n_node]`` int32, atomic numbers; 0 for padding, and for what a network must guess."""
        return self.graph.nodes["species"]

    @property
    def distances(self) -> jax.Array:
        """``[n_edge]`` float32, Å."""
        return self.graph.edges["distances"]

    @property
    def vectors(self) -> jax.Array:
        """``[n_edge, 3]`` float32, Å, from the receiver to the image of the sender."""
        return self.graph.edges["vectors"]

    @functools.cached_property
    def crystal_of_node(self) -> jax.Array:
        """``[n_node]`` int32: the crystal that each node belongs to."""
        n_graph, n_node = len(self.graph.n_node), len(self.graph.nodes["species"])
        numbers = jnp.arange(n_graph, dtype=jnp.int32)
        return jnp.repeat(numbers, self.graph.n_node, total_repeat_length=n_node)

    @property
    def labels(self) -> jax.Array:
        """``[n_graph]`` float32, in the property's own unit; 0 where there is none."""
        return self.graph.globals["labels"][:, 0]

    @property
    def labelled(self) -> Rows:
        """The crystals that have a label, ``[n_graph]``."""
        return self.crystals.only(self.graph.globals["label_mask"][:, 0])

    @property
    def space_group(self) -> jax.Array:
        """``[n_graph]`` int32, international number 1 … 230; 0 for padding."""
        return self.graph.globals["space_group"]

    @property
    def crystal_system(self) -> jax.Array:
        """``[n_graph]`` int32, index in `symmetry.CRYSTAL_SYSTEMS`."""
        return self.graph.globals["crystal_system"]

    @property
    def teacher_embeddings(self) -> jax.Array:
        """``[n_node, d]``: the teacher's, in a step of distillation."""
        return self.graph.nodes["teacher_embeddings"]

    @property
    def followed(self) -> "Batch":
        """The batch as a pull sees it: crystals that the teacher cannot take have no atoms."""
        taught = self.graph.nodes.get("taught")
        return self if taught is None else self.with_nodes(count=self.atoms.weights * taught[:, 0])

    def mean_of_atoms(self, values: jax.Array) -> jax.Array:
        """Mean over the atoms of each crystal: ``[n_node, d]`` → ``[n_graph, d]``; 0 for empty
        ones."""
        members = self.members
        n_atoms = members.sum(jnp.ones_like(members.counts))
        return members.sum(values) / jnp.maximum(n_atoms, 1.0)[:, None]

    def with_nodes(self, **columns: jax.Array) -> "Batch":
        """The same batch with other columns of nodes."""
        return Batch(self.graph._replace(nodes={**self.graph.nodes, **columns}))

    def with_edges(self, **columns: jax.Array) -> "Batch":
        """The same batch with other columns of edges."""
        return Batch(self.graph._replace(edges={**self.graph.edges, **columns}))

    def with_crystals(self, **columns: jax.Array) -> "Batch":
        """The same batch with other columns of crystals."""
        return Batch(self.graph._replace(globals={**self.graph.globals, **columns}))
