"""flax.linen as an implementation: its modules with the parameters of a case, as they are.

refllm verify scripts/adapters/flax_adapter.py --dtype float32
"""

from flax import linen as nn
from jax import numpy as jnp
from jax_adapter import differentiable  # they lie beside this file
from jax_nn_adapter import masked

DTYPES = ["float64", "float32"]


def applied(module, *inputs, **weights):
    return module.apply({"params": weights}, *inputs)


def attend(q, k, v, *, causal, allowed):
    """(B, T, H, D) is what it takes; a batch of sequences has one head."""
    leading, T, S = q.shape[:-2], q.shape[-2], k.shape[-2]
    mask = masked(allowed, causal, T, S, len(leading))
    q, k, v = (z[:, None] if z.ndim == 3 else z.reshape((1,) * (4 - z.ndim) + z.shape) for z in (q, k, v))
    q, k, v = (z.swapaxes(1, 2) for z in (q, k, v))
    y = nn.dot_product_attention(q, k, v, mask=mask)
    return y.swapaxes(1, 2).reshape(*leading, T, v.shape[-1])


def many_heads(x, memory, projections, Wo, bo, heads, mask):
    """`projections` holds a weight and a bias for each of query, key and value."""
    module = nn.MultiHeadDotProductAttention(
        num_heads=heads, qkv_features=len(Wo), out_features=Wo.shape[1], param_dtype=x.dtype, deterministic=True
    )
    weights = {
        name: {"kernel": W.reshape(len(W), heads, -1), "bias": b.reshape(heads, -1)}
        for name, (W, b) in zip(("query", "key", "value"), projections, strict=True)
    }
    out = {"kernel": Wo.reshape(heads, -1, Wo.shape[1]), "bias": bo}
    wide, memory = (z if z.ndim == 3 else z[None] for z in (x, memory))
    y = module.apply({"params": {**weights, "out": out}}, wide, memory, mask=mask)
    return y.reshape(*x.shape[:-1], Wo.shape[1])


def attend_self(x, p, *, heads, causal, allowed):
    projections = zip(jnp.split(p["Wqkv"], 3, -1), jnp.split(p["bqkv"], 3), strict=True)
    mask = masked(allowed, causal, x.shape[-2], x.shape[-2], 0)
    return many_heads(x, x, projections, p["Wo"], p["bo"], heads, mask)


def long_short(x, h, c, Wx, Wh, b, *, valid):
    """Every gate has a dense layer of its own for the input and for the state."""
    if valid is not None:
        raise NotImplementedError("behind the end of a sequence its outputs are not the last state")
    gates = zip("ifgo", jnp.split(Wx, 4, -1), jnp.split(Wh, 4, -1), jnp.split(b, 4), strict=True)
    weights = {}
    for gate, of_input, of_state, bias in gates:
        weights |= {f"i{gate}": {"kernel": of_input}, f"h{gate}": {"kernel": of_state, "bias": bias}}
    layer = nn.RNN(nn.OptimizedLSTMCell(len(Wh), param_dtype=x.dtype), return_carry=True)
    (c, _), y = layer.apply({"params": {"cell": weights}}, x, initial_carry=(c, h))
    return y, c


def recurrent(x, h, Wx, Wh, b, *, valid):
    if valid is not None:
        raise NotImplementedError("behind the end of a sequence its outputs are not the last state")
    layer = nn.RNN(nn.SimpleCell(len(Wh), param_dtype=x.dtype))
    weights = {"i": {"kernel": Wx, "bias": b}, "h": {"kernel": Wh}}
    return layer.apply({"params": {"cell": weights}}, x, initial_carry=h)


attention, self_attention, lstm, rnn = map(differentiable, (attend, attend_self, long_short, recurrent))
linear = differentiable(lambda x, W, b: applied(nn.Dense(W.shape[1], param_dtype=x.dtype), x, kernel=W, bias=b))
embedding = differentiable(lambda E, *, ids: applied(nn.Embed(*E.shape, param_dtype=E.dtype), ids, embedding=E))
layer_norm = differentiable(
    lambda x, g, b, *, eps: applied(nn.LayerNorm(epsilon=eps, param_dtype=x.dtype), x, scale=g, bias=b)
)
rms_norm = differentiable(lambda x, g, *, eps: applied(nn.RMSNorm(epsilon=eps, param_dtype=x.dtype), x, scale=g))
softmax, log_softmax, relu, silu, tanh = map(differentiable, (nn.softmax, nn.log_softmax, nn.relu, nn.silu, nn.tanh))
gelu_erf = differentiable(lambda x: nn.gelu(x, approximate=False))
gelu_tanh = differentiable(lambda x: nn.gelu(x, approximate=True))
