"""PyTorch's names: torch, torch.nn.functional, torch.nn, torch.optim, and files that are written like them.

refllm verify torch.nn.functional --signatures torch
"""

from __future__ import annotations

from types import BuiltinFunctionType
from typing import Any

import numpy

from refllm.verify.signatures import Table
from refllm.verify.signatures.masks import four_axes, full_mask, of_borders, of_window

# As PyTorch documents it: is_causal is aligned top-left, a mean over nothing is NaN, the norm has 1e-6 added to it.
TABLE = Table(
    "torch",
    lambda: "torch",
    {"causal_alignment": "top-left", "empty_softmax": "nan", "empty_mean": "nan", "clip_eps": "1e-6"},
)


def _attend(f: Any, q: Any, k: Any, v: Any, mask: Any, **how: Any) -> Any:
    """(B, H, T, D) is what a kernel takes."""
    given = {} if mask is None else {"attn_mask": mask}
    y = f(*(four_axes(x) for x in (q, k, v)), **given, **how)
    return y.reshape(*q.shape[:-1], v.shape[-1])


@TABLE.function("scaled_dot_product_attention")
def attention(f: Any, q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
    if allowed is None:
        return _attend(f, q, k, v, None, **({"is_causal": True} if causal else {}))
    return _attend(f, q, k, v, full_mask(q, k, allowed, causal=causal))


@TABLE.function("scaled_dot_product_attention")
def sliding_window_attention(f: Any, q: Any, k: Any, v: Any, *, window: int, allowed: Any) -> Any:
    return _attend(f, q, k, v, of_window(q, k, allowed, window))


@TABLE.function("scaled_dot_product_attention")
def packed_attention(f: Any, q: Any, k: Any, v: Any, *, borders: Any, key_borders: Any, causal: bool) -> Any:
    return _attend(f, q, k, v, of_borders(q, k, borders, key_borders, causal=causal))


@TABLE.function("scaled_dot_product_attention")
def relative_attention(f: Any, q: Any, k: Any, v: Any, r: Any, *, causal: bool, allowed: Any) -> Any:
    """A mask of floats is added to the scores, minus infinity where a key may not be seen. The axis before the last two
    is that of the heads, which have numbers of their own."""
    shape, T, S = q.shape[:-1], q.shape[-2], k.shape[-2]
    bias = r[:, numpy.arange(S) - numpy.arange(T)[:, None] + T - 1]
    if causal or allowed is not None:
        mask = full_mask(q, k, allowed, causal=causal, heads=True)
        bias = bias + numpy.where(mask, 0, -numpy.inf).astype(q.dtype)
    q, k, v, bias = (x.reshape(*[1] * (4 - x.ndim), *x.shape) for x in (q, k, v, bias))
    return f(q, k, v, attn_mask=bias).reshape(*shape, v.shape[-1])


@TABLE.function("softmax")
def softmax(f: Any, x: Any) -> Any:
    return f(x, -1)


@TABLE.function("log_softmax")
def log_softmax(f: Any, x: Any) -> Any:
    return f(x, -1)


@TABLE.function("logsumexp")
def log_sum_exp(f: Any, x: Any) -> Any:
    return f(x, -1)


def _plain(f: Any, *arrays: Any) -> Any:
    return f(*arrays)


_PLAIN = {
    "relu": "relu", "silu": "silu", "tanh": "tanh", "gelu": "gelu_erf", "mul": "multiply", "multiply": "multiply",
    "matmul": "matmul", "mse_loss": "mean_squared_error",
}  # fmt: skip
for _name, _operation in _PLAIN.items():
    TABLE.function(_name, operation=_operation)(_plain)


@TABLE.function("gelu")
def gelu_tanh(f: Any, x: Any) -> Any:
    return f(x, approximate="tanh")


@TABLE.function("layer_norm")
def layer_norm(f: Any, x: Any, g: Any, b: Any, *, eps: float) -> Any:
    return f(x, g.shape, g, b, eps)


@TABLE.function("rms_norm")
def rms_norm(f: Any, x: Any, g: Any, *, eps: float) -> Any:
    return f(x, g.shape, g, eps)


@TABLE.function("linear")
def linear(f: Any, x: Any, W: Any, b: Any) -> Any:
    return f(x, W.T, b)


@TABLE.function("embedding")
def embedding(f: Any, E: Any, *, ids: Any) -> Any:
    return f(E, ids) if isinstance(f.signed.target, BuiltinFunctionType) else f(ids, E)  # torch.embedding, or F's


@TABLE.function("cross_entropy")
def cross_entropy(f: Any, logits: Any, *, targets: Any, ignore: Any, reduction: str, smoothing: float = 0.0) -> Any:
    how = {"reduction": reduction} | ({} if ignore is None else {"ignore_index": ignore})
    how |= {"label_smoothing": smoothing} if smoothing else {}
    y = f(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), **how)
    return y.reshape(*targets.shape) if reduction == "none" else y


