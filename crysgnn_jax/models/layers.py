"""The layers that the crystal graph networks share."""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from crysgnn_jax.crystals.elements import element_features
from crysgnn_jax.models.graph import multiplicities


def torch_uniform(fan_in: int):
    """Uniform on ±1/√fan_in: the initialisation of PyTorch's linear layers, which the published
    models start from."""
    limit = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def dense(
    features: int, fan_in: int, *, use_bias: bool = True, name: str | None = None
) -> nn.Dense:
    """``nn.Dense`` initialised as PyTorch's ``Linear(fan_in, features)``."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        kernel_init=torch_uniform(fan_in),
        bias_init=torch_uniform(fan_in),
        name=name,
    )


def atom_features(species: jax.Array) -> jax.Array:
    """The 92 binary element features: ``[n_node]`` atomic numbers → ``[n_node, 92]``."""
    return jnp.asarray(element_features())[species]


def gaussian_basis(distances: jax.Array, *, stop: float = 8.0, spacing: float = 0.2) -> jax.Array:
    """Distances on a grid of Gaussians, exp(−(d − μ)²/spacing²) with μ = 0, spacing … stop.

    CGCNN (Xie and Grossman 2018); 41 of them with the defaults.

    Args:
      distances: ``[n_edge]``, Å.
      stop: Å, last centre.
      spacing: Å, between centres, and the width of each Gaussian.

    Returns:
      ``[n_edge, round(stop / spacing) + 1]``
    """
    centres = np.linspace(0.0, stop, round(stop / spacing) + 1, dtype=np.float32)
    return jnp.exp(-jnp.square((distances[:, None] - centres) / spacing))


@jax.custom_vjp
def softplus(x: jax.Array) -> jax.Array:
    """log(1 + eˣ), elementwise, without overflow, with the logistic function as its gradient.

    ``log(1 + e)`` rather than ``log1p(e)``: the argument e^(−|x|) is at most 1, so the result is
    off by 6e-8 at most, and the loop vectorises.
    """
    return jnp.maximum(x, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(x)))


def _softplus_forward(x):
    return softplus(x), x


def _softplus_backward(x, gradient):
    return (gradient * jax.nn.sigmoid(x),)


softplus.defvjp(_softplus_forward, _softplus_backward)


@jax.custom_vjp
def gate(a: jax.Array, b: jax.Array) -> jax.Array:
    """σ(a) ⊙ softplus(b), elementwise.

    Both factors and the derivative of the second are kept for the backward pass: on a CPU the
    exponentials cost several times what writing and reading them costs.
    """
    return jax.nn.sigmoid(a) * softplus(b)


def _gate_forward(a, b):
    exponential = jnp.exp(-jnp.abs(b))
    reciprocal = 1.0 / (1.0 + exponential)
    slope = jnp.where(b >= 0.0, reciprocal, exponential * reciprocal)
    amount = jnp.maximum(b, 0.0) + jnp.log(1.0 + exponential)
    opening = jax.nn.sigmoid(a)
    return opening * amount, (opening, amount, slope)


def _gate_backward(residuals, gradient):
    opening, amount, slope = residuals
    through = gradient * opening
    return through * (1.0 - opening) * amount, through * slope


gate.defvjp(_gate_forward, _gate_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def total(values, axis_name: str | None):
    """Sum over the devices along an axis, of arrays of any shape; the gradient, too, is the sum of
    what the devices give."""
    return values if axis_name is None else jax.lax.psum(values, axis_name)


total.defvjp(
    lambda values, axis_name: (total(values, axis_name), None),
    lambda axis_name, _, gradient: (total(gradient, axis_name),),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def standardise(x: jax.Array, weights: jax.Array, axis_name: str | None, epsilon: float):
    """Centre and scale each column of ``x`` by weighted statistics of its rows.

    The backward pass is written out: differentiating the two reductions costs twice the passes
    over ``x``. No gradient flows through the returned statistics.

    Args:
      x: ``[n, d]``
      weights: ``[n]``, rows that each row stands for; 0.0 for padding.
      axis_name: the statistics cover the rows of all devices along this axis.
      epsilon: added to the variance.

    Returns:
      ``x̂ [n, d]``, mean ``[d]``, biased variance ``[d]``, sum of the weights (scalar).
    """
    return _standardise_forward(x, weights, axis_name, epsilon)[0]


def _standardise_forward(x, weights, axis_name, epsilon):
    count = total(jnp.sum(weights), axis_name)
    rows = jnp.maximum(count, 1.0)
    mean = total(jnp.sum(x * weights[:, None], axis=0), axis_name) / rows
    centred = x - mean
    variance = total(jnp.sum(jnp.square(centred) * weights[:, None], axis=0), axis_name) / rows
    inverse = jax.lax.rsqrt(variance + epsilon)
    x_hat = centred * inverse
    return (x_hat, mean, variance, count), (x, mean, inverse, weights, rows)


def _standardise_backward(axis_name, epsilon, residuals, gradients):
    x, mean, inverse, weights, rows = residuals
    # Padding rows get no gradient and take no part in the means.
    gradient = gradients[0] * (weights > 0)[:, None]
    x_hat = (x - mean) * inverse
    gradient_mean = total(jnp.sum(gradient, axis=0), axis_name) / rows
    gradient_slope = total(jnp.sum(gradient * x_hat, axis=0), axis_name) / rows
    shift = (gradient_mean + x_hat * gradient_slope) * weights[:, None]
    return inverse * (gradient - shift), None


standardise.defvjp(_standardise_forward, _standardise_backward)


class Edges(NamedTuple):
    """The edges of a padded batch, and what sums over them need.

    Attributes:
      features: ``[n_edge, e]``, u; zero for padding.
      senders: ``[n_edge]``, neighbour k of each edge.
      receivers: ``[n_edge]``, centre i of each edge, in ascending order.
      multiplicity: ``[n_edge]``, w: edges of one atom that each stands for; 0 for padding.
      node_multiplicity: ``[n_node]``, m: atoms that each node stands for; 0 for padding.
      moments: of the features; None where the statistics of batch norms are known.
    """

    features: jax.Array
    senders: jax.Array
    receivers: jax.Array
    multiplicity: jax.Array
    node_multiplicity: jax.Array
    moments: "Moments | None" = None

    @classmethod
    def of(cls, features: jax.Array, graph: jraph.GraphsTuple) -> "Edges":
        """The edges of a batch with features ``[n_edge, e]``; padding may have any."""
        nodes, edges = multiplicities(graph)
        features = features * (edges > 0)[:, None]
        return cls(features, graph.senders, graph.receivers, edges, nodes)

    def with_moments(self, axis_name: str | None = None) -> "Edges":
        """With moments over the edges of all devices along an axis."""
        return self._replace(moments=Moments.of(self, axis_name))

    @property
    def weights(self) -> jax.Array:
        """``[n_edge]``, w·m: edges of the whole crystal that each stands for."""
        return self.multiplicity * self.node_multiplicity[self.receivers]

    def at_centres(self, values: jax.Array) -> jax.Array:
        """``Σ_k w_ik x_ik`` of ``[n_edge, …]``: ``[n_node, …]``."""
        weights = self.multiplicity.reshape(-1, *[1] * (values.ndim - 1))
        return jax.ops.segment_sum(
            values * weights, self.receivers, len(self.node_multiplicity), indices_are_sorted=True
        )

    def at_neighbours(self, values: jax.Array) -> jax.Array:
        """``Σ_i w_ik m_i x_ik`` of ``[n_edge, …]``: ``[n_node, …]``."""
        weights = self.weights.reshape(-1, *[1] * (values.ndim - 1))
        return jax.ops.segment_sum(values * weights, self.senders, len(self.node_multiplicity))


class Moments(NamedTuple):
    """Sums over the edges of a batch that do not depend on parameters.

    Weighted by how many edges each stands for. u is taken less its mean.

    Attributes:
      count: scalar, edges of all devices.
      received: ``[n_node]``, edges that all atoms of a node receive.
      sent: ``[n_node]``, edges that they send.
      mean: ``[e]``, mean of u over the edges of all devices.
      at_centres: ``[n_node, e]``, Σ u over the edges that one atom receives.
      at_neighbours: ``[n_node, e]``, Σ u over the edges that all atoms of a node send.
      gram: ``[e, e]``, Σ u uᵀ over the edges of this device.
    """

    count: jax.Array
    received: jax.Array
    sent: jax.Array
    mean: jax.Array
    at_centres: jax.Array
    at_neighbours: jax.Array
    gram: jax.Array

    @classmethod
    def of(cls, edges: Edges, axis_name: str | None) -> "Moments":
        weights = edges.weights
        count = total(jnp.sum(weights), axis_name)
        mean = total(_product(weights, edges.features), axis_name) / jnp.maximum(count, 1.0)
        centred = (edges.features - mean) * (weights > 0)[:, None]
        ones = jnp.ones_like(weights)
        return cls(
            count=count,
            received=edges.at_centres(ones) * edges.node_multiplicity,
            sent=edges.at_neighbours(ones),
            mean=mean,
            at_centres=edges.at_centres(centred),
            at_neighbours=edges.at_neighbours(centred),
            gram=_product(centred.T, centred * weights[:, None]),
        )


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product in full single precision, also where the hardware would round its factors:
    a variance is what is left of terms that may cancel."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def sum_statistics(
    centres: jax.Array,
    neighbours: jax.Array,
    kernel: jax.Array,
    edges: Edges,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Mean and variance over the edges of ``c_i + n_k + u_ik K``, without forming it.

    With each of the three less its own mean, the variance is a quadratic form in them: squares of
    atoms, products of an atom with the sum over its neighbours or its edges' features, and
    ``Kᵀ (Σ u uᵀ) K``. All that runs over edges is one sum of neighbours' vectors; the rest are
    products of the size of atoms.

    Args:
      centres: ``[n_node, d]``, c.
      neighbours: ``[n_node, d]``, n.
      kernel: ``[e, d]``, K.
      edges: u and the graph.
      axis_name: device axis of the statistics.

    Returns:
      Mean ``[d]`` and biased variance ``[d]``.
    """
    known = edges.moments
    rows = jnp.maximum(known.count, 1.0)
    # Padding nodes may hold anything.
    real = (edges.node_multiplicity > 0)[:, None]
    centres, neighbours = centres * real, neighbours * real
    mean_centre = total(_product(known.received, centres), axis_name) / rows
    mean_neighbour = total(_product(known.sent, neighbours), axis_name) / rows
    c, n = (centres - mean_centre) * real, (neighbours - mean_neighbour) * real
    received = edges.at_centres(n[edges.senders]) + _product(known.at_centres, kernel)
    received = received * edges.node_multiplicity[:, None]
    sent = _product(known.at_neighbours, kernel)
    squares = (
        _product(known.received, jnp.square(c))
        + _product(known.sent, jnp.square(n))
        + 2.0 * jnp.sum(c * received + n * sent, axis=0)
        + jnp.sum(kernel * _product(known.gram, kernel), axis=0)
    )
    variance = total(squares, axis_name) / rows
    mean = mean_centre + mean_neighbour + _product(known.mean, kernel)
    return mean, jnp.maximum(variance, 0.0)


