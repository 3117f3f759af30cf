"""The text with a cache of keys and values: the same answers as `generate`, in the steps in which implementations have
them. Its edits are what is tried on wrong answers where a cache was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.spec.array import Array, Pullback, Tree, arange, concatenate, integers, like, sqrt, stack, swap, where
from refllm.spec.feed_forward import feed_forward, gated_feed_forward
from refllm.spec.heads import cut, joined
from refllm.spec.layers import maybe_normalised, normalised, residual
from refllm.spec.linear import heads as projected
from refllm.spec.linear import linear, matmul
from refllm.spec.llama import FARTHEST, alibi_slopes
from refllm.spec.position import sinusoidal
from refllm.spec.relative import bucket
from refllm.spec.repeat_heads import repeat_heads
from refllm.spec.sampling import choose, greedy
from refllm.spec.self_attention import maybe_turned
from refllm.spec.softmax import softmax

Kept = dict[str, Array]  # "keys.0": of layer 0; "values.0"; and the number of "places" that are there


def generate_cached(
    p: Tree, *, model: str, ids: Array, new_tokens: int, temperature: float, top_k: int | None, top_p: float | None,
    uniforms: Array | None, config: Tree,
) -> tuple[Array, Array]:  # fmt: skip
    """GEN: as `generate`; the first step takes the prompt, every other the token before it"""
    if ids.ndim == 2:
        draws = [None] * len(ids) if uniforms is None else uniforms
        rows = [
            generate_cached(
                p, model=model, ids=row, new_tokens=new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                uniforms=u, config=config,
            )
            for row, u in zip(ids, draws, strict=True)
        ]  # fmt: skip
        texts, logits = zip(*rows, strict=True)
        return stack(texts, axis=0), stack(logits, axis=0)

    kept: Kept = {"places": 0}
    tokens, new, seen = list(ids), ids, []
    for n in range(new_tokens):
        last = MODELS[model](p, kept, ids=new, config=config)[-1]
        token = greedy(last) if uniforms is None else drawn(last, temperature, top_k, top_p, uniforms[n])
        tokens.append(token)
        seen.append(last)
        new = integers([token])
    return integers(tokens), stack(seen, axis=0)


def drawn(z: Array, temperature: float, top_k: int | None, top_p: float | None, u: Array) -> Array:
    """GEN: as `choose`"""
    return choose(z, temperature=temperature, top_k=top_k, top_p=top_p, uniform=u)


def gpt_step(p: Tree, kept: Kept, *, ids: Array, config: Tree) -> Array:
    """GPT: the logits (T, V) of T tokens that come after those that are kept"""
    T, before = len(ids), kept["places"]
    positions = before + arange(T)
    x = p["token"][ids]
    if config.get("scaled_embedding"):
        x = x * sqrt(x.shape[-1])
    if config["positions"] == "learned":
        x = x + p["position"][positions]
    else:
        x = x + sinusoidal(like(positions, x), width=x.shape[-1])[0]
    for n, layer in enumerate(p["layers"]):

        def attend(h: Array, p: Tree, n: int = n) -> tuple[Array, Pullback]:
            (q, k, v), _ = projected(h, p["Wqkv"], p["bqkv"], heads=config["heads"], parts=3)
            k, v = with_kept(kept, n, k, v)
            a = attend_kept(q, k, v, None)
            return linear(joined(a), p["Wo"], p["bo"])

        def feed(h: Array, p: Tree) -> tuple[Array, Pullback]:
            return feed_forward(h, p, activation=config["activation"])

        x, _ = residual(x, layer, 1, "attention", attend, norm=config["norm"], eps=config["eps"])
        x, _ = residual(x, layer, 2, "feed_forward", feed, norm=config["norm"], eps=config["eps"])
    kept["places"] = before + T
    x, _ = maybe_normalised(x, p, "norm", eps=config["eps"])
    return matmul(x, p["token"].T if config["tied"] else p["head"])[0]


def llama_step(p: Tree, kept: Kept, *, ids: Array, config: Tree) -> Array:
    """LLAMA: the logits (T, V) of T tokens that come after those that are kept"""
    T, before, how = len(ids), kept["places"], config["positions"]
    S = before + T
    positions = before + arange(T)
    rotation = how if how.startswith("rotary") else None
    bias = bias_of_step(p, how, positions, S, heads=config["heads"])
    x = p["token"][ids]
    for n, layer in enumerate(p["layers"]):

        def attend(h: Array, p: Tree, n: int = n) -> tuple[Array, Pullback]:
            q, k, v = (matmul(h, p[name])[0] for name in ("Wq", "Wk", "Wv"))
            q, _ = maybe_turned(cut(q, config["heads"]), rotation, positions=positions, base=config["base"])
            k, _ = maybe_turned(cut(k, config["kv_heads"]), rotation, positions=positions, base=config["base"])
            k, v = with_kept(kept, n, k, cut(v, config["kv_heads"]))
            groups = config["heads"] // config["kv_heads"]
            k, v = repeat_heads(k, groups=groups)[0], repeat_heads(v, groups=groups)[0]
            a = attend_kept(q, k, v, bias)
            return matmul(joined(a), p["Wo"])

        def feed(h: Array, p: Tree) -> tuple[Array, Pullback]:
            return gated_feed_forward(h, p, activation="silu")

        x, _ = residual(x, layer, 1, "attention", attend, norm="pre", eps=config["eps"])
        x, _ = residual(x, layer, 2, "feed_forward", feed, norm="pre", eps=config["eps"])
    kept["places"] = before + T
    x, _ = normalised(x, p["norm"], eps=config["eps"])
    return matmul(x, p["token"].T if config["tied"] else p["head"])[0]


def bias_of_step(p: Tree, how: str, positions: Array, S: int, *, heads: int) -> Array | None:
    """LONG, T5-REL: the bias (H, T, S) of the queries at these positions and all keys, or None"""
    distance = arange(S) - positions[:, None]  # at most 0 where a key is attended
    if how == "alibi":
        slopes = like(alibi_slopes(heads), p["token"])
        return slopes[:, None, None] * like(distance, p["token"])
    if how == "relative":
        E = p["relative"]
        rows = integers([[bucket(max(-n, 0), len(E), FARTHEST) for n in row] for row in distance.tolist()])
        return E[rows].swapaxes(-1, 0).swapaxes(-1, -2)
    return None


def with_kept(kept: Kept, n: int, k: Array, v: Array) -> tuple[Array, Array]:
    """All keys and values of layer n: those that are kept, and these, which are kept from now on"""
    if f"keys.{n}" in kept:
        k = concatenate([kept[f"keys.{n}"], k], axis=-2)
        v = concatenate([kept[f"values.{n}"], v], axis=-2)
    kept[f"keys.{n}"], kept[f"values.{n}"] = k, v
    return k, v


def attend_kept(q: Array, k: Array, v: Array, bias: Array | None) -> Array:
    """ATT: as `attention`; the queries are the last of the places that have keys"""
    (T, D), S = q.shape[-2:], k.shape[-2]
    s = q @ swap(k) / sqrt(D)
    if bias is not None:
        s = s + bias
    s = where(arange(S) <= arange(T)[:, None] + S - T, s, float("-inf"))
    P, _ = softmax(s)
    return P @ v


MODELS: dict[str, Callable[..., Array]] = {"gpt": gpt_step, "llama": llama_step}
FUNCTIONS: tuple[Any, ...] = (generate_cached, gpt_step, llama_step, bias_of_step, with_kept, attend_kept)
