"""The layers that the crystal graph networks share."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from crysgnn_jax.crystals.elements import element_features
from crysgnn_jax.models.norms import BatchNorm, EdgeBatchNorm, EdgeTerms


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


def l2_normalise(vectors: jax.Array) -> jax.Array:
    """Scale each row of ``[n, d]`` to length 1; rows shorter than 1e-12 are divided by 1e-12."""
    square = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    # The floor is applied under the root: the gradient of sqrt at 0 is infinite.
    return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


class GatedConvolution(nn.Module):
    """The convolution of CGCNN (Xie and Grossman 2018, eq. 5) with its batch norms.

    ``v_i ← softplus(v_i + BN(Σ_k σ(BN(z_ik W_f + b_f)) ⊙ softplus(BN(z_ik W_s + b_s))))`` with
    ``z_ik = v_i ⊕ v_k ⊕ u_ik``. The weight is applied in three parts, so that the two atom parts
    are multiplied once an atom and not once an edge, and z is never formed; gate (f) and core (s)
    are separate tensors throughout, since slicing one tensor costs a copy in the backward pass.
    """

    @nn.compact
    def __call__(self, nodes: jax.Array, edges: EdgeTerms, train: bool) -> jax.Array:
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
            norm = EdgeBatchNorm(name=f"{name}_norm")
            return norm(nodes @ of_centre + bias, nodes @ of_neighbour, of_edge, edges, train)

        atoms = edges.links.ends
        messages = edges.links.sum(gate(normalised("gate"), normalised("core")))
        update = BatchNorm(name="node_norm")(messages, atoms, train)
        # Padding edges carry nothing, but what padding nodes hold must not grow from layer to
        # layer, to infinity: 0 · ∞ is not 0.
        return atoms.blank(softplus(nodes + update))
