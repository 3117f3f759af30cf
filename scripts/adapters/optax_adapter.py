"""Optax as an implementation: its optimisers, schedules, clipping and losses.

refllm verify scripts/adapters/optax_adapter.py --dtype float32
"""

import jax
import numpy
import optax
from jax import numpy as jnp
from jax_adapter import differentiable  # it lies beside this file


def adam_like(make):
    """An optimiser that was stopped after step - 1 steps, and takes one more."""

    def is_state(s):
        return isinstance(s, optax.ScaleByAdamState)

    def operation(p, g, m, v, *, step, lr, beta1, beta2, eps, decay):
        p, g, m, v = map(jnp.asarray, (p, g, m, v))
        optimiser = make(lr, decay, b1=beta1, b2=beta2, eps=eps)

        def stopped(s):
            return s._replace(count=jnp.asarray(step - 1, jnp.int32), mu=m, nu=v) if is_state(s) else s

        state = jax.tree.map(stopped, optimiser.init(p), is_leaf=is_state)
        update, state = optimiser.update(g, state, p)
        [moments] = filter(is_state, jax.tree.leaves(state, is_leaf=is_state))
        return tuple(map(numpy.array, (optax.apply_updates(p, update), moments.mu, moments.nu)))

    return operation


adam = adam_like(lambda lr, decay, **how: optax.chain(optax.add_decayed_weights(decay), optax.adam(lr, **how)))
adamw = adam_like(lambda lr, decay, **how: optax.adamw(lr, weight_decay=decay, **how))


def sgd(p, g, v, *, lr, momentum):
    p, g, v = map(jnp.asarray, (p, g, v))
    optimiser = optax.sgd(lr, momentum=momentum)
    first, *rest = optimiser.init(p)
    update, state = optimiser.update(g, (first._replace(trace=v), *rest), p)
    return numpy.array(optax.apply_updates(p, update)), numpy.array(state[0].trace)


def clip_by_global_norm(g, *, clip):
    g = list(map(jnp.asarray, g))
    clipped, _ = optax.clip_by_global_norm(clip).update(g, optax.EmptyState())
    return numpy.array(optax.global_norm(g)), list(map(numpy.array, clipped))


def warmup_cosine(*, step, peak, warmup, total, floor):
    if warmup:
        return float(optax.warmup_cosine_decay_schedule(0.0, peak, warmup, total, end_value=floor)(step))
    return float(optax.cosine_decay_schedule(peak, total, alpha=floor / peak)(step))


def reduced(losses, reduction, counted=None):
    if reduction == "none":
        return losses if counted is None else jnp.where(counted, losses, 0)
    return getattr(losses, reduction)(where=counted)


def hard(logits, *, targets, ignore, reduction):
    counted = jnp.asarray(targets != (targets - 1 if ignore is None else ignore))
    labels = jnp.where(counted, targets, 0)
    return reduced(optax.softmax_cross_entropy_with_integer_labels(logits, labels), reduction, counted)


def smoothed(logits, *, targets, ignore, smoothing, reduction):
    counted = jnp.asarray(targets != (targets - 1 if ignore is None else ignore))
    labels = jax.nn.one_hot(jnp.where(counted, targets, 0), logits.shape[-1], dtype=logits.dtype)
    losses = optax.softmax_cross_entropy(logits, optax.smooth_labels(labels, smoothing))
    return reduced(losses, reduction, counted)


def contrast(a, b, *, temperature):
    cosines = optax.losses.cosine_similarity(a[:, None], b[None], epsilon=0.0)
    return optax.softmax_cross_entropy_with_integer_labels(cosines / temperature, jnp.arange(len(a))).mean()


cross_entropy, smoothed_cross_entropy, info_nce = map(differentiable, (hard, smoothed, contrast))
soft_cross_entropy = differentiable(
    lambda logits, targets, *, reduction: reduced(optax.softmax_cross_entropy(logits, targets), reduction)
)
mean_squared_error = differentiable(lambda x, t: optax.squared_error(x, t).mean())
l2_penalty = differentiable(lambda w, *, strength: strength * optax.tree.norm(w, squared=True) / 2)
