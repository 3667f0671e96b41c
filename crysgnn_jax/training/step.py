"""What a training step reads and writes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import jraph
import optax

from crysgnn_jax.batches.views import axis_of
from crysgnn_jax.models.norms import LATEST
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
    """Adam with clipped gradients; the rate rises linearly, from above 0 so that no step is lost,
    then falls to 0 along a cosine.

    Args:
      learning_rate: the highest rate.
      total_steps: steps until it reaches 0.
      weight_decay: decoupled (AdamW), of matrices alone: not of biases and norms.
      warmup: fraction of the steps during which it rises.
      clip: largest global norm of the gradient.
    """
    rising = max(1, round(warmup * total_steps))
    schedule = optax.warmup_cosine_decay_schedule(
        learning_rate / (rising + 1), learning_rate, rising, max(2, total_steps)
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


def random_keys(step: jax.Array, axis: str | None) -> dict[str, jax.Array]:
    """The keys of a step, on one of the devices.

    Functions of the step alone, so that a resumed run draws the same masks.
    """
    key = jax.random.fold_in(jax.random.key(0), step)
    if axis is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
    return {name: jax.random.fold_in(key, k) if k else key for k, name in enumerate(RANDOM)}


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
        keys = random_keys(state.step, axis)

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


def make_statistics_step(
    module: nn.Module,
) -> Callable[[TrainState, jraph.GraphsTuple, jax.Array], TrainState]:
    """A pure function (state, batch, n) → the state, with running statistics over n batches.

    Those that follow the steps lag behind the parameters by some ten of them, and have the mean
    variance of a batch, which for small batches is less than that of all crystals. Here they are
    taken anew, with n = 1, 2, … and the parameters as they are: the mean of the means, and the
    mean of the variances with the variance of the means. ``n`` is a float32 scalar. Norms that do
    not know `norms.LATEST` go on following the batches.
    """

    def step(state: TrainState, graph: jraph.GraphsTuple, n: jax.Array) -> TrainState:
        _, updated = module.apply(
            state.variables,
            graph,
            True,
            mutable=["batch_stats", LATEST],
            rngs=random_keys(state.step, axis_of(graph)),
        )
        batch_stats = _pooled(state.batch_stats, updated.get("batch_stats", {}), n)
        return dataclasses.replace(state, batch_stats=batch_stats)

    return step


def _pooled(old: Any, new: Any, n: jax.Array) -> Any:
    """Statistics over n − 1 batches and those of the n-th → over n of them."""
    mean = lambda before, after: before + (after - before) / n
    out = {
        name: _pooled(tree, new[name], n) if isinstance(tree, Mapping) else mean(tree, new[name])
        for name, tree in old.items()
    }
    if {"mean", "var"} <= out.keys():
        out["var"] += (n - 1) / jnp.square(n) * jnp.square(new["mean"] - old["mean"])
    return out