class _RunningStatistics(nn.Module):
    """Scale, bias and running statistics of a batch norm.

    Running statistics follow PyTorch: new = 0.9 · old + 0.1 · batch, with the unbiased variance.

    Attributes:
      axis_name: name of the device axis over which statistics are taken, if any.
      momentum: weight of the new statistics.
      epsilon: added to the variance.
    """

    axis_name: str | None = None
    momentum: float = 0.1
    epsilon: float = 1e-5

    def _affine(self, width: int) -> tuple[jax.Array, jax.Array]:
        return (
            self.param("scale", nn.initializers.ones, (width,)),
            self.param("bias", nn.initializers.zeros, (width,)),
        )

    def _running(self, width: int) -> tuple[nn.Variable, nn.Variable]:
        return (
            self.variable("batch_stats", "mean", jnp.zeros, (width,)),
            self.variable("batch_stats", "var", jnp.ones, (width,)),
        )

    def _axis(self) -> str | None:
        # There are no devices to sum over while parameters are being made.
        return None if self.is_initializing() else self.axis_name

    def _follow(
        self,
        running: tuple[nn.Variable, nn.Variable],
        mean: jax.Array,
        variance: jax.Array,
        count: jax.Array,
    ) -> None:
        """Move the running statistics towards those of a batch of ``count`` rows."""
        if self.is_initializing():
            return
        # A step that sees no row at all leaves the statistics as they are.
        step = jnp.where(count > 0, self.momentum, 0.0)
        unbiased = variance * count / jnp.maximum(count - 1.0, 1.0)
        for variable, new in zip(running, (mean, unbiased)):
            variable.value += step * (new - variable.value)


