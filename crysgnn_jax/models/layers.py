"""The layers that the crystal graph networks share."""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.data.elements import element_features


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


def _total(values: jax.Array, axis_name: str | None) -> jax.Array:
    return values if axis_name is None else jax.lax.psum(values, axis_name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def standardise(x: jax.Array, mask: jax.Array, axis_name: str | None, epsilon: float):
    """Centre and scale each column of ``x`` by the statistics of its real rows.

    The backward pass is written out: differentiating the two reductions costs twice the passes
    over ``x``. No gradient flows through the returned statistics.

    Args:
      x: ``[n, d]``
      mask: ``[n]``, 1.0 for real rows.
      axis_name: the statistics cover the rows of all devices along this axis.
      epsilon: added to the variance.

    Returns:
      ``x̂ [n, d]``, mean ``[d]``, biased variance ``[d]``, number of real rows (scalar).
    """
    return _standardise_forward(x, mask, axis_name, epsilon)[0]


def _standardise_forward(x, mask, axis_name, epsilon):
    count = _total(jnp.sum(mask), axis_name)
    rows = jnp.maximum(count, 1.0)
    mean = _total(jnp.sum(x * mask[:, None], axis=0), axis_name) / rows
    centred = x - mean
    variance = _total(jnp.sum(jnp.square(centred) * mask[:, None], axis=0), axis_name) / rows
    inverse = jax.lax.rsqrt(variance + epsilon)
    x_hat = centred * inverse
    return (x_hat, mean, variance, count), (x, mean, inverse, mask, rows)


def _standardise_backward(axis_name, epsilon, residuals, gradients):
    x, mean, inverse, mask, rows = residuals
    # Padding rows get no gradient and take no part in the means.
    gradient = gradients[0] * mask[:, None]
    x_hat = (x - mean) * inverse
    gradient_mean = _total(jnp.sum(gradient, axis=0), axis_name) / rows
    gradient_slope = _total(jnp.sum(gradient * x_hat, axis=0), axis_name) / rows
    shift = (gradient_mean + x_hat * gradient_slope) * mask[:, None]
    return inverse * (gradient - shift), None


standardise.defvjp(_standardise_forward, _standardise_backward)


class Edges(NamedTuple):
    """The edges of a padded batch: padding edges join padding nodes.

    Attributes:
      features: ``[n_edge, e]``; zero for padding.
      senders: ``[n_edge]``, neighbour k of each edge.
      receivers: ``[n_edge]``, centre i of each edge, in ascending order.
      mask: ``[n_edge]``, 1.0 for real edges.
      node_mask: ``[n_node]``, 1.0 for real nodes.
    """

    features: jax.Array
    senders: jax.Array
    receivers: jax.Array
    mask: jax.Array
    node_mask: jax.Array

    def at_centres(self, values: jax.Array) -> jax.Array:
        """Sum of ``[n_edge, …]`` over the edges that each atom receives: ``[n_node, …]``."""
        return jax.ops.segment_sum(
            values, self.receivers, len(self.node_mask), indices_are_sorted=True
        )

    def at_neighbours(self, values: jax.Array) -> jax.Array:
        """Sum of ``[n_edge, …]`` over the edges that each atom sends: ``[n_node, …]``."""
        return jax.ops.segment_sum(values, self.senders, len(self.node_mask))


def edge_sums(
    centres: jax.Array, neighbours: jax.Array, kernel: jax.Array, edges: Edges
) -> jax.Array:
    """``c_i + n_k + u_ik K`` of every edge: ``[n_node, d]`` twice, ``[e, d]`` → ``[n_edge, d]``."""
    return centres[edges.receivers] + neighbours[edges.senders] + edges.features @ kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def normalised_edges(
    centres: jax.Array,
    neighbours: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    edges: Edges,
    axis_name: str | None,
    epsilon: float,
):
    """Batch normalisation of `edge_sums`, with half the passes over ``[n_edge, d]`` tensors.

    The mean of a sum is known before it is formed, from sums over atoms; subtracting it there
    leaves tensors that are centred as they are written. And where atoms' rows of padding are zero,
    so are the edges': no mask is ever applied to an edge tensor, which on a CPU costs more than a
    matrix product. No gradient flows through the returned statistics.

    Args:
      centres: ``[n_node, d]``, c.
      neighbours: ``[n_node, d]``, n.
      kernel: ``[e, d]``, K.
      scale: ``[d]``
      bias: ``[d]``
      edges: u and the graph.
      axis_name: the statistics cover the edges of all devices along this axis.
      epsilon: added to the variance.

    Returns:
      ``[n_edge, d]``, ``bias`` for padding; mean ``[d]``, biased variance ``[d]``, number of real
      edges (scalar).
    """
    return _normalised_edges_forward(
        centres, neighbours, kernel, scale, bias, edges, axis_name, epsilon
    )[0]


def _normalised_edges_forward(centres, neighbours, kernel, scale, bias, edges, axis_name, epsilon):
    real = edges.node_mask[:, None]
    count = _total(jnp.sum(edges.mask), axis_name)
    rows = jnp.maximum(count, 1.0)
    received, sent = edges.at_centres(edges.mask), edges.at_neighbours(edges.mask)
    sums = received @ centres + sent @ neighbours + jnp.sum(edges.features, axis=0) @ kernel
    mean = _total(sums, axis_name) / rows
    centred = edge_sums((centres - mean) * real, neighbours * real, kernel, edges)
    variance = _total(jnp.sum(jnp.square(centred), axis=0), axis_name) / rows
    inverse = jax.lax.rsqrt(variance + epsilon)
    normalised = centred * (inverse * scale) + bias
    return (normalised, mean, variance, count), (centred, inverse, kernel, scale, edges, rows)


def _normalised_edges_backward(axis_name, epsilon, residuals, gradients):
    centred, inverse, kernel, scale, edges, rows = residuals
    # What arrives at padding edges comes from padding atoms, which no loss depends on: it is zero.
    gradient = gradients[0]
    to_bias = jnp.sum(gradient, axis=0)
    to_scale = jnp.sum(gradient * centred, axis=0) * inverse
    shift = _total(to_bias, axis_name) / rows
    slope = _total(to_scale, axis_name) / rows * inverse
    to_sums = (gradient - shift - centred * slope) * (inverse * scale)
    # Padding edges have got −shift, which ends at padding atoms, and at features that are zero.
    real = edges.node_mask[:, None]
    to_edges = Edges(to_sums @ kernel.T * edges.mask[:, None], None, None, None, None)
    return (
        edges.at_centres(to_sums) * real,
        edges.at_neighbours(to_sums) * real,
        edges.features.T @ to_sums,
        to_scale,
        to_bias,
        to_edges,
    )


normalised_edges.defvjp(_normalised_edges_forward, _normalised_edges_backward)


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
    def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        """``[n, d]`` and the mask of real rows ``[n]`` → ``[n, d]``."""
        scale, bias = self._affine(x.shape[-1])
        running = mean, variance = self._running(x.shape[-1])
        if not train:
            return (x - mean.value) * (scale * jax.lax.rsqrt(variance.value + self.epsilon)) + bias
        x_hat, *statistics = standardise(x, mask, self._axis(), self.epsilon)
        self._follow(running, *statistics)
        return x_hat * scale + bias


class EdgeBatchNorm(_RunningStatistics):
    """Batch normalisation of a linear function of two atoms and the edge between them.

    See `normalised_edges`, which never forms what it normalises.
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
        running = mean, variance = self._running(centres.shape[-1])
        if train:
            normalised, *statistics = normalised_edges(
                centres, neighbours, kernel, scale, bias, edges, self._axis(), self.epsilon
            )
            self._follow(running, *statistics)
            return normalised
        # Known statistics are one more linear map, applied where there are fewest rows.
        factor = scale * jax.lax.rsqrt(variance.value + self.epsilon)
        shift = bias - mean.value * factor
        return edge_sums(centres * factor + shift, neighbours * factor, kernel * factor, edges)


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
        update = MaskedBatchNorm(self.axis_name, name="node_norm")(messages, edges.node_mask, train)
        # All padding edges of a batch may end at one padding atom: a sum over tens of thousands,
        # which would grow by that factor in every layer, to infinity, and 0 · ∞ is not 0.
        return softplus(nodes + update) * edges.node_mask[:, None]
