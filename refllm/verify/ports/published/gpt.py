"""GPT-2, and what it shares with BERT."""

from refllm.spec.array import Array, Tree, arange, like, sqrt, tap
from refllm.spec.embedding import embedding
from refllm.spec.heads import cut
from refllm.spec.linear import matmul
from refllm.spec.position import sinusoidal
from refllm.verify.ports.published.parts import attended, feed_forward, mapped, norm, put_out, visible


def gpt_embedding(p: Tree, *, ids: Array, config: Tree) -> Array:
    """x = token[ids] + position"""
    x, _ = embedding(p["token"], ids=ids)
    if config["scaled_embedding"]:
        x = x * sqrt(config["width"])
    positions = arange(ids.shape[-1])
    if config["positions"] == "sinusoidal":
        return x + sinusoidal(like(positions, x), width=x.shape[-1])[0]
    return x + p["position"][positions]


def transformer_layer(x: Array, p: Tree, *, causal: bool, attention_mask: Array | None, config: Tree) -> Array:
    """Attention and feed-forward, each with its residual: the norm before the sublayer ("pre"), or after the sum."""
    if config["norm"] == "post":
        return post_norm_layer(x, p, causal=causal, attention_mask=attention_mask, config=config)
    n = tap("norm1", norm(x, p["norm1"], eps=config["eps"]))
    a = self_attention(n, p["attention"], causal=causal, attention_mask=attention_mask, config=config)
    h = tap("residual1", x + tap("attention_out", a))
    m = tap("norm2", norm(h, p["norm2"], eps=config["eps"]))
    f = feed_forward(m, p["feed_forward"], activation=config["activation"])
    return h + tap("feed_forward", f)


def post_norm_layer(x: Array, p: Tree, *, causal: bool, attention_mask: Array | None, config: Tree) -> Array:
    """h = N(x + attention(x)),   y = N(h + FFN(h))"""
    a = self_attention(x, p["attention"], causal=causal, attention_mask=attention_mask, config=config)
    s = tap("residual1", x + tap("attention_out", a))
    h = tap("norm1", norm(s, p["norm1"], eps=config["eps"]))
    f = feed_forward(h, p["feed_forward"], activation=config["activation"])
    t = tap("residual2", h + tap("feed_forward", f))
    return norm(t, p["norm2"], eps=config["eps"])


def self_attention(x: Array, p: Tree, *, causal: bool, attention_mask: Array | None, config: Tree) -> Array:
    """Queries, keys and values of every head from one map, attention, and the map of the heads."""
    qkv = mapped(x, p, "qkv")
    C = qkv.shape[-1] // 3
    q = tap("q", cut(qkv[..., :C], config["heads"]))
    k = tap("k", cut(qkv[..., C : 2 * C], config["heads"]))
    v = tap("v", cut(qkv[..., 2 * C :], config["heads"]))
    seen = visible(x, keys=x.shape[-2], causal=causal, window=0, attention_mask=attention_mask)
    a = attended(q, k, v, None, seen=seen, width=q.shape[-1], cap=0.0)
    return put_out(a, p)


def gpt_norm(x: Array, p: Tree, *, config: Tree) -> Array:
    """The last norm, where the layers are pre-norm."""
    return norm(x, p["norm"], eps=config["eps"])


def gpt_logits(x: Array, p: Tree, *, config: Tree) -> Array:
    """x W,   W = tokenᵀ if tied."""
    y, _ = matmul(x, p["token"].T if config["tied"] else p["head"])
    return y
