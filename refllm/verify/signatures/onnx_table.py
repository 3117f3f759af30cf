"""ONNX' names: operators with their attributes as keywords, and files that are written like them.

    refllm verify scripts/adapters/onnx_operators.py --signatures onnx --values

An operator is Operator(input, ..., attribute=...); an input that is left out is None. ONNX' operators have no gradient.
"""

from __future__ import annotations

from typing import Any

import numpy

from refllm.verify.signatures import Table
from refllm.verify.signatures.masks import four_axes, full_mask

# As ONNX documents it: is_causal is aligned top-left without a cache.
TABLE = Table(
    "onnx",
    lambda: "numpy",
    {"causal_alignment": "top-left", "empty_softmax": "nan", "empty_mean": "nan"},
)


def _plain(f: Any, *arrays: Any) -> Any:
    return f(*arrays)


_PLAIN = {"Relu": "relu", "Tanh": "tanh", "MatMul": "matmul", "Mul": "multiply", "Gelu": "gelu_erf", "Swish": "silu"}
for _name, _operation in _PLAIN.items():
    TABLE.function(_name, operation=_operation)(_plain)


@TABLE.function("Softmax")
def softmax(f: Any, x: Any) -> Any:
    return f(x, axis=-1)


@TABLE.function("LogSoftmax")
def log_softmax(f: Any, x: Any) -> Any:
    return f(x, axis=-1)


@TABLE.function("Gelu")
def gelu_tanh(f: Any, x: Any) -> Any:
    return f(x, approximate="tanh")


@TABLE.function("LayerNormalization")
def layer_norm(f: Any, x: Any, g: Any, b: Any, *, eps: float) -> Any:
    return f(x, g, b, axis=-1, epsilon=eps)


@TABLE.function("RMSNormalization")
def rms_norm(f: Any, x: Any, g: Any, *, eps: float) -> Any:
    return f(x, g, axis=-1, epsilon=eps)


@TABLE.function("Gemm")
def linear(f: Any, x: Any, W: Any, b: Any) -> Any:
    return f(x.reshape(-1, x.shape[-1]), W, b).reshape(*x.shape[:-1], W.shape[-1])


@TABLE.function("Gather")
def embedding(f: Any, E: Any, *, ids: Any) -> Any:
    return f(E, ids, axis=0)


@TABLE.function("Attention")
def attention(f: Any, q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
    """(B, H, T, D), as PyTorch's."""
    mask = None if allowed is None else full_mask(q, k, allowed, causal=causal)
    how = {"is_causal": 1} if causal and allowed is None else {}
    y = f(*(four_axes(x) for x in (q, k, v)), *([] if mask is None else [mask]), **how)
    return y.reshape(*q.shape[:-1], v.shape[-1])


@TABLE.function("SoftmaxCrossEntropyLoss")
def cross_entropy(f: Any, logits: Any, *, targets: Any, ignore: Any, reduction: str) -> Any:
    how = {} if ignore is None else {"ignore_index": ignore}
    y = f(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction=reduction, **how)
    return y.reshape(*targets.shape) if reduction == "none" else y


def _recurrent(f: Any, x: Any, states: list[Any], Wx: Any, Wh: Any, b: Any, order: list[int], valid: Any) -> Any:
    """ONNX has time first, and the gates of an LSTM in another order."""
    if valid is not None and not (valid == (numpy.arange(valid.shape[1]) < valid.sum(1, keepdims=True))).all():
        raise NotImplementedError("sequences are padded at their end")
    lengths = None if valid is None else valid.sum(1).astype("int32")
    parts = [numpy.split(z, len(order), -1) for z in (Wx, Wh, b)]
    Wx, Wh, b = (numpy.concatenate([part[i] for i in order], -1) for part in parts)
    b = numpy.concatenate([b, 0 * b])
    arrays = (x.swapaxes(0, 1), Wx.T[None], Wh.T[None], b[None], lengths, *(s[None] for s in states))
    y, last, *rest = f(*arrays, outputs=1 + len(states), hidden_size=len(Wh))
    y = y[:, 0].swapaxes(0, 1)
    y = y if valid is None else numpy.where(valid[..., None], y, last[0][:, None])  # behind the end ONNX has zeros
    return y, *(each[0] for each in rest)


@TABLE.native("RNN")
def rnn(f: Any, x: Any, h: Any, Wx: Any, Wh: Any, b: Any, *, valid: Any) -> Any:
    return _recurrent(f, x, [h], Wx, Wh, b, [0], valid)[0]


@TABLE.native("LSTM")
def lstm(f: Any, x: Any, h: Any, c: Any, Wx: Any, Wh: Any, b: Any, *, valid: Any) -> Any:
    return _recurrent(f, x, [h, c], Wx, Wh, b, [0, 3, 1, 2], valid)


@TABLE.native("Adam")
def adam(
    f: Any, p: Any, g: Any, m: Any, v: Any, *, step: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float,
) -> Any:  # fmt: skip
    how = {"alpha": beta1, "beta": beta2, "epsilon": eps, "norm_coefficient": decay}
    return tuple(f(numpy.asarray(lr, p.dtype), numpy.asarray(step), p, g, m, v, outputs=3, **how))


@TABLE.native("Momentum")
def sgd(f: Any, p: Any, g: Any, v: Any, *, lr: float, momentum: float) -> Any:
    how = {"alpha": momentum, "beta": 1.0, "mode": "standard", "norm_coefficient": 0.0}
    return tuple(f(numpy.asarray(lr, p.dtype), numpy.asarray(1), p, g, v, outputs=2, **how))
