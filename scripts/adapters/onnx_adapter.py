"""ONNX operators as an implementation, by the standard's own evaluator, or by ONNX Runtime: values alone.

refllm verify scripts/adapters/onnx_adapter.py --dtype float32
ONNX_BY=runtime refllm verify scripts/adapters/onnx_adapter.py --dtype float32
"""

import math
import os

import numpy
from onnx import helper

RUNTIME = os.environ.get("ONNX_BY") == "runtime"
kind = helper.np_dtype_to_tensor_dtype
DOMAINS = [helper.make_opsetid("", 24), helper.make_opsetid("ai.onnx.preview.training", 1)]


def evaluated(model, given, names):
    if not RUNTIME:
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(model).run(names, given)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return session.run(names, given)
    except Exception as error:
        words = ("NOT_IMPLEMENTED", "not a registered function", "Type Error: Type", "does not support double")
        if any(word in str(error) for word in words):
            raise NotImplementedError(str(error)[:200]) from None
        raise


def node(operator, *inputs, outputs=1, domain="", **attributes):
    """What a graph of one operator gives; None is an input that is left out."""
    arrays = {f"i{n}": numpy.array(x, order="C") for n, x in enumerate(inputs) if x is not None}
    wide = any(x.dtype == "float64" for x in arrays.values())
    for name, value in attributes.items():
        if wide and isinstance(value, float) and numpy.float32(value) != value:
            raise NotImplementedError(f"{name} is an attribute, and those are numbers of float32")
    names = [f"i{n}" if x is not None else "" for n, x in enumerate(inputs)]
    results = [f"o{n}" for n in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(operator, names, results, domain=domain, **attributes)],
        "graph",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in arrays.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in results],
    )
    found = evaluated(helper.make_model(graph, opset_imports=DOMAINS, ir_version=10), arrays, results)
    return found[0] if outputs == 1 else found


def by_rows(f, x):
    y = f(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]))
    return y.reshape(*x.shape[:-1], y.shape[-1])


def softmax(x):
    return node("Softmax", x, axis=-1)


def log_softmax(x):
    return node("LogSoftmax", x, axis=-1)


def relu(x):
    return node("Relu", x)


def tanh(x):
    return node("Tanh", x)


def gelu_erf(x):
    return node("Gelu", x)


def gelu_tanh(x):
    return node("Gelu", x, approximate="tanh")


def silu(x):
    return node("Swish", x, alpha=1.0)


def layer_norm(x, g, b, *, eps):
    return node("LayerNormalization", x, g, b, axis=-1, epsilon=eps)


def rms_norm(x, g, *, eps):
    return node("RMSNormalization", x, g, axis=-1, epsilon=eps)


def linear(x, W, b):
    return by_rows(lambda rows: node("Gemm", rows, W, b), x)


def matmul(x, W):
    return node("MatMul", x, W)


def expert_matmul(x, W):
    return node("MatMul", x, W)


def multiply(a, b):
    return node("Mul", a, b)


def embedding(E, *, ids):
    return node("Gather", E, ids, axis=0)


def attention(q, k, v, *, causal, allowed, **how):
    T, S = q.shape[-2], k.shape[-2]
    if causal and T != S:
        raise NotImplementedError("its causal mask is aligned top-left without a cache")
    mask = None if allowed is None else numpy.broadcast_to(allowed, (*allowed.shape[:-2], T, S))
    mask = mask[None] if mask is not None and q.ndim == mask.ndim == 3 else mask
    wide = (z.reshape((1,) * (4 - z.ndim) + z.shape) for z in (q, k, v))
    return node("Attention", *wide, mask, is_causal=int(causal), **how).reshape(*q.shape[:-1], -1)


def capped_attention(q, k, v, *, cap, causal, allowed):
    return attention(q, k, v, causal=causal, allowed=allowed, softcap=float(cap))


