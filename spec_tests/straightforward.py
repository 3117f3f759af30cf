"""A training step as one writes it down: every formula over whole arrays, one after the other.

It is what refllm's step is timed against (test_speed.py). Pre-norm GPT with tanh GELU, learned positions and a tied
head; AdamW tensor by tensor; BLAS with all its threads. No trick and no blunder: no loop over heads, no x**3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refllm.parameters import Tree, is_decayed, named_leaves

K = math.sqrt(2 / math.pi)


def layer_norm(x: Any, p: Tree, eps: float) -> Any:
    c = x - x.mean(axis=-1, keepdims=True)
    r = 1 / np.sqrt((c * c).mean(axis=-1, keepdims=True) + eps)
    n = c * r

    def back(dy: Any) -> Any:
        dn = dy * p["g"]
        dx = r * (dn - dn.mean(axis=-1, keepdims=True) - n * (dn * n).mean(axis=-1, keepdims=True))
        return dx, {"g": (dy * n).sum(axis=(0, 1)), "b": dy.sum(axis=(0, 1))}

    return n * p["g"] + p["b"], back


def linear(x: Any, W: Any, b: Any) -> Any:
    def back(dy: Any) -> Any:
        flat = dy.reshape(-1, dy.shape[-1])
        return dy @ W.T, x.reshape(-1, x.shape[-1]).T @ flat, flat.sum(axis=0)

    return x @ W + b, back


def gelu(x: Any) -> Any:
    t = np.tanh(K * (x + 0.044715 * x * x * x))

    def back(dy: Any) -> Any:
        return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * K * (1 + 3 * 0.044715 * x * x))

    return 0.5 * x * (1 + t), back


def attention(x: Any, p: Tree, heads: int) -> Any:
    B, T, C = x.shape
    qkv, back_qkv = linear(x, p["Wqkv"], p["bqkv"])
    q, k, v = qkv.reshape(B, T, 3, heads, C // heads).transpose(2, 0, 3, 1, 4)
    scale = 1 / math.sqrt(C // heads)
    scores = np.where(np.tri(T, dtype=bool), q @ k.swapaxes(-1, -2) * scale, -np.inf).astype(x.dtype)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    P = e / e.sum(axis=-1, keepdims=True)
    y, back_out = linear((P @ v).swapaxes(1, 2).reshape(B, T, C), p["Wo"], p["bo"])

    def back(dy: Any) -> Any:
        da, dWo, dbo = back_out(dy)
        da = da.reshape(B, T, heads, -1).swapaxes(1, 2)
        dP = da @ v.swapaxes(-1, -2)
        ds = P * (dP - (P * dP).sum(axis=-1, keepdims=True)) * scale
        dqkv = np.stack([ds @ k, ds.swapaxes(-1, -2) @ q, P.swapaxes(-1, -2) @ da])
        dx, dWqkv, dbqkv = back_qkv(dqkv.transpose(1, 3, 0, 2, 4).reshape(B, T, 3 * C))
        return dx, {"Wqkv": dWqkv, "bqkv": dbqkv, "Wo": dWo, "bo": dbo}

    return y, back


def feed_forward(x: Any, p: Tree) -> Any:
    h, back1 = linear(x, p["W1"], p["b1"])
    a, back_gelu = gelu(h)
    y, back2 = linear(a, p["W2"], p["b2"])

    def back(dy: Any) -> Any:
        da, dW2, db2 = back2(dy)
        dx, dW1, db1 = back1(back_gelu(da))
        return dx, {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}

    return y, back


def gradients(p: Tree, tokens: Any, *, heads: int, eps: float) -> tuple[float, Tree]:
    """The mean loss of windows (B, T + 1) and its gradient."""
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    x, backs = p["token"][ids] + p["position"][: ids.shape[1]], []
    for layer in p["layers"]:
        n1, back_n1 = layer_norm(x, layer["norm1"], eps)
        a, back_a = attention(n1, layer["attention"], heads)
        x = x + a
        n2, back_n2 = layer_norm(x, layer["norm2"], eps)
        f, back_f = feed_forward(n2, layer["feed_forward"])
        x = x + f
        backs.append((back_n1, back_a, back_n2, back_f))
    y, back_norm = layer_norm(x, p["norm"], eps)
    logits = y @ p["token"].T
    z = logits - logits.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    loss = -np.take_along_axis(log_p, targets[..., None], axis=-1).mean()

    dlogits = (np.exp(log_p) - (np.arange(logits.shape[-1]) == targets[..., None])) / targets.size
    dlogits = dlogits.astype(y.dtype)
    dtoken = dlogits.reshape(-1, dlogits.shape[-1]).T @ y.reshape(-1, y.shape[-1])
    dx, dnorm = back_norm(dlogits @ p["token"])
    dlayers = []
    for back_n1, back_a, back_n2, back_f in reversed(backs):
        dn2, df = back_f(dx)
        dx_n2, dnorm2 = back_n2(dn2)
        dx = dx + dx_n2
        dn1, da = back_a(dx)
        dx_n1, dnorm1 = back_n1(dn1)
        dx = dx + dx_n1
        dlayers.append({"norm1": dnorm1, "attention": da, "norm2": dnorm2, "feed_forward": df})
    np.add.at(dtoken, ids, dx)
    dposition = np.zeros_like(p["position"])
    dposition[: ids.shape[1]] = dx.sum(axis=0)
    return float(loss), {"token": dtoken, "position": dposition, "layers": dlayers[::-1], "norm": dnorm}


class Step:
    """Parameters and moments, tensor by tensor."""

    def __init__(self, p: Tree, *, heads: int, eps: float) -> None:
        self.p, self.heads, self.eps, self.step = p, heads, eps, 0
        self.m = {name: np.zeros_like(x) for name, x in named_leaves(p)}
        self.v = {name: np.zeros_like(x) for name, x in named_leaves(p)}

    def __call__(self, tokens: Any, lr: float) -> float:
        self.step += 1
        loss, gradient = gradients(self.p, tokens, heads=self.heads, eps=self.eps)
        leaves = dict(named_leaves(gradient))
        norm = math.sqrt(sum(float((g * g).sum()) for g in leaves.values()))
        for name, p in named_leaves(self.p):
            g = leaves[name] * min(1.0, 1.0 / norm)
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.v[name] = 0.99 * self.v[name] + 0.01 * g * g
            m, v = self.m[name] / (1 - 0.9**self.step), self.v[name] / (1 - 0.99**self.step)
            p[...] -= lr * (m / (np.sqrt(v) + 1e-8) + (0.1 * p if is_decayed(p.shape) else 0))
        return loss
