"""jax.nn as an implementation: its own attention and activations, as they are.

refllm verify scripts/adapters/jax_nn_adapter.py --dtype float32
"""

import jax
import numpy
from jax import numpy as jnp
from jax_adapter import differentiable  # it lies beside this file


def masked(allowed, causal, T, S, leading):
    """The mask as jax.nn takes it, (B, H, T, S); None if every key may be seen."""
    mask = numpy.tri(T, S, S - T if causal else S, dtype=bool)
    mask = mask if allowed is None else mask & numpy.asarray(allowed)
    if mask.all():
        return None
    mask = mask[:, None] if mask.ndim == 3 and leading == 1 else mask
    return jnp.asarray(mask.reshape((1,) * (4 - mask.ndim) + mask.shape))


def attend(q, k, v, *, causal, allowed):
    """(B, T, H, D) is what it takes; a batch of sequences has one head."""
    leading, T, S = q.shape[:-2], q.shape[-2], k.shape[-2]
    if v.shape[-1] != q.shape[-1]:
        raise NotImplementedError("queries and values are of one width")
    q, k, v = (z.reshape(len(z) if z.ndim == 3 else 1, 1, *z.shape[-2:]) if z.ndim < 4 else z for z in (q, k, v))
    q, k, v = (z.swapaxes(1, 2) for z in (q, k, v))
    y = jax.nn.dot_product_attention(q, k, v, mask=masked(allowed, causal, T, S, len(leading)))
    return y.swapaxes(1, 2).reshape(*leading, T, v.shape[-1])


attention, relu, silu, tanh = map(differentiable, (attend, jax.nn.relu, jax.nn.silu, jnp.tanh))
softmax, log_softmax = differentiable(jax.nn.softmax), differentiable(jax.nn.log_softmax)
gelu_erf = differentiable(lambda x: jax.nn.gelu(x, approximate=False))
gelu_tanh = differentiable(lambda x: jax.nn.gelu(x, approximate=True))
