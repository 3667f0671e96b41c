"""Batch norms over weighted rows, and over edges without forming what is normalised."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from crysgnn_jax.batches.views import Links, Rows, over_devices


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def standardise(x: jax.Array, rows: Rows, epsilon: float):
    """Centre and scale each column of ``x`` by weighted statistics of its rows.

    The backward pass is written out: differentiating the two reductions costs twice the passes
    over ``x``. No gradient flows through the returned statistics.

    Args:
      x: ``[n, d]``
      rows: what each row stands for; the statistics cover the rows of all devices.
      epsilon: added to the variance.

    Returns:
      ``x̂ [n, d]``, mean ``[d]``, biased variance ``[d]``, sum of the weights (scalar).
    """
    return _standardise_forward(x, rows, epsilon)[0]


def _standardise_forward(x, rows, epsilon):
    count = rows.count
    n = jnp.maximum(count, 1.0)
    mean = rows.total(x) / n
    centred = x - mean
    variance = rows.total(jnp.square(centred)) / n
    inverse = jax.lax.rsqrt(variance + epsilon)
    x_hat = centred * inverse
    return (x_hat, mean, variance, count), (x, mean, inverse, rows, n)


def _standardise_backward(epsilon, residuals, gradients):
    x, mean, inverse, rows, n = residuals
    # Padding rows get no gradient and take no part in the means.
    gradient = rows.blank(gradients[0])
    x_hat = (x - mean) * inverse
    gradient_mean = over_devices(jnp.sum(gradient, axis=0), rows.axis) / n
    gradient_slope = over_devices(jnp.sum(gradient * x_hat, axis=0), rows.axis) / n
    shift = (gradient_mean + x_hat * gradient_slope) * rows.weights[:, None]
    return inverse * (gradient - shift), None


standardise.defvjp(_standardise_forward, _standardise_backward)


class Moments(NamedTuple):
    """Sums over the edges of a batch that do not depend on parameters.

    Weighted by how many edges each stands for. u is taken less its mean.

    Attributes:
      n_edges: scalar, edges of all devices.
      received: ``[n_node]``, edges that all atoms of a node receive.
      sent: ``[n_node]``, edges that they send.
      mean: ``[e]``, mean of u over the edges of all devices.
      at_centres: ``[n_node, e]``, Σ u over the edges that one atom receives.
      at_neighbours: ``[n_node, e]``, Σ u over the edges that all atoms of a node send.
      gram: ``[e, e]``, Σ u uᵀ over the edges of this device.
    """

    n_edges: jax.Array
    received: jax.Array
    sent: jax.Array
    mean: jax.Array
    at_centres: jax.Array
    at_neighbours: jax.Array
    gram: jax.Array

    @classmethod
    def of(cls, links: Links, features: jax.Array) -> "Moments":
        """Of the edges' features u ``[n_edge, e]``."""
        rows, atoms = links.rows, links.ends
        weights = rows.weights
        count = rows.count
        mean = over_devices(_product(weights, features), rows.axis) / jnp.maximum(count, 1.0)
        centred = rows.blank(features - mean)
        ones = jnp.ones_like(weights)
        return cls(
            n_edges=count,
            received=links.sum(ones) * atoms.weights,
            sent=links.sum_sent(ones),
            mean=mean,
            at_centres=links.sum(centred),
            at_neighbours=links.sum_sent(centred),
            gram=_product(centred.T, centred * weights[:, None]),
        )