def relative_attention(q, k, v, r, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    bias = r[:, numpy.arange(S) - numpy.arange(T)[:, None] + T - 1]  # a mask of numbers is added to the scores
    return attention(q, k, v, causal=causal, allowed=bias if allowed is None else numpy.where(allowed, bias, -math.inf))


def sliding_window_attention(q, k, v, *, window, allowed):
    distance = numpy.arange(q.shape[-2])[:, None] + k.shape[-2] - q.shape[-2] - numpy.arange(k.shape[-2])
    seen = (distance >= 0) & (distance < window)
    return attention(q, k, v, causal=False, allowed=seen if allowed is None else seen & allowed)


def log_sum_exp(x):
    return node("ReduceLogSumExp", x, numpy.array([-1]), keepdims=0)


def gate(p, *, chosen):
    return node("GatherElements", p, chosen[..., None], axis=-1)[..., 0]


def turned(x, positions, base, **how):
    D, rows = x.shape[-1], x.reshape(-1, 1, *x.shape[-2:])
    angle = positions[..., None] / base ** (numpy.arange(0, D, 2) / D)
    c, s = (f(angle).astype(x.dtype) for f in (numpy.cos, numpy.sin))
    c, s = (numpy.broadcast_to(z, (*x.shape[:-1], D // 2)).reshape(-1, *z.shape[-2:]) for z in (c, s))
    return node("RotaryEmbedding", rows, c, s, **how).reshape(x.shape)


def rotary_halves(x, *, positions, base):
    return turned(x, positions, base, interleaved=0)


def rotary_interleaved(x, *, positions, base):
    return turned(x, positions, base, interleaved=1)


def cross_entropy(logits, *, targets, ignore, reduction):
    how = {} if ignore is None else {"ignore_index": ignore}
    rows = logits.reshape(-1, logits.shape[-1])
    y = node("SoftmaxCrossEntropyLoss", rows, targets.reshape(-1), reduction=reduction, **how)
    return y.reshape(targets.shape) if reduction == "none" else y


def recurrent(operator, x, states, Wx, Wh, b, order, valid, *, beside=None, **how):
    """ONNX has time first, and the gates of an LSTM in another order."""
    if valid is not None and not (valid == (numpy.arange(valid.shape[1]) < valid.sum(1, keepdims=True))).all():
        raise NotImplementedError("sequences are padded at their end")
    lengths = None if valid is None else valid.sum(1).astype("int32")
    parts = [numpy.split(z, len(order), -1) for z in (Wx, Wh, b, 0 * b if beside is None else beside)]
    Wx, Wh, b, beside = (numpy.concatenate([part[i] for i in order], -1) for part in parts)
    b = numpy.concatenate([b, beside])
    arrays = (x.swapaxes(0, 1), Wx.T[None], Wh.T[None], b[None], lengths, *(s[None] for s in states))
    y, *ends = node(operator, *arrays, outputs=1 + len(states), hidden_size=len(Wh), **how)
    y, ends = y[:, 0].swapaxes(0, 1), [each[0] for each in ends]
    if valid is not None:  # behind the end ONNX has zeros, and as the last state of a sequence without a step
        ends = [numpy.where(lengths[:, None] > 0, *both) for both in zip(ends, states, strict=True)]
        y = numpy.where(valid[..., None], y, ends[0][:, None])
    return y, *ends[1:]


def rnn(x, h, Wx, Wh, b, *, valid):
    return recurrent("RNN", x, [h], Wx, Wh, b, [0], valid)[0]


def lstm(x, h, c, Wx, Wh, b, *, valid):
    return recurrent("LSTM", x, [h, c], Wx, Wh, b, [0, 3, 1, 2], valid)


def gru_reset_after(x, h, Wx, Wh, b, c, *, valid):
    beside = numpy.concatenate([0 * b[: 2 * len(c)], c])
    return recurrent("GRU", x, [h], Wx, Wh, b, [1, 0, 2], valid, beside=beside, linear_before_reset=1)[0]


def adam(p, g, m, v, *, step, lr, beta1, beta2, eps, decay):
    how = {"alpha": beta1, "beta": beta2, "epsilon": eps, "norm_coefficient": decay}
    inputs = (numpy.asarray(lr, p.dtype), numpy.asarray(step), p, g, m, v)
    return tuple(node("Adam", *inputs, outputs=3, domain="ai.onnx.preview.training", **how))


def sgd(p, g, v, *, lr, momentum):
    how = {"alpha": momentum, "beta": 1.0, "mode": "standard", "norm_coefficient": 0.0}
    inputs = (numpy.asarray(lr, p.dtype), numpy.asarray(1), p, g, v)
    return tuple(node("Momentum", *inputs, outputs=2, domain="ai.onnx.preview.training", **how))