class MaskedBatchNorm(_RunningStatistics):
    """Batch normalisation over the real rows of a padded batch, across devices."""

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, train: bool) -> jax.Array:
        """``[n, d]`` and the rows that each row stands for ``[n]``, 0 for padding → ``[n, d]``."""
        scale, bias = self._affine(x.shape[-1])
        running = mean, variance = self._running(x.shape[-1])
        if not train:
            return (x - mean.value) * (scale * jax.lax.rsqrt(variance.value + self.epsilon)) + bias
        x_hat, *statistics = standardise(x, weights, self._axis(), self.epsilon)
        self._follow(running, *statistics)
        return x_hat * scale + bias


class EdgeBatchNorm(_RunningStatistics):
    """Batch normalisation of ``c_i + n_k + u_ik K``, a linear function of two atoms and an edge.

    Its statistics are known before it is formed (`sum_statistics`), and with known statistics a
    batch norm is one more linear map: applied to c, n and K, where there are fewest rows.
    """

    @nn.compact
    def __call__(
        self,
        centres: jax.Array,
        neighbours: jax.Array,
        kernel: jax.Array,
        edges: Edges,
        train: bool,
    ) -> jax.Array:
        """``[n_node, d]`` twice and ``[e, d]`` → ``[n_edge, d]``."""
        scale, bias = self._affine(centres.shape[-1])
        running = self._running(centres.shape[-1])
        mean, variance = (variable.value for variable in running)
        if train:
            mean, variance = sum_statistics(centres, neighbours, kernel, edges, self._axis())
            self._follow(running, mean, variance, edges.moments.count)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        of_centres = centres * factor + (bias - mean * factor)
        of_neighbours, of_features = neighbours * factor, edges.features @ (kernel * factor)
        return of_centres[edges.receivers] + of_neighbours[edges.senders] + of_features


