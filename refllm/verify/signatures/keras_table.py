"""Keras' names: keras.ops, keras.layers, keras.losses, and files that are written like them; on any backend of Keras.

KERAS_BACKEND=torch refllm verify keras.ops keras.layers keras.losses --signatures keras --dtype float32
"""

from __future__ import annotations

import os
import sys
from typing import Any

from refllm.verify.signatures import Table
from refllm.verify.signatures.masks import four_axes, full_mask

BACKENDS = {"torch": "torch", "jax": "jax", "numpy": "numpy"}


def _arrays() -> str:
    """Those of the backend; of a file that is written like Keras but does without it, NumPy's."""
    keras = sys.modules.get("keras")
    name = keras.backend.backend() if keras is not None else os.environ.get("KERAS_BACKEND", "numpy")
    return BACKENDS.get(name, "numpy")


def _use_dtype(dtype: str) -> None:
    """Keras computes in the precision that it was told, whatever its arrays have."""
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)


TABLE = Table(
    "keras",
    _arrays,
    {"causal_alignment": "top-left", "empty_softmax": "nan", "empty_mean": "nan"},
    _use_dtype,
)


def _plain(f: Any, *arrays: Any) -> Any:
    if f.of("keras.src.layers"):
        raise NotImplementedError("keras.layers has a layer of that name, not a function of arrays")
    return f(*arrays)


_PLAIN = {"relu": "relu", "silu": "silu", "tanh": "tanh", "matmul": "matmul", "multiply": "multiply"}
for _name, _operation in _PLAIN.items():
    TABLE.function(_name, operation=_operation)(_plain)


@TABLE.function("softmax")
def softmax(f: Any, x: Any) -> Any:
    return f(x, axis=-1)


@TABLE.function("log_softmax")
def log_softmax(f: Any, x: Any) -> Any:
    return f(x, axis=-1)


@TABLE.function("logsumexp")
def log_sum_exp(f: Any, x: Any) -> Any:
    return f(x, axis=-1)


@TABLE.function("gelu")
def gelu_erf(f: Any, x: Any) -> Any:
    return f(x, approximate=False)


@TABLE.function("gelu")
def gelu_tanh(f: Any, x: Any) -> Any:
    return f(x, approximate=True)


@TABLE.function("layer_normalization")
def layer_norm(f: Any, x: Any, g: Any, b: Any, *, eps: float) -> Any:
    return f(x, g, b, axis=-1, epsilon=eps)


@TABLE.function("rms_normalization")
def rms_norm(f: Any, x: Any, g: Any, *, eps: float) -> Any:
    return f(x, g, axis=-1, epsilon=eps)


