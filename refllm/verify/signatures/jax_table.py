"""JAX's names: jax.nn, jax.numpy, flax.linen, optax, and files that are written like them.

refllm verify jax.nn --signatures jax
refllm verify flax.linen optax --signatures jax --dtype float32
"""

from __future__ import annotations

from typing import Any

import numpy

from refllm.verify.signatures import Table
from refllm.verify.signatures.masks import four_axes, full_mask

# As JAX documents it: is_causal is aligned top-left, softmax and a mean over nothing are NaN.
TABLE = Table(
    "jax",
    lambda: "jax",
    {"causal_alignment": "top-left", "empty_softmax": "nan", "empty_mean": "nan"},
)


@TABLE.function("dot_product_attention")
def attention(f: Any, q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
    """(B, T, H, D) is what it takes. A mask for all batches is broadcast, and jax.nn has `is_causal`, flax has not."""
    if v.shape[-1] != q.shape[-1] and f.of("jax."):
        raise NotImplementedError("jax.nn takes queries and values of one width")
    wide = [four_axes(x).swapaxes(1, 2) for x in (q, k, v)]
    how: dict[str, Any] = {}
    if causal and allowed is None and f.takes("is_causal"):
        how["is_causal"] = True
    elif causal or allowed is not None:
        how["mask"] = full_mask(q, k, allowed, causal=causal)
    return f(*wide, **how).swapaxes(1, 2).reshape(*q.shape[:-1], v.shape[-1])


def _plain(f: Any, *arrays: Any) -> Any:
    return f(*arrays)


_PLAIN = {
    "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh", "softmax": "softmax", "log_softmax": "log_softmax",
    "matmul": "matmul", "multiply": "multiply",
}  # fmt: skip
for _name, _operation in _PLAIN.items():
    TABLE.function(_name, operation=_operation)(_plain)


@TABLE.function("gelu")
def gelu_erf(f: Any, x: Any) -> Any:
    return f(x, approximate=False)


@TABLE.function("gelu")
def gelu_tanh(f: Any, x: Any) -> Any:
    return f(x, approximate=True)


@TABLE.function("logsumexp")
def log_sum_exp(f: Any, x: Any) -> Any:
    return f(x, axis=-1)


@TABLE.function("layer_norm")
def layer_norm(f: Any, x: Any, g: Any, b: Any, *, eps: float) -> Any:
    return f(x, g, b, eps)


@TABLE.function("rms_norm")
def rms_norm(f: Any, x: Any, g: Any, *, eps: float) -> Any:
    return f(x, g, eps)


# --- flax.linen: modules with their parameters ---


def _applied(module: Any, *inputs: Any, **weights: Any) -> Any:
    return module.apply({"params": weights}, *inputs)


@TABLE.native("Dense")
def linear(make: Any, x: Any, W: Any, b: Any) -> Any:
    return _applied(make(W.shape[1], param_dtype=x.dtype), x, kernel=W, bias=b)


@TABLE.native("Embed")
def embedding(make: Any, E: Any, *, ids: Any) -> Any:
    return _applied(make(*E.shape, param_dtype=E.dtype), ids, embedding=E)


@TABLE.native("LayerNorm", operation="layer_norm")
def layer_norm_module(make: Any, x: Any, g: Any, b: Any, *, eps: float) -> Any:
    return _applied(make(epsilon=eps, param_dtype=x.dtype), x, scale=g, bias=b)


@TABLE.native("RMSNorm", operation="rms_norm")
def rms_norm_module(make: Any, x: Any, g: Any, *, eps: float) -> Any:
    return _applied(make(epsilon=eps, param_dtype=x.dtype), x, scale=g)


@TABLE.native("MultiHeadDotProductAttention")
def self_attention(make: Any, x: Any, p: Any, *, heads: int, causal: bool, allowed: Any) -> Any:
    from jax import numpy as jnp

    T, wide = x.shape[-2], x if x.ndim == 3 else x[None]
    module = make(
        num_heads=heads, qkv_features=len(p["Wo"]), out_features=p["Wo"].shape[1], param_dtype=x.dtype,
        deterministic=True,
    )  # fmt: skip
    parts = zip(jnp.split(p["Wqkv"], 3, -1), jnp.split(p["bqkv"], 3), strict=True)
    weights = {
        name: {"kernel": W.reshape(len(W), heads, -1), "bias": b.reshape(heads, -1)}
        for name, (W, b) in zip(("query", "key", "value"), parts, strict=True)
    }
    weights["out"] = {"kernel": p["Wo"].reshape(heads, -1, p["Wo"].shape[1]), "bias": p["bo"]}
    mask = None
    if causal or allowed is not None:
        mask = jnp.asarray(numpy.tri(T, dtype=bool) if causal else numpy.ones((T, T), bool))
        mask = mask if allowed is None else mask & allowed
        mask = mask[:, None] if mask.ndim == 3 else mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    return module.apply({"params": weights}, wide, wide, mask=mask).reshape(x.shape)


@TABLE.native("OptimizedLSTMCell", "LSTMCell")
def lstm(make: Any, x: Any, h: Any, c: Any, Wx: Any, Wh: Any, b: Any, *, valid: Any) -> Any:
    """Every gate has a dense layer of its own for the input and for the state."""
    from flax import linen as nn
    from jax import numpy as jnp

    _require_no_padding(valid)
    gates = zip("ifgo", jnp.split(Wx, 4, -1), jnp.split(Wh, 4, -1), jnp.split(b, 4), strict=True)
    weights: dict[str, Any] = {}
    for gate, of_input, of_state, bias in gates:
        weights |= {f"i{gate}": {"kernel": of_input}, f"h{gate}": {"kernel": of_state, "bias": bias}}
    layer = nn.RNN(make(len(Wh), param_dtype=x.dtype), return_carry=True)
    (c, _), y = layer.apply({"params": {"cell": weights}}, x, initial_carry=(c, h))
    return y, c


@TABLE.native("SimpleCell")
def rnn(make: Any, x: Any, h: Any, Wx: Any, Wh: Any, b: Any, *, valid: Any) -> Any:
    from flax import linen as nn

    _require_no_padding(valid)
    weights = {"i": {"kernel": Wx, "bias": b}, "h": {"kernel": Wh}}
    return nn.RNN(make(len(Wh), param_dtype=x.dtype)).apply({"params": {"cell": weights}}, x, initial_carry=h)


@TABLE.native("GRUCell")
def gru_reset_after(make: Any, x: Any, h: Any, Wx: Any, Wh: Any, b: Any, c: Any, *, valid: Any) -> Any:
    from flax import linen as nn
    from jax import numpy as jnp

    _require_no_padding(valid)
    parts = zip("rzn", jnp.split(Wx, 3, -1), jnp.split(Wh, 3, -1), jnp.split(b, 3), strict=True)
    weights: dict[str, Any] = {}
    for gate, of_input, of_state, bias in parts:
        weights |= {f"i{gate}": {"kernel": of_input, "bias": bias}, f"h{gate}": {"kernel": of_state}}
    weights["hn"]["bias"] = c
    return nn.RNN(make(len(Wh), param_dtype=x.dtype)).apply({"params": {"cell": weights}}, x, initial_carry=h)


def _require_no_padding(valid: Any) -> None:
    if valid is not None:
        raise NotImplementedError("behind the end of a sequence its outputs are not the last state")


# --- optax ---


def _stepped(optimiser: Any, p: Any, g: Any, kind: Any, **state: Any) -> tuple[Any, Any]:
    """One step of an optimiser that was stopped with this state: the parameters, and the state of that kind."""
    import jax
    import optax

    def is_state(s: Any) -> bool:
        return isinstance(s, kind)

    def stopped(s: Any) -> Any:
        return s._replace(**state) if is_state(s) else s

    held = jax.tree.map(stopped, optimiser.init(p), is_leaf=is_state)
    update, held = optimiser.update(g, held, p)
    [found] = filter(is_state, jax.tree.leaves(held, is_leaf=is_state))
    return optax.apply_updates(p, update), found


def _adam_like(
    optimiser: Any, p: Any, g: Any, m: Any, v: Any, step: int
) -> Any:  # fmt: skip
    import optax
    from jax import numpy as jnp

    state = {"count": jnp.asarray(step - 1, jnp.int32), "mu": m, "nu": v}
    p, found = _stepped(optimiser, p, g, optax.ScaleByAdamState, **state)
    return p, found.mu, found.nu


@TABLE.native("adam")
def adam(
    make: Any, p: Any, g: Any, m: Any, v: Any, *, step: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float,
) -> Any:  # fmt: skip
    """Its decay is a transformation of its own, before Adam."""
    import optax

    optimiser = make(lr, b1=beta1, b2=beta2, eps=eps)
    optimiser = optax.chain(optax.add_decayed_weights(decay), optimiser) if decay else optimiser
    return _adam_like(optimiser, p, g, m, v, step)


@TABLE.native("adamw")
def adamw(
    make: Any, p: Any, g: Any, m: Any, v: Any, *, step: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float,
) -> Any:  # fmt: skip
    return _adam_like(make(lr, b1=beta1, b2=beta2, eps=eps, weight_decay=decay), p, g, m, v, step)


@TABLE.native("sgd")
def sgd(make: Any, p: Any, g: Any, v: Any, *, lr: float, momentum: float) -> Any:
    import optax

    p, found = _stepped(make(lr, momentum=momentum), p, g, optax.TraceState, trace=v)
    return p, found.trace


@TABLE.native("lion")
def lion(make: Any, p: Any, g: Any, m: Any, *, lr: float, beta1: float, beta2: float, decay: float) -> Any:
    import optax

    p, found = _stepped(make(lr, b1=beta1, b2=beta2, weight_decay=decay), p, g, optax.ScaleByLionState, mu=m)
    return p, found.mu


@TABLE.native("clip_by_global_norm")
def clip_by_global_norm(make: Any, g: Any, *, clip: float) -> Any:
    import optax

    clipped, _ = make(clip).update(g, optax.EmptyState())
    return optax.global_norm(g), clipped


@TABLE.native("warmup_cosine_decay_schedule")
def warmup_cosine(make: Any, *, step: int, peak: float, warmup: int, total: int, floor: float) -> Any:
    if not warmup:
        raise NotImplementedError("without a warm-up it is another function, cosine_decay_schedule")
    if total <= warmup:
        raise NotImplementedError("a cosine follows the warm-up")
    return float(make(0.0, peak, warmup, total, end_value=floor)(step))


def _reduced(losses: Any, reduction: str, counted: Any) -> Any:
    from jax import numpy as jnp

    losses = losses if counted is None else jnp.where(counted, losses, 0)
    if reduction == "none":
        return losses
    return losses.sum() / (losses.size if counted is None else counted.sum()) if reduction == "mean" else losses.sum()


@TABLE.native("softmax_cross_entropy_with_integer_labels")
def cross_entropy(f: Any, logits: Any, *, targets: Any, ignore: Any, reduction: str) -> Any:
    """One number a row: what is ignored, and the mean, are its caller's."""
    counted = None if ignore is None else targets != ignore
    labels = targets if counted is None else targets * counted
    return _reduced(f(logits, labels), reduction, counted)


@TABLE.native("softmax_cross_entropy")
def soft_cross_entropy(f: Any, logits: Any, targets: Any, *, reduction: str) -> Any:
    return _reduced(f(logits, targets), reduction, None)


@TABLE.native("squared_error")
def mean_squared_error(f: Any, x: Any, t: Any) -> Any:
    return f(x, t).mean()