TABLE.function("cross_entropy", operation="smoothed_cross_entropy")(cross_entropy)


@TABLE.function("cross_entropy")
def soft_cross_entropy(f: Any, logits: Any, targets: Any, *, reduction: str) -> Any:
    V = logits.shape[-1]
    y = f(logits.reshape(-1, V), targets.reshape(-1, V), reduction=reduction)
    return y.reshape(*logits.shape[:-1]) if reduction == "none" else y


# --- torch.nn: classes, on tensors ---


def _applied(module: Any, *inputs: Any, weights: dict[str, Any], **keywords: Any) -> Any:
    """The module with these tensors in the place of its parameters; gradients reach them."""
    import torch

    return torch.func.functional_call(module, weights, inputs, keywords, strict=False)


@TABLE.native("LayerNorm", operation="layer_norm")
def layer_norm_module(make: Any, x: Any, g: Any, b: Any, *, eps: float) -> Any:
    return _applied(make(tuple(g.shape), eps, dtype=x.dtype, device=x.device), x, weights={"weight": g, "bias": b})


@TABLE.native("RMSNorm", operation="rms_norm")
def rms_norm_module(make: Any, x: Any, g: Any, *, eps: float) -> Any:
    return _applied(make(tuple(g.shape), eps, dtype=x.dtype, device=x.device), x, weights={"weight": g})


@TABLE.native("Linear", operation="linear")
def linear_module(make: Any, x: Any, W: Any, b: Any) -> Any:
    return _applied(make(*W.shape, dtype=x.dtype, device=x.device), x, weights={"weight": W.T, "bias": b})


@TABLE.native("Embedding", operation="embedding")
def embedding_module(make: Any, E: Any, *, ids: Any) -> Any:
    return _applied(make(*E.shape, dtype=E.dtype, device=E.device), ids, weights={"weight": E})


def _activation(make: Any, x: Any) -> Any:
    return make()(x)


for _name, _operation in {"ReLU": "relu", "SiLU": "silu", "Tanh": "tanh", "GELU": "gelu_erf"}.items():
    TABLE.native(_name, operation=_operation)(_activation)


@TABLE.native("GELU", operation="gelu_tanh")
def gelu_tanh_module(make: Any, x: Any) -> Any:
    return make("tanh")(x)


@TABLE.native("Softmax", operation="softmax")
@TABLE.native("LogSoftmax", operation="log_softmax")
def softmax_module(make: Any, x: Any) -> Any:
    return make(-1)(x)


@TABLE.native("CrossEntropyLoss", operation="cross_entropy")
@TABLE.native("CrossEntropyLoss", operation="smoothed_cross_entropy")
def cross_entropy_module(
    make: Any, logits: Any, *, targets: Any, ignore: Any, reduction: str, smoothing: float = 0.0
) -> Any:
    loss = make(reduction=reduction, label_smoothing=smoothing, ignore_index=-100 if ignore is None else ignore)
    y = loss(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
    return y.reshape(targets.shape) if reduction == "none" else y


@TABLE.native("MSELoss", operation="mean_squared_error")
def mean_squared_error_module(make: Any, x: Any, t: Any) -> Any:
    return make()(x, t)


def _recurrent(make: Any, x: Any, states: list[Any], Wx: Any, Wh: Any, b: Any, c: Any, valid: Any, **how: Any) -> Any:
    """A padded batch is packed, which is why padding stands at the end of a sequence alone."""
    import torch

    module = make(x.shape[-1], len(Wh), batch_first=True, dtype=x.dtype, device=x.device, **how)
    weights = {"weight_ih_l0": Wx.T, "weight_hh_l0": Wh.T, "bias_ih_l0": b, "bias_hh_l0": c}
    start = states[0][None] if len(states) == 1 else tuple(s[None] for s in states)
    if valid is None:
        return _applied(module, x, start, weights=weights)
    lengths = valid.sum(1)
    if not (valid == (torch.arange(valid.shape[1], device=x.device) < lengths[:, None])).all() or not lengths.all():
        raise NotImplementedError("a packed sequence is padded at its end, and not empty")
    from torch.nn.utils import rnn

    packed = rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    y, last = _applied(module, packed, start, weights=weights)
    y = rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]
    h = last if len(states) == 1 else last[0]
    return torch.where(valid[..., None], y, h[0][:, None]), last


@TABLE.native("LSTM")
def lstm(make: Any, x: Any, h: Any, c: Any, Wx: Any, Wh: Any, b: Any, *, valid: Any) -> Any:
    y, (_, last) = _recurrent(make, x, [h, c], Wx, Wh, b, 0 * b, valid)
    return y, last[0]


@TABLE.native("RNN")
def rnn(make: Any, x: Any, h: Any, Wx: Any, Wh: Any, b: Any, *, valid: Any) -> Any:
    return _recurrent(make, x, [h], Wx, Wh, b, 0 * b, valid)[0]