class GatedConvolution(nn.Module):
    """The convolution of CGCNN (Xie and Grossman 2018, eq. 5) with its batch norms.

    ``v_i ← softplus(v_i + BN(Σ_k σ(BN(z_ik W_f + b_f)) ⊙ softplus(BN(z_ik W_s + b_s))))`` with
    ``z_ik = v_i ⊕ v_k ⊕ u_ik``. The weight is applied in three parts, so that the two atom parts
    are multiplied once an atom and not once an edge, and z is never formed; gate (f) and core (s)
    are separate tensors throughout, since slicing one tensor costs a copy in the backward pass.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, nodes: jax.Array, edges: Edges, train: bool) -> jax.Array:
        """One round of messages.

        Args:
          nodes: ``[n_node, d]``
          edges: with u as their features.
          train: use the batch's statistics, and update the running ones.

        Returns:
          ``[n_node, d]``
        """
        width = nodes.shape[1]
        fan_in = 2 * width + edges.features.shape[1]

        def normalised(name: str) -> jax.Array:
            kernel = self.param(f"{name}_kernel", torch_uniform(fan_in), (fan_in, width))
            bias = self.param(f"{name}_bias", torch_uniform(fan_in), (width,))
            of_centre, of_neighbour, of_edge = jnp.split(kernel, (width, 2 * width))
            norm = EdgeBatchNorm(self.axis_name, name=f"{name}_norm")
            return norm(nodes @ of_centre + bias, nodes @ of_neighbour, of_edge, edges, train)

        messages = edges.at_centres(gate(normalised("gate"), normalised("core")))
        norm = MaskedBatchNorm(self.axis_name, name="node_norm")
        update = norm(messages, edges.node_multiplicity, train)
        # Padding edges carry nothing, but what padding nodes hold must not grow from layer to
        # layer, to infinity: 0 · ∞ is not 0.
        return softplus(nodes + update) * (edges.node_multiplicity > 0)[:, None]
