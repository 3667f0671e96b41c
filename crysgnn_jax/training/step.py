"""What a training step reads and writes."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import jraph
import optax

from crysgnn_jax.batches.views import axis_of
from crysgnn_jax.objectives.loss import Loss


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
      step: steps taken, int32 scalar.
      params: parameters.
      batch_stats: running statistics of the batch norms.
      opt_state: state of the optimiser.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What ``module.apply`` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_optimiser(
    learning_rate: float,
    total_steps: int,
    *,
    weight_decay: float = 0.0,
    warmup: float = 0.05,
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """Adam with clipped gradients; the rate rises linearly, then falls to 0 along a cosine.

    Args:
      learning_rate: the highest rate.
      total_steps: steps until it reaches 0.
      weight_decay: decoupled (AdamW), of matrices alone: not of biases and norms.
      warmup: fraction of the steps during which it rises.
      clip: largest global norm of the gradient.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, max(1, round(warmup * total_steps)), max(2, total_steps)
    )
    adam = optax.adam(schedule)
    if weight_decay > 0.0:
        matrices = lambda params: jax.tree.map(lambda x: x.ndim >= 2, params)
        adam = optax.adamw(schedule, weight_decay=weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(clip), adam)


def create_state(
    module: nn.Module,
    optimiser: optax.GradientTransformation,
    key: jax.Array,
    example: jraph.GraphsTuple,
) -> TrainState:
    """The state before the first step.

    Args:
      module: called as ``module(graph, train)``.
      optimiser: its state is created alongside.
      key: random key of the initial parameters.
      example: any batch of the run's shape; its values do not matter.
    """
    init = jax.jit(lambda key, graph: module.init(key, graph, True))
    variables = init(key, example)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimiser.init(variables["params"]),
    )


RANDOM = ("dropout", "corruption")
"""Names of the random keys that a module may ask for in a step."""


def make_train_step(
    module: nn.Module, loss: Loss, optimiser: optax.GradientTransformation
) -> Callable[[TrainState, jraph.GraphsTuple], tuple[TrainState, dict[str, jax.Array]]]:
    """A pure function (state, batch) → (next state, metrics of the step).

    Where a batch is one of several, one a device, the loss is the mean of what the devices make of
    it, which through `Rows` is the same on each, and so is the gradient. Metrics are those of the
    whole step: ``loss``, the loss's parts, and ``gradient_norm`` before clipping.
    """

    def step(state: TrainState, graph: jraph.GraphsTuple):
        axis = axis_of(graph)
        # Functions of the step alone, so that a resumed run draws the same masks.
        key = jax.random.fold_in(jax.random.key(0), state.step)
        if axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        keys = {name: jax.random.fold_in(key, k) if k else key for k, name in enumerate(RANDOM)}

        def objective(params):
            outputs, updated = module.apply(
                {"params": params, "batch_stats": state.batch_stats},
                graph,
                True,
                mutable=["batch_stats"],
                rngs=keys,
            )
            value, parts = loss(outputs, graph)
            return value, ({"loss": value, **parts}, updated.get("batch_stats", {}))

        (_, (metrics, batch_stats)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        if axis is not None:
            metrics, gradients = jax.lax.pmean((metrics, gradients), axis)
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        return (
            TrainState(
                step=state.step + 1,
                params=optax.apply_updates(state.params, updates),
                batch_stats=batch_stats,
                opt_state=opt_state,
            ),
            metrics,
        )

    return step