@TABLE.native("GRU")
def gru_reset_after(make: Any, x: Any, h: Any, Wx: Any, Wh: Any, b: Any, c: Any, *, valid: Any) -> Any:
    """Its second bias has the reset's and the update's part too, which are added to those of the first."""
    import torch

    both = torch.cat([torch.zeros_like(b[: 2 * len(Wh)]), c])
    return _recurrent(make, x, [h], Wx, Wh, b, both, valid)[0]


def _many_heads(
    make: Any, x: Any, memory: Any, weights: dict[str, Any], heads: int, mask: Any, *, need_weights: bool
) -> Any:
    """With `need_weights` it computes the scores by themselves, without a fused kernel."""
    module = make(x.shape[-1], heads, batch_first=True, dtype=x.dtype, device=x.device)
    x, memory = (z if z.ndim == 3 else z[None] for z in (x, memory))
    if mask is not None:
        shape = (len(x), heads, x.shape[1], memory.shape[1])
        mask = ~mask.reshape((1,) * (4 - mask.ndim) + mask.shape).expand(shape).reshape(-1, *shape[2:])
    how = {"attn_mask": mask, "need_weights": need_weights}
    return _applied(module, x, memory, memory, weights=weights, **how)[0]


@TABLE.native("MultiheadAttention")
def self_attention(make: Any, x: Any, p: Any, *, heads: int, causal: bool, allowed: Any) -> Any:
    import torch

    if p["Wqkv"].shape[1] != 3 * x.shape[-1]:
        raise NotImplementedError("a head is as wide as the model over the number of heads")
    T = x.shape[-2]
    mask = None if allowed is None else allowed.expand(*allowed.shape[:-2], T, T)
    if causal:
        before = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
        mask = before if mask is None else mask & before
    weights = {"in_proj_weight": p["Wqkv"].T, "in_proj_bias": p["bqkv"]}
    weights |= {"out_proj.weight": p["Wo"].T, "out_proj.bias": p["bo"]}
    return _many_heads(make, x, x, weights, heads, mask, need_weights=False).reshape(x.shape)


@TABLE.native("MultiheadAttention")
def cross_attention(make: Any, x: Any, memory: Any, p: Any, *, heads: int, scaled: bool, allowed: Any) -> Any:
    import torch

    if not scaled or "bq" not in p or p["Wq"].shape[1] != x.shape[-1]:
        raise NotImplementedError("it is scaled, has biases, and heads as wide as the model over their number")
    weights = {"in_proj_weight": torch.cat([p["Wq"], p["Wkv"]], 1).T, "in_proj_bias": torch.cat([p["bq"], p["bkv"]])}
    weights |= {"out_proj.weight": p["Wo"].T, "out_proj.bias": p["bo"]}
    return _many_heads(make, x, memory, weights, heads, allowed, need_weights=True).reshape(x.shape)


# --- torch.optim ---


def _updated(make: Any, p: Any, g: Any, state: dict[str, Any], **how: Any) -> Any:
    """One step of an optimiser that was stopped with this state."""
    p = p.clone().requires_grad_()
    p.grad = g.clone()
    optimiser = make([p], **how)
    optimiser.state[p] = {name: x.clone() for name, x in state.items()}
    optimiser.step()
    return p.detach(), optimiser.state[p]


@TABLE.native("Adam", operation="adam")
@TABLE.native("AdamW", operation="adamw")
def adam_like(
    make: Any, p: Any, g: Any, m: Any, v: Any, *, step: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float,
) -> Any:  # fmt: skip
    import torch

    state = {"step": torch.tensor(step - 1.0), "exp_avg": m, "exp_avg_sq": v}
    p, state = _updated(make, p, g, state, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    return p, state["exp_avg"], state["exp_avg_sq"]


@TABLE.native("SGD")
def sgd(make: Any, p: Any, g: Any, v: Any, *, lr: float, momentum: float) -> Any:
    p, state = _updated(make, p, g, {"momentum_buffer": v}, lr=lr, momentum=momentum)
    return p, state["momentum_buffer"] if momentum else g


@TABLE.native("Muon")
def muon(make: Any, p: Any, g: Any, v: Any, *, lr: float, momentum: float, nesterov: bool, decay: float) -> Any:
    """Its velocity is a running mean, ours times 1 - momentum; it is made orthogonal, which no factor changes."""
    share, how = 1 - momentum, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    p, state = _updated(make, p, g, {"momentum_buffer": share * v}, **how)
    return p, state["momentum_buffer"] / share


@TABLE.native("clip_grad_norm_")
def clip_by_global_norm(clip_grads: Any, g: Any, *, clip: float) -> Any:
    from torch import nn

    parameters = [nn.Parameter(x.clone()) for x in g]
    for parameter, x in zip(parameters, g, strict=True):
        parameter.grad = x.clone()
    norm = clip_grads(parameters, clip)
    return norm, [parameter.grad for parameter in parameters]
