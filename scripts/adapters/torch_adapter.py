"""PyTorch as an implementation: forward functions, differentiated by PyTorch itself.

refllm verify scripts/adapters/torch_adapter.py --dtype bfloat16
"""

import functools
import math

import torch
from torch.nn import functional as F  # noqa: N812  (its customary name)

DTYPES = ["float64", "float32", "bfloat16"]
PRECISION = {"torch": None}  # None: that of the arrays


def use_dtype(dtype):
    PRECISION["torch"] = torch.bfloat16 if dtype == "bfloat16" else None


def over(f, x):
    """The tree x with f at every leaf."""
    if isinstance(x, dict):
        return {name: over(f, child) for name, child in x.items()}
    return type(x)(over(f, child) for child in x) if isinstance(x, list | tuple) else f(x)


def tensor(x):
    return torch.tensor(x.copy(), dtype=PRECISION["torch"] if x.dtype.kind == "f" else None)


def array(x):
    return (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy().copy()


def differentiable(forward):
    """A function of tensors as an operation on arrays: y, back = operation(x, W, ..., keyword=...)."""

    def operation(*arrays, **keywords):
        inputs = over(lambda x: tensor(x).requires_grad_(), arrays)
        y = forward(*inputs, **{n: tensor(x) if hasattr(x, "dtype") else x for n, x in keywords.items()})

        def back(*dy):
            leaves, dy = [], [tensor(d) for d in dy]
            over(leaves.append, inputs)
            found = iter(torch.autograd.grad(y, leaves, dy, retain_graph=True, materialize_grads=True))
            dx = over(lambda _: array(next(found)), inputs)
            return dx if len(dx) > 1 else dx[0]

        return over(array, y), back

    return operation


def attend(q, k, v, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T if causal else S)
    mask = mask if allowed is None else mask & allowed
    some = mask.any(-1, keepdim=True)  # a row without a key is zero here, NaN in PyTorch
    return torch.where(some, F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~some), 0)


def some_softmax(x):
    nothing = (x == -math.inf).all(-1, keepdim=True)
    return torch.where(nothing, 0, torch.softmax(torch.where(nothing, 0, x), -1))


def split(x, W, b, *, heads, parts):
    return (x @ W + b).unflatten(-1, (parts, heads, -1)).movedim(-3, 0).transpose(-2, -3).unbind()


def nll(logits, *, targets, ignore, reduction):
    each = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).long(), reduction="none",
        ignore_index=-1 if ignore is None else ignore,
    )  # fmt: skip
    count = max(1, targets.numel() if ignore is None else int((targets != ignore).sum()))
    return each.reshape(targets.shape) if reduction == "none" else each.sum() / (count if reduction == "mean" else 1)


def sines(p, *, width):
    angle = p.double()[..., None] / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :width].to(p.dtype)


def optimiser(rule):
    def update(p, g, m, v, *, step, lr, beta1, beta2, eps, decay):
        p, g, m, v = (tensor(z).clone() for z in (p, g, m, v))
        p.grad, chosen = g, rule([p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
        chosen.state[p] = {"step": torch.tensor(step - 1.0), "exp_avg": m, "exp_avg_sq": v}
        chosen.step()
        return array(p), array(m), array(v)

    return update


def ln(x, p, eps):
    return F.layer_norm(x, x.shape[-1:], p["g"], p["b"], eps)


def feed(x, p, *, activation):
    return ACTIVATIONS[activation](x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]


def attend_self(x, p, *, heads, causal, allowed):
    parts = split(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)
    return attend(*parts, causal=causal, allowed=allowed).transpose(-2, -3).flatten(-2) @ p["Wo"] + p["bo"]


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
    x = x + (p["position"][:T] if "position" in p else sines(torch.arange(T).to(x.dtype), width=c["width"]))
    for each in p["layers"]:
        how = {name: c[name] for name in ("norm", "heads", "activation", "eps")}
        x = layer(x, each, causal=True, allowed=None, **how)
    x = ln(x, p["norm"], c["eps"]) if c["norm"] == "pre" else x
    return x @ (p["token"].T if c["tied"] else p["head"])


def loss(p, *, ids, targets, ignore, config):
    return nll(model(p, ids=ids, config=config), targets=targets, ignore=ignore, reduction="mean")


ACTIVATIONS = {"relu": F.relu, "gelu_erf": F.gelu, "gelu_tanh": functools.partial(F.gelu, approximate="tanh")}
relu, gelu_erf, gelu_tanh = map(differentiable, ACTIVATIONS.values())
linear = differentiable(lambda x, W, b: F.linear(x, W.T, b))
matmul = differentiable(torch.matmul)
heads = differentiable(split)
embedding = differentiable(lambda E, *, ids: F.embedding(ids, E))
sinusoidal = differentiable(sines)
add_positions = differentiable(lambda x, P, *, positions: x + F.embedding(positions, P))
attention = differentiable(attend)
softmax = differentiable(some_softmax)
log_softmax = differentiable(lambda x: torch.log_softmax(x, -1))
cross_entropy = differentiable(nll)
mean_squared_error = differentiable(F.mse_loss)
layer_norm = differentiable(lambda x, g, b, *, eps: F.layer_norm(x, g.shape, g, b, eps))
dropout = differentiable(lambda x, *, keep, rate: x * keep / (1 - rate))
adam, adamw = optimiser(torch.optim.Adam), optimiser(torch.optim.AdamW)
feed_forward, self_attention, transformer_layer = map(differentiable, (feed, attend_self, layer))
gpt, gpt_loss = map(differentiable, (model, loss))