class EdgeTerms(NamedTuple):
    """The edges of a batch with their features, and what the statistics of sums over them need.

    Attributes:
      links: from neighbour k to centre i.
      features: ``[n_edge, e]``, u; zero for padding.
      moments: of the features; None where the statistics of batch norms are known.
    """

    links: Links
    features: jax.Array
    moments: Moments | None

    @classmethod
    def of(cls, links: Links, features: jax.Array, train: bool) -> "EdgeTerms":
        """With features ``[n_edge, e]``, of which padding may have any."""
        features = links.rows.blank(features)
        return cls(links, features, Moments.of(links, features) if train else None)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product in full single precision, also where the hardware would round its factors:
    a variance is what is left of terms that may cancel."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def sum_statistics(
    centres: jax.Array, neighbours: jax.Array, kernel: jax.Array, edges: EdgeTerms
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
      edges: u and the graph, with moments.

    Returns:
      Mean ``[d]`` and biased variance ``[d]``, over the edges of all devices.
    """
    known, links, atoms = edges.moments, edges.links, edges.links.ends
    assert known is not None, "EdgeTerms.of(…, train=True) knows them"
    everywhere = lambda values: over_devices(values, atoms.axis)
    rows = jnp.maximum(known.n_edges, 1.0)
    # Padding nodes may hold anything.
    centres, neighbours = atoms.blank(centres), atoms.blank(neighbours)
    mean_centre = everywhere(_product(known.received, centres)) / rows
    mean_neighbour = everywhere(_product(known.sent, neighbours)) / rows
    c, n = atoms.blank(centres - mean_centre), atoms.blank(neighbours - mean_neighbour)
    received = links.sum(n[links.senders]) + _product(known.at_centres, kernel)
    received = received * atoms.weights[:, None]
    sent = _product(known.at_neighbours, kernel)
    squares = (
        _product(known.received, jnp.square(c))
        + _product(known.sent, jnp.square(n))
        + 2.0 * jnp.sum(c * received + n * sent, axis=0)
        + jnp.sum(kernel * _product(known.gram, kernel), axis=0)
    )
    variance = everywhere(squares) / rows
    mean = mean_centre + mean_neighbour + _product(known.mean, kernel)
    return mean, jnp.maximum(variance, 0.0)


LATEST = "latest_statistics"
"""Name of a collection that holds nothing: where it is mutable, the running statistics become those
of the batch, and nothing is left of the old ones."""


class _RunningStatistics(nn.Module):
    """Scale, bias and running statistics of a batch norm.

    Running statistics follow PyTorch: new = 0.9 · old + 0.1 · batch, with the unbiased variance;
    but see `LATEST`.

    Attributes:
      momentum: weight of the new statistics.
      epsilon: added to the variance.
    """

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
        anew = self.is_mutable_collection(LATEST)
        step = jnp.where(count > 0, self.momentum, 0.0)
        unbiased = variance * count / jnp.maximum(count - 1.0, 1.0)
        for variable, new in zip(running, (mean, unbiased)):
            if anew:  # not by a step of 1, which leaves a rounding of the old ones
                variable.value = jnp.where(count > 0, new, variable.value)
            else:
                variable.value += step * (new - variable.value)


class BatchNorm(_RunningStatistics):
    """Batch normalisation over weighted rows: right with padding, reduced graphs and devices."""

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows, train: bool) -> jax.Array:
        """Normalise each column.

        Args:
          x: ``[n, d]``
          rows: what each row stands for.
          train: use the statistics of the rows, and let the running ones follow; else use those.

        Returns:
          ``[n, d]``
        """
        scale, bias = self._affine(x.shape[-1])
        running = mean, variance = self._running(x.shape[-1])
        if not train:
            return (x - mean.value) * (scale * jax.lax.rsqrt(variance.value + self.epsilon)) + bias
        x_hat, *statistics = standardise(x, rows, self.epsilon)
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
        edges: EdgeTerms,
        train: bool,
    ) -> jax.Array:
        """``[n_node, d]`` twice and ``[e, d]`` → ``[n_edge, d]``."""
        scale, bias = self._affine(centres.shape[-1])
        running = self._running(centres.shape[-1])
        mean, variance = (variable.value for variable in running)
        if train:
            mean, variance = sum_statistics(centres, neighbours, kernel, edges)
            assert edges.moments is not None
            self._follow(running, mean, variance, edges.moments.n_edges)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        of_centres = centres * factor + (bias - mean * factor)
        of_neighbours, of_features = neighbours * factor, edges.features @ (kernel * factor)
        links = edges.links
        return of_centres[links.receivers] + of_neighbours[links.senders] + of_features
