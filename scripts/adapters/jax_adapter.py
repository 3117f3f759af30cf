"""JAX as an implementation: forward functions, differentiated by JAX itself.

refllm verify scripts/adapters/jax_adapter.py --dtype bfloat16
"""

import functools

import jax
import numpy
from jax import numpy as jnp

jax.config.update("jax_enable_x64", True)

DTYPES = ["float64", "float32", "bfloat16"]
PRECISION = {"jax": None}  # None: that of the arrays


def use_dtype(dtype):
    PRECISION["jax"] = jnp.bfloat16 if dtype == "bfloat16" else None


def tensor(x):
    return jnp.asarray(x, PRECISION["jax"] if x.dtype.kind == "f" else None)


def array(x):
    return numpy.array(x.astype("float32") if x.dtype == jnp.bfloat16 else x)


def differentiable(forward):
    """A function of JAX arrays as an operation on NumPy arrays: y, back = operation(x, W, ..., keyword=...)."""

    def operation(*arrays, **keywords):
        inputs, f = jax.tree.map(tensor, arrays), functools.partial(forward, **keywords)
        y = jax.jit(f)(*inputs)

        def back(*dy):
            dy = jax.tree.map(tensor, dy if isinstance(y, tuple) else dy[0])
            dx = jax.jit(lambda dy, *x: jax.vjp(f, *x)[1](dy))(dy, *inputs)
            return jax.tree.map(array, dx if len(dx) > 1 else dx[0])

        return jax.tree.map(array, y), back

    return operation


def attend(q, k, v, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    mask = jnp.tril(jnp.ones((T, S), bool), S - T if causal else S)
    mask = mask if allowed is None else mask & allowed
    scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(q.shape[-1]).astype(q.dtype)
    return some_softmax(scores, mask) @ v


def some_softmax(x, mask=None):
    mask = x > -jnp.inf if mask is None else mask
    some = mask.any(-1, keepdims=True)  # a row without a number is zero here, NaN in JAX
    return jnp.where(some, jax.nn.softmax(jnp.where(mask, x, jnp.where(some, -jnp.inf, 0))), 0)


def split(x, W, b, *, heads, parts):
    y = (x @ W + b).reshape(*x.shape[:-1], parts, heads, -1)
    return tuple(y[..., part, :, :].swapaxes(-2, -3) for part in range(parts))


def nll(logits, *, targets, ignore, reduction):
    counted = numpy.ones(targets.shape, bool) if ignore is None else targets != ignore
    chosen = numpy.where(counted, targets, 0)[..., None]
    each = -jnp.where(counted, jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, -1)[..., 0], 0)
    return each if reduction == "none" else each.sum() / (max(1, int(counted.sum())) if reduction == "mean" else 1)


def sines(p, *, width):
    angle = p.astype(jnp.float64)[..., None] / 10000 ** (jnp.arange(0, width, 2) / width)
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(*p.shape, -1)[..., :width].astype(p.dtype)


def norm(x, g, b, *, eps):
    c = x - x.mean(-1, keepdims=True)
    return g * c * jax.lax.rsqrt((c * c).mean(-1, keepdims=True) + eps) + b


def ln(x, p, eps):
    return norm(x, p["g"], p["b"], eps=eps)


def feed(x, p, *, activation):
    return ACTIVATIONS[activation](x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]


def attend_self(x, p, *, heads, causal, allowed):
    parts = split(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)
    y = attend(*parts, causal=causal, allowed=allowed).swapaxes(-2, -3).reshape(x.shape)
    return y @ p["Wo"] + p["bo"]


def layer(x, p, *, norm, heads, causal, allowed, activation, eps):
    a, f = p["attention"], p["feed_forward"]
    how = {"heads": heads, "causal": causal, "allowed": allowed}
    if norm == "pre":
        x = x + attend_self(ln(x, p["norm1"], eps), a, **how)
        return x + feed(ln(x, p["norm2"], eps), f, activation=activation)
    x = ln(x + attend_self(x, a, **how), p["norm1"], eps)
    return ln(x + feed(x, f, activation=activation), p["norm2"], eps)


def model(p, *, ids, config):
    x, T, c = p["token"][ids], ids.shape[-1], config
    x = x + (p["position"][:T] if "position" in p else sines(jnp.arange(T, dtype=x.dtype), width=c["width"]))
    for each in p["layers"]:
        how = {name: c[name] for name in ("norm", "heads", "activation", "eps")}
        x = layer(x, each, causal=True, allowed=None, **how)
    x = ln(x, p["norm"], c["eps"]) if c["norm"] == "pre" else x
    return x @ (p["token"].T if c["tied"] else p["head"])


def loss(p, *, ids, targets, ignore, config):
    return nll(model(p, ids=ids, config=config), targets=targets, ignore=ignore, reduction="mean")


gelus = {f"gelu_{form}": functools.partial(jax.nn.gelu, approximate=form == "tanh") for form in ("erf", "tanh")}
ACTIVATIONS = {"relu": jax.nn.relu, **gelus}
relu, gelu_erf, gelu_tanh = map(differentiable, ACTIVATIONS.values())
linear = differentiable(lambda x, W, b: x @ W + b)
matmul = differentiable(jnp.matmul)
heads = differentiable(split)
embedding = differentiable(lambda E, *, ids: E[ids])
sinusoidal = differentiable(sines)
add_positions = differentiable(lambda x, P, *, positions: x + P[positions])
attention = differentiable(attend)
softmax = differentiable(some_softmax)
log_softmax = differentiable(jax.nn.log_softmax)
cross_entropy = differentiable(nll)
mean_squared_error = differentiable(lambda x, t: ((x - t) ** 2).mean())
layer_norm = differentiable(norm)
dropout = differentiable(lambda x, *, keep, rate: x * keep / (1 - rate))
feed_forward, self_attention, transformer_layer = map(differentiable, (feed, attend_self, layer))
gpt, gpt_loss = map(differentiable, (model, loss))
