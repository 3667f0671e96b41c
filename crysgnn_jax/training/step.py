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

from crysgnn_jax.batches.views import Axis, axis_of, rounds_of
from crysgnn_jax.models.norms import LATEST
from crysgnn_jax.objectives.loss import Loss
from crysgnn_jax.training.rounds import in_turns, one_by_one, together


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


def random_keys(step: jax.Array, axis: Axis | None, turn: Any = 0) -> dict[str, jax.Array]:
    """The keys of a step, of one of its batches.

    Functions of the step and of the batch's place in it alone, so that a resumed run draws the same
    masks, on however many devices.

    Args:
      step: number of the step.
      axis: of the devices; None for a batch that is all there is.
      turn: number of the round that the batch is in.
    """
    key = jax.random.fold_in(jax.random.key(0), step)
    if axis is not None:
        place = jax.lax.axis_index(axis) + turn * jax.lax.psum(1, axis)
        key = jax.random.fold_in(key, place)
    return {name: jax.random.fold_in(key, k) if k else key for k, name in enumerate(RANDOM)}


def make_train_step(
    module: nn.Module, loss: Loss, optimiser: optax.GradientTransformation
) -> Callable[[TrainState, jraph.GraphsTuple], tuple[TrainState, dict[str, jax.Array]]]:
    """A pure function (state, batch) → (next state, metrics of the step).

    Where a batch is one of several, one a device, the loss is the mean of what the devices make of
    it, which through `Rows` is the same on each, and so is the gradient. Metrics are those of the
    whole step: ``loss``, the loss's parts, and ``gradient_norm`` before clipping.

    Of several rounds of batches (`training.rounds`) the loss is that of all rows of all rounds; the
    statistics of batch norms are those of a round.
    """

    def apply(state: TrainState, params: Any, graph: jraph.GraphsTuple, turn: Any):
        outputs, updated = module.apply(
            {"params": params, "batch_stats": state.batch_stats},
            graph,
            True,
            mutable=["batch_stats"],
            rngs=random_keys(state.step, axis_of(graph), turn),
        )
        return outputs, updated.get("batch_stats", {})

    def measured(state: TrainState, graph: jraph.GraphsTuple):
        """Gradients, metrics, and running statistics: of what is on this device."""

        def objective(params):
            outputs, batch_stats = apply(state, params, graph, 0)
            value, parts = loss(outputs, graph)
            return value, ({"loss": value, **parts}, batch_stats)

        (_, (metrics, batch_stats)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        return gradients, metrics, batch_stats

    def step(state: TrainState, graph: jraph.GraphsTuple):
        axis = axis_of(graph)
        of_step = measured if rounds_of(graph) == 1 else _in_rounds(apply, loss)
        gradients, metrics, batch_stats = of_step(state, graph)
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


def _in_rounds(apply: Callable, loss: Loss) -> Callable:
    """Gradients, metrics and running statistics of a state and several rounds of batches.

    The network runs twice. First, nothing but its outputs is kept, of which the loss is taken
    together; then again, batch by batch, with the gradient of the loss by its outputs. What lies
    between its first layer and its last is in memory for one batch at a time. (Gao et al.,
    RepL4NLP 2021, do so for a contrastive loss.)
    """

    def measured(state: TrainState, graph: jraph.GraphsTuple):
        n = rounds_of(graph)
        outputs, batch_stats = one_by_one(
            lambda batch, turn: apply(state, state.params, batch, turn), graph
        )
        leaves, structure = jax.tree.flatten(outputs)
        # What is no float, such as the numbers of hidden elements, has no gradient.
        learned = [k for k, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

        def objective(values):
            filled = list(leaves)
            for k, value in zip(learned, values):
                filled[k] = value
            value, parts = together(loss, jax.tree.unflatten(structure, filled), graph)
            return value, {"loss": value, **parts}

        value, pull_back, metrics = jax.vjp(objective, [leaves[k] for k in learned], has_aux=True)
        # Each round has the value of all: the mean over rounds, as over devices.
        (by_outputs,) = pull_back(jnp.full_like(value, 1.0 / n))

        def add(gradients, batch, turn, by_these):
            def values(params):
                found = jax.tree.leaves(apply(state, params, batch, turn)[0])
                return [found[k] for k in learned]

            _, back = jax.vjp(values, state.params)
            return jax.tree.map(jnp.add, gradients, back(by_these)[0]), None

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        gradients, _ = in_turns(add, zeros, graph, by_outputs)
        mean = lambda tree: jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)
        return gradients, mean(metrics), mean(batch_stats)

    return measured


def make_statistics_step(
    module: nn.Module,
) -> Callable[[TrainState, jraph.GraphsTuple, jax.Array], TrainState]:
    """A pure function (state, batch, n) → the state, with running statistics over n batches.

    Those that follow the steps lag behind the parameters by some ten of them, and have the mean
    variance of a batch, which for small batches is less than that of all crystals. Here they are
    taken anew, with n = 1, 2, … and the parameters as they are: the mean of the means, and the
    mean of the variances with the variance of the means. ``n`` is a float32 scalar. Norms that do
    not know `norms.LATEST` follow the batches, by less and less. Of several rounds, each is such a
    batch.
    """

    def step(state: TrainState, graph: jraph.GraphsTuple, n: jax.Array) -> TrainState:
        rounds = rounds_of(graph)

        def follow(batch_stats: Any, batch: jraph.GraphsTuple, turn: Any) -> tuple[Any, None]:
            _, updated = module.apply(
                {"params": state.params, "batch_stats": batch_stats},
                batch,
                True,
                mutable=["batch_stats", LATEST],
                rngs=random_keys(state.step, axis_of(graph), turn),
            )
            number = rounds * (n - 1) + turn + 1
            return _pooled(batch_stats, updated.get("batch_stats", {}), number), None

        if rounds == 1:
            batch_stats, _ = follow(state.batch_stats, graph, 0)
        else:
            batch_stats, _ = in_turns(follow, state.batch_stats, graph)
        return dataclasses.replace(state, batch_stats=batch_stats)

    return step


def _pooled(old: Any, new: Any, n: jax.Array) -> Any:
    """Statistics over n − 1 batches and those of the n-th → over n of them."""
    # Of what was there before the first batch no rounding is left either: a run that goes on from
    # a save may have other statistics there.
    mean = lambda before, after: jnp.where(n == 1, after, before + (after - before) / n)
    out = {
        name: _pooled(tree, new[name], n) if isinstance(tree, Mapping) else mean(tree, new[name])
        for name, tree in old.items()
    }
    if {"mean", "var"} <= out.keys():
        out["var"] += (n - 1) / jnp.square(n) * jnp.square(new["mean"] - old["mean"])
    return out
