"""Keras on PyTorch as an implementation: its layers, operations, losses and schedules, as they are.

refllm verify scripts/adapters/keras_adapter.py --dtype float32
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before keras is imported
import keras
from keras import layers, losses, ops
from torch_adapter import differentiable  # they lie beside this file
from torch_modules_adapter import mask_of

DTYPES = ["float64", "float32"]


def use_dtype(dtype):
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)


def applied(layer, shape, *inputs, weights, **keywords):
    """The layer, built for inputs of this shape, with these tensors in the place of its variables."""
    layer.build(*shape)
    mapping = [(each, weights[each.path.split("/", 1)[1]]) for each in layer.trainable_variables]
    with keras.StatelessScope(state_mapping=mapping):
        return layer(*inputs, **keywords)


def dense(x, W, b):
    if x.ndim < 2:
        raise NotImplementedError("a layer takes a batch")
    return applied(layers.Dense(W.shape[1]), [x.shape], x, weights={"kernel": W, "bias": b})


def normed(x, g, b, *, eps):
    return applied(layers.LayerNormalization(epsilon=eps), [x.shape], x, weights={"gamma": g, "beta": b})


def root_mean_square(x, g, *, eps):
    return applied(layers.RMSNormalization(epsilon=eps), [x.shape], x, weights={"scale": g})


def look_up(E, *, ids):
    return applied(layers.Embedding(*E.shape), [ids.shape], ids, weights={"embeddings": E})


def attend(q, k, v, *, causal, allowed):
    """(B, T, H, D) is what it takes; a batch of sequences has one head."""
    if v.shape[-1] != q.shape[-1]:
        raise NotImplementedError("queries and values are of one width")
    mask = mask_of(allowed, causal, q.shape[-2], k.shape[-2])
    if mask is not None:
        mask = mask.unsqueeze(-3) if mask.ndim == q.ndim == 3 else mask
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    wide = [z.unsqueeze(-3) if z.ndim == 3 else z.reshape((1,) * (4 - z.ndim) + z.shape) for z in (q, k, v)]
    y = ops.dot_product_attention(*(z.transpose(1, 2) for z in wide), mask=mask)
    return y.transpose(1, 2).reshape(*q.shape[:-1], v.shape[-1])


def attend_self(x, p, *, heads, causal, allowed):
    """It takes one mask for a sequence, and its weights have an axis for the heads."""
    C, T, wide = x.shape[-1], x.shape[-2], x if x.ndim == 3 else x[None]
    if allowed is not None and allowed.ndim == 4 and allowed.shape[1] > 1:
        raise NotImplementedError("one mask serves all heads")
    mask = mask_of(allowed, causal, T, T)
    mask = mask if mask is None else mask.reshape(-1, T, T).expand(len(wide), T, T)
    D = p["Wqkv"].shape[1] // 3 // heads
    weights = {"attention_output/kernel": p["Wo"].reshape(heads, D, -1), "attention_output/bias": p["bo"]}
    for name, W, b in zip(("query", "key", "value"), p["Wqkv"].chunk(3, -1), p["bqkv"].chunk(3), strict=True):
        weights |= {f"{name}/kernel": W.reshape(C, heads, D), f"{name}/bias": b.reshape(heads, D)}
    layer = layers.MultiHeadAttention(heads, D, flash_attention=False)
    return applied(layer, [wide.shape] * 2, wide, wide, weights=weights, attention_mask=mask).reshape(x.shape)


def long_short(x, h, c, Wx, Wh, b, *, valid):
    if valid is not None:
        raise NotImplementedError("its mask is not put to the test")
    layer = layers.LSTM(len(Wh), return_sequences=True, return_state=True, unroll=True)
    weights = {"lstm_cell/kernel": Wx, "lstm_cell/recurrent_kernel": Wh, "lstm_cell/bias": b}
    y, _, last = applied(layer, [x.shape], x, weights=weights, initial_state=[h, c])
    return y, last


REDUCTIONS = {"mean": "sum_over_batch_size", "sum": "sum", "none": "none"}


def hard(logits, *, targets, ignore, reduction):
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignore, reduction=REDUCTIONS[reduction])
    return loss(targets, logits)


def soft(logits, targets, *, reduction):
    return losses.CategoricalCrossentropy(from_logits=True, reduction=REDUCTIONS[reduction])(targets, logits)


linear, layer_norm, rms_norm, embedding = map(differentiable, (dense, normed, root_mean_square, look_up))
attention, self_attention, lstm = map(differentiable, (attend, attend_self, long_short))
cross_entropy, soft_cross_entropy = differentiable(hard), differentiable(soft)
softmax, log_softmax = differentiable(lambda x: ops.softmax(x, -1)), differentiable(lambda x: ops.log_softmax(x, -1))
relu, silu, tanh = map(differentiable, (ops.relu, ops.silu, ops.tanh))
gelu_erf = differentiable(lambda x: ops.gelu(x, approximate=False))
gelu_tanh = differentiable(lambda x: ops.gelu(x, approximate=True))


def warmup_cosine(*, step, peak, warmup, total, floor):
    if total <= warmup:
        raise NotImplementedError("a cosine follows the warm-up")
    how = {"warmup_target": peak, "warmup_steps": warmup} if warmup else {}
    start = 0.0 if warmup else peak
    schedule = keras.optimizers.schedules.CosineDecay(start, total - warmup, alpha=floor / peak, **how)
    return ops.convert_to_numpy(schedule(step))