@TABLE.function("dot_product_attention")
def attention(f: Any, q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
    """(B, T, H, D) is what it takes."""
    if v.shape[-1] != q.shape[-1] and f.of("keras."):
        raise NotImplementedError("keras.ops takes queries and values of one width")
    wide = [four_axes(x).swapaxes(1, 2) for x in (q, k, v)]
    how: dict[str, Any] = {"is_causal": True} if causal and allowed is None else {}
    if allowed is not None:
        how["mask"] = full_mask(q, k, allowed, causal=causal)
    return f(*wide, **how).swapaxes(1, 2).reshape(*q.shape[:-1], v.shape[-1])


# --- keras.layers: with tensors in the place of their variables ---


def _applied(make: Any, shape: list[Any], *inputs: Any, weights: dict[str, Any], **keywords: Any) -> Any:
    """The layer, built for inputs of this shape in the precision of its first one."""
    import keras

    policy = str(inputs[0].dtype).removeprefix("torch.")
    policy = policy if policy.startswith(("float", "bfloat")) else _floating(weights)
    layer = make(policy)
    layer.build(*shape)
    mapping = [(each, weights[each.path.split("/", 1)[1]]) for each in layer.trainable_variables]
    with keras.StatelessScope(state_mapping=mapping):
        return layer(*inputs, **keywords)


def _floating(weights: dict[str, Any]) -> str:
    return str(next(iter(weights.values())).dtype).removeprefix("torch.")


@TABLE.native("Dense")
def linear(make: Any, x: Any, W: Any, b: Any) -> Any:
    if x.ndim < 2:
        raise NotImplementedError("a layer takes a batch")
    return _applied(lambda d: make(W.shape[1], dtype=d), [x.shape], x, weights={"kernel": W, "bias": b})


@TABLE.native("LayerNormalization", operation="layer_norm")
def layer_norm_layer(make: Any, x: Any, g: Any, b: Any, *, eps: float) -> Any:
    return _applied(lambda d: make(epsilon=eps, dtype=d), [x.shape], x, weights={"gamma": g, "beta": b})


@TABLE.native("RMSNormalization", operation="rms_norm")
def rms_norm_layer(make: Any, x: Any, g: Any, *, eps: float) -> Any:
    return _applied(lambda d: make(epsilon=eps, dtype=d), [x.shape], x, weights={"scale": g})


@TABLE.native("Embedding")
def embedding(make: Any, E: Any, *, ids: Any) -> Any:
    return _applied(lambda d: make(*E.shape, dtype=d), [ids.shape], ids, weights={"embeddings": E})


@TABLE.native("LSTM")
def lstm(make: Any, x: Any, h: Any, c: Any, Wx: Any, Wh: Any, b: Any, *, valid: Any) -> Any:
    if valid is not None:
        raise NotImplementedError("its mask is not put to the test")
    weights = {"lstm_cell/kernel": Wx, "lstm_cell/recurrent_kernel": Wh, "lstm_cell/bias": b}
    how = {"return_sequences": True, "return_state": True, "unroll": True}
    y, _, last = _applied(
        lambda d: make(len(Wh), dtype=d, **how), [x.shape], x, weights=weights, initial_state=[h, c]
    )  # fmt: skip
    return y, last


@TABLE.native("MultiHeadAttention")
def self_attention(make: Any, x: Any, p: Any, *, heads: int, causal: bool, allowed: Any) -> Any:
    """It takes one mask for a sequence, and its weights have an axis for the heads."""
    if allowed is not None and (causal or allowed.ndim == 4):
        raise NotImplementedError("one mask serves all heads, and is not put to the test beside a causal one")
    C, wide = x.shape[-1], x if x.ndim == 3 else x[None]
    D = p["Wqkv"].shape[1] // 3 // heads
    weights = {"attention_output/kernel": p["Wo"].reshape(heads, D, -1), "attention_output/bias": p["bo"]}
    for n, name in enumerate(("query", "key", "value")):
        part = slice(n * heads * D, (n + 1) * heads * D)
        weights[f"{name}/kernel"] = p["Wqkv"][:, part].reshape(C, heads, D)
        weights[f"{name}/bias"] = p["bqkv"][part].reshape(heads, D)
    how: dict[str, Any] = {"use_causal_mask": True} if causal else {}
    if allowed is not None:
        T = x.shape[-2]
        rows = allowed if allowed.shape[-2] == T else allowed.repeat(*[1] * (allowed.ndim - 2), T, 1)
        how["attention_mask"] = rows.reshape(-1, T, T)
    y = _applied(lambda d: make(heads, D, flash_attention=False, dtype=d), [wide.shape] * 2, wide, wide,
                 weights=weights, **how)  # fmt: skip
    return y.reshape(x.shape)


REDUCTIONS = {"mean": "sum_over_batch_size", "sum": "sum", "none": "none"}


@TABLE.native("SparseCategoricalCrossentropy")
def cross_entropy(make: Any, logits: Any, *, targets: Any, ignore: Any, reduction: str) -> Any:
    kind = str(logits.dtype).removeprefix("torch.")
    return make(from_logits=True, ignore_class=ignore, reduction=REDUCTIONS[reduction], dtype=kind)(targets, logits)


@TABLE.native("CategoricalCrossentropy")
def soft_cross_entropy(make: Any, logits: Any, targets: Any, *, reduction: str) -> Any:
    kind = str(logits.dtype).removeprefix("torch.")
    return make(from_logits=True, reduction=REDUCTIONS[reduction], dtype=kind)(targets, logits)


@TABLE.native("CosineDecay")
def warmup_cosine(make: Any, *, step: int, peak: float, warmup: int, total: int, floor: float) -> Any:
    if total <= warmup:
        raise NotImplementedError("a cosine follows the warm-up")
    how = {"warmup_target": peak, "warmup_steps": warmup} if warmup else {}
    return make(0.0 if warmup else peak, total - warmup, alpha=floor / peak, **how)(step)
